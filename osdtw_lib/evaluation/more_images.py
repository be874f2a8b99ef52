"""What would ten more training images of a class buy? Its expected gain in recall, from one trained network's test results.

The classes of one run lie at many counts, so together they show how recall grows with images. On the logit scale,

    logit recall_k = intercept + slope * log n_k + own_k,    own_k ~ N(0, spread^2),

a meta-regression with random effects (DerSimonian and Laird 1986; the spread as in Paule and Mandel 1982): a class's own
distance from the curve is believed as far as its test images allow. n more images move it along the curve.

What it cannot know: whether the slope between classes is that of one class as it grows, and what the others lose. How far it
was right where images were really added stands in docs/more-images.md.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize, special

from .intervals import LEVEL

TOO_FEW = "needs 4 classes with test images, at three counts or more, to see recall grow"
_DRAWS = 2_000


def show_growth(classes: pd.DataFrame) -> bool:
    """Whether `gains` can read a slope off these classes."""
    counts = classes["training_images"][classes["test_images"] > 0]
    return len(counts) >= 4 and counts.nunique() >= 3


def gains(classes: pd.DataFrame, more: int = 10, seed: int = 0) -> pd.DataFrame:
    """Expected gain in recall of every class with `more` training images of its own, the largest first.

    classes: class, training_images (at least 1), test_images, right, as per_class.classes gives them.
    Returns class, training_images, recall (measured, %; NaN without test images), gain (points), and gain_low, gain_high:
    within them 95 % of the gains should lie that are measured by two networks, one trained without them and one with, on as
    many test images (a class without any: the gains themselves). Against the recall shown here a class gains more where that
    came out low by chance, as it has for some of those at the top of the table, and less where it came out high. The same
    arguments give the same numbers.
    Raises ValueError for `more` below 1, and where the classes are too few or too alike in count to show a slope.
    """
    if more < 1:
        raise ValueError(f"needs an image more at least, got {more}")
    x = np.log(classes["training_images"].to_numpy(float))
    right, images = classes["right"].to_numpy(float), classes["test_images"].to_numpy(float)
    tested = images > 0
    if not show_growth(classes):
        raise ValueError(TOO_FEW)
    level, noise = logits(right[tested], images[tested])
    curve, covariance, spread = _curve(x[tested], level, noise)

    middle, variance = np.zeros(len(x)), np.full(len(x), spread)  # of own_k; a class without test images is as any other
    trust = spread / (spread + noise)
    middle[tested] = trust * (level - curve[0] - curve[1] * x[tested])
    variance[tested] = (1 - trust) * spread

    rng = np.random.default_rng(seed)
    freedom = int(tested.sum()) - 2
    wide = np.sqrt(freedom / rng.chisquare(freedom, _DRAWS))[:, None]  # Student's: the spread is estimated from so many classes
    curves = curve + wide * (rng.standard_normal((_DRAWS, 2)) @ np.linalg.cholesky(covariance).T)
    own, measuring = rng.standard_normal((2, _DRAWS))  # the same for all classes: none is compared with another
    step = np.log1p(more * np.exp(-x))
    drawn = np.empty((len(x), 3))
    for k in range(len(x)):  # a class at a time: thousands of classes hold no more memory than one
        now = curves[:, 0] + curves[:, 1] * x[k] + middle[k] + np.sqrt(variance[k]) * own
        before, after = special.expit(now), special.expit(now + curves[:, 1] * step[k])
        of_images = (before * (1 - before) + after * (1 - after)) / images[k] if tested[k] else 0.0  # the variance of two shares
        seen = after - before + np.sqrt(of_images) * measuring
        drawn[k] = (after - before).mean(), *np.quantile(seen, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    drawn *= 100
    table = pd.DataFrame({"class": classes["class"], "training_images": classes["training_images"]})
    with np.errstate(invalid="ignore"):
        table["recall"] = 100 * right / images
    table[["gain", "gain_low", "gain_high"]] = drawn
    return table.sort_values(["gain", "training_images"], ascending=[False, True], kind="stable", ignore_index=True)


def logits(right: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logit of each share and its variance, finite at either end by half an image more of both kinds (Haldane 1956)."""
    hits, misses = right + 0.5, images - right + 0.5
    return np.log(hits / misses), 1 / hits + 1 / misses


def _curve(x: np.ndarray, level: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(intercept and slope (2,), their covariance (2, 2), spread^2): the spread with which the classes scatter about the curve
    as much as they should, sum of squares / variances = classes - 2; 0 where test images alone explain more than that."""
    design = np.stack([np.ones_like(x), x], axis=1)

    def fitted(spread):
        weights = 1 / (noise + spread)
        covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
        curve = covariance @ design.T @ (weights * level)
        return curve, covariance, float((weights * (level - design @ curve) ** 2).sum() - (len(x) - 2))

    widest = float(np.var(level)) * len(x) + 1.0
    spread = optimize.brentq(lambda s: fitted(s)[2], 0.0, widest) if fitted(0.0)[2] > 0 else 0.0
    return *fitted(spread)[:2], float(spread)
