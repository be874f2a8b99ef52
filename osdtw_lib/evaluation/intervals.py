"""How far to trust a number and a difference: bootstrap intervals, a paired test, who wins.

Everything starts from `right`, bool (S, N): whether the network of seed s had test image i right. Rows that are
compared share seeds and images, entry by entry. Accuracies are in %, differences in points of %, intervals hold 95 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from ..longtail import GROUPS
from .metrics import accuracies_of_counts

LEVEL = 0.95
SIGNIFICANT = 0.05
LEAST_DOF = 6  # of the seeds' noise, from which on images may lend theirs
PRIOR_DOF = 4  # that the median of all rows' noise counts for, beside a row's own
OTHER_WAY = {"wins": "loses", "loses": "wins", "undecided": "undecided"}
_CELLS = 4_000_000  # numbers held at once while resampling


def image_bootstrap(right, labels, groups=None, minus=None, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """What other test images would have given these networks: percentile bootstrap (Efron 1979) within each class.

    right bool (S, N), S at least 1; labels (N,); groups: {many, medium, few: class indices} or None, without them.
    minus bool (S, N): another row with the same seeds and images; then the differences right - minus.
    Deviations are widened to what new images would show (`stretch`); classes of one image are redrawn together (`strata`).
    Returns a row for each metric of accuracies_of_counts, in its order: metric, value, low, high, in % or points.
    A metric is computed for each seed and averaged over seeds, in a resample too. A row that has every image right or
    every one wrong gets an interval of no width. The same arguments give the same numbers, in any order of the images.
    Raises ValueError for shapes that do not fit, no image, and TypeError for entries that are not bool.
    """
    return _bootstrap(right, labels, groups, minus, resamples, seed, seeds_too=False)


def two_way_bootstrap(right, labels, groups=None, minus=None, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """What other test images and other seeds would have given: as image_bootstrap, with seeds redrawn independently.

    S of the S seeds are drawn with replacement, and how far they are from the mean over seeds is multiplied by
    sqrt(S / (S - 1)): the mean of S draws from S values varies too little by this factor.
    It counts what one seed has right by luck on one image up to three times (Owen 2007, the pigeonhole bootstrap), so it
    is too wide where a row's networks agree on few images; and it has no Student tails, so it is too narrow where few
    seeds vary more than images do. paired_test is nearer in both.
    Raises as image_bootstrap, and ValueError for fewer than two seeds.
    """
    return _bootstrap(right, labels, groups, minus, resamples, seed, seeds_too=True)


def wilson(right: int, n_images: int) -> tuple[float, float]:
    """95 % interval in % of a share, `right` of n_images (Wilson 1927): within 0 and 100, of some width also at either end.

    Of the images alone, as image_bootstrap's, from counts. Raises ValueError for counts that are no share.
    """
    if not 0 <= right <= n_images or n_images < 1:
        raise ValueError(f"needs an image and as many right as there are at most, got {right} of {n_images}")
    z, share = special.ndtri((1 + LEVEL) / 2), right / n_images
    middle, half = share + z**2 / (2 * n_images), z * np.sqrt(share * (1 - share) / n_images + (z / (2 * n_images)) ** 2)
    low, high = (100 * (middle + side * half) / (1 + z**2 / n_images) for side in (-1, 1))
    return max(0.0, float(low)), min(100.0, float(high))


class PairedTest(NamedTuple):
    """mean (points) over seeds, per_seed (S,), its variance by seeds u and by images v (points squared), se, dof, p."""

    mean: float
    per_seed: np.ndarray
    u: float
    v: float
    se: float
    dof: float
    p: float


def over_seeds(values) -> tuple[float, float]:
    """95 % interval of the mean of one value a seed (Student's t), on the images they were measured on; nan of one seed."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    half = special.stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


class SeedNoise(NamedTuple):
    """How much one more seed moves a row's accuracy: the variance (points squared) at one seed, and its degrees of freedom."""

    variance: float
    dof: float


def seed_noise(rows, labels, metric: str = "class_mean", groups=None) -> list[SeedNoise]:
    """Of every row of a table (R, S, N): its variance about what row and seed add up to, drawn towards the median of all rows'.

    A few seeds agree by luck, and rows differ in noise a hundredfold: neither its own alone nor the mean of all will do. The
    median counts as PRIOR_DOF degrees of freedom, if the other rows have as many (after Smyth 2004; a median, so that a few
    noisy rows decide nothing about others). Arguments as for paired_test.
    """
    rows = np.asarray(rows)
    n_rows, n_seeds = rows.shape[:2]
    _, labels, sizes = _checked(rows[0], labels, groups)
    counts = [[np.bincount(labels, seed, minlength=len(sizes)) for seed in row] for row in rows]
    accuracy = 100 * (np.array(counts) @ _weights(metric, sizes, groups))
    own_dof = n_seeds - 1
    if not own_dof or n_rows < 2:
        return [SeedNoise(np.nan, 0)] * n_rows
    prior, bias = min(PRIOR_DOF, (n_rows - 2) * own_dof), (1 - 2 / (9 * own_dof)) ** 3  # chi squared's median by its mean
    of_row, variance = accuracy - accuracy.mean(1, keepdims=True), np.ones(n_rows)
    for _ in range(4):  # what a seed does to all rows is told best by those with little noise
        share = (1 / variance) / (1 / variance).sum()
        own = ((of_row - share @ of_row) ** 2).sum(1) / own_dof / (1 - share)
        variance = (prior * np.median(own) / bias + own_dof * own) / (prior + own_dof)
        if not variance.all():
            break
    return [SeedNoise(float(one), prior + own_dof) for one in variance]


def noise_of_two(one: SeedNoise, other: SeedNoise) -> SeedNoise:
    """The mean of two rows' variances, which their difference has twice, with its dof (Satterthwaite 1946)."""
    both = one.variance + other.variance
    parts = sum(noise.variance**2 / noise.dof for noise in (one, other) if noise.variance > 0)
    return SeedNoise(both / 2, both**2 / parts if parts else one.dof)


def paired_test(right, other, labels, metric: str = "class_mean", groups=None, noise: SeedNoise | None = None) -> PairedTest:
    """Two-sided test that two rows are equally accurate, over other seeds and other test images, in closed form.

    right, other bool (S, N), paired by seed and image; labels (N,); metric: class_mean, all, or a name in groups.
    u is the variance of the seeds' differences over S, or where it is larger that which `noise` of the two (noise_of_two) lets
    expect: few seeds agree by luck too often to be taken at their word. v is the variance over images, within each class,
    of the difference averaged over seeds, each class by its weight; a class of one image takes the pooled variance.
    t = mean / sqrt(u + v) with (u + v)^2 / (u^2 / d + v^2 / (n - K)) degrees of freedom (Satterthwaite 1946), d those of u,
    n and K the images and classes the metric counts; where `noise` has fewer than LEAST_DOF, at most those.
    Where nothing varies, dof is NaN and p that of the sign test over images.
    One seed, or one image in each class: what cannot be known is NaN, p too. Raises as image_bootstrap, and ValueError
    for an unknown metric or one that counts no image.
    """
    right, labels, sizes = _checked(right, labels, groups)
    other = _checked(other, labels, groups, like=right)[0]
    n_seeds = len(right)
    weights = _weights(metric, sizes, groups)  # of an image, by class
    d = right.astype(np.int64) - other
    by_class = np.stack([np.bincount(labels, row, minlength=len(sizes)) for row in d])
    per_seed = 100 * (by_class * weights).sum(1)
    mean = float(per_seed.mean())

    counted = weights > 0
    n, n_classes = int(sizes[counted].sum()), int(counted.sum())
    total = d.sum(0)  # whole numbers: what does not vary has a variance of exactly 0
    squares = np.bincount(labels, total**2, minlength=len(sizes)) - by_class.sum(0) ** 2 / np.maximum(sizes, 1)
    pooled = squares[counted].sum() / (n - n_classes) if n > n_classes else np.nan
    variance = np.where(sizes > 1, squares / np.maximum(sizes - 1, 1), pooled)[counted]
    v = float(1e4 * (weights[counted] ** 2 * sizes[counted] * variance).sum() / n_seeds**2)
    u, seeds_dof = np.nan, n_seeds - 1
    noise = noise or SeedNoise(0.0, seeds_dof)
    if n_seeds > 1:
        u = float(per_seed.var(ddof=1) / n_seeds) if np.ptp(per_seed) > 1e-9 else 0.0
        expected = 2 * noise.variance / n_seeds  # of a difference of two rows
        u, seeds_dof = (expected, noise.dof) if expected > u else (u, seeds_dof)
    if np.isnan(u + v):
        return PairedTest(mean, per_seed, u, v, np.nan, np.nan, np.nan)
    se = float(np.sqrt(u + v))
    if se == 0:
        signs = np.sign(total[counted[labels]])
        ups, downs = int((signs > 0).sum()), int((signs < 0).sum())
        return PairedTest(mean, per_seed, u, v, se, np.nan, min(1.0, float(2 * special.bdtr(min(ups, downs), ups + downs, 0.5))))
    dof = (u + v) ** 2 / (u**2 / seeds_dof + (v**2 / (n - n_classes) if v else 0.0))
    dof = min(dof, noise.dof) if noise.dof < LEAST_DOF else dof
    return PairedTest(mean, per_seed, u, v, se, float(dof), float(2 * special.stdtr(dof, -abs(mean) / se)))


def holm(p) -> np.ndarray:
    """p values (m,) adjusted for being m at once (Holm 1979), each at most 1; a NaN stays one and counts among the m."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")  # NaN last
    raised = np.minimum(1.0, (len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(raised)
    return adjusted


def verdicts(differences, p) -> list[str]:
    """wins, loses or undecided, of differences (m,) and their adjusted p values (m,); a NaN decides nothing."""
    signs = np.where(np.asarray(p, float) < SIGNIFICANT, np.sign(np.asarray(differences, float)), 0)
    return [{1: "wins", -1: "loses", 0: "undecided"}[int(sign)] for sign in signs]


def who_wins(
    right: dict[str, np.ndarray], labels, metric: str = "class_mean", groups=None, resamples: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Every row against every other one, both ways round.

    right: {row: bool (S, N)}, all with the same seeds and images; labels (N,); metric, groups as for paired_test.
    Columns row, other, difference, low, high (points; the two-way interval, for one seed that of images alone), p
    (paired_test, with both rows' seed_noise), p_adjusted (holm over all pairs, each counted once), verdict: wins or loses
    where p_adjusted is below 0.05, else undecided; one seed decides nothing, there p is NaN. The images are redrawn once for
    all rows.
    The same arguments give the same numbers, in any order of rows and images. Raises as paired_test.
    """
    columns = ["row", "other", "difference", "low", "high", "p", "p_adjusted", "verdict"]
    names = sorted(right)
    if len(names) < 2:
        return pd.DataFrame(columns=columns)
    first, labels, sizes = _checked(right[names[0]], labels, groups)
    rows = np.stack([_checked(right[name], labels, groups, like=first)[0] for name in names])
    n_seeds = len(first)
    weights = 100 * _weights(metric, sizes, groups)
    image_rng, seed_rng = np.random.default_rng(seed).spawn(2)
    redrawn = _resampled(rows.reshape(-1, len(labels)), labels, sizes, resamples, image_rng)
    drawn = [(counts * weights).sum(-1) for counts in redrawn]
    means = _over_seeds(np.concatenate(drawn).reshape(resamples, len(names), n_seeds), seed_rng, n_seeds > 1)

    pairs = list(combinations(range(len(names)), 2))
    noise = seed_noise(rows, labels, metric, groups)
    tests = [paired_test(rows[a], rows[b], labels, metric, groups, noise_of_two(noise[a], noise[b])) for a, b in pairs]
    adjusted = holm([test.p for test in tests])
    found = {}
    words = verdicts([test.mean for test in tests], adjusted)
    for (a, b), test, p, word in zip(pairs, tests, adjusted, words):
        low, high = _percentiles(means[:, a] - means[:, b], 100)
        found[names[a], names[b]] = (test.mean, low, high, test.p, p, word)
        found[names[b], names[a]] = (-test.mean, -high, -low, test.p, p, OTHER_WAY[word])
    return pd.DataFrame([(a, b, *found[a, b]) for a in right for b in right if a != b], columns=columns)


def _bootstrap(right, labels, groups, minus, resamples, seed, seeds_too) -> pd.DataFrame:
    right, labels, sizes = _checked(right, labels, groups)
    n_seeds = len(right)
    if seeds_too and n_seeds < 2:
        raise ValueError("other seeds are judged from at least two; image_bootstrap takes one")
    rows = [right] if minus is None else [right, _checked(minus, labels, groups, like=right)[0]]

    def values(counts):
        """{metric: (..., S)} of counts (..., rows * S, K)."""
        both = accuracies_of_counts(counts.reshape(*counts.shape[:-2], len(rows), n_seeds, -1), sizes, groups)
        return {name: v[..., 0, :] if minus is None else v[..., 0, :] - v[..., 1, :] for name, v in both.items()}

    stacked = np.concatenate(rows)
    image_rng, seed_rng = np.random.default_rng(seed).spawn(2)
    here = values(np.stack([np.bincount(labels, row, minlength=len(sizes)) for row in stacked]))
    drawn = [values(counts) for counts in _resampled(stacked, labels, sizes, resamples, image_rng)]
    means = _over_seeds(np.stack([np.concatenate([d[name] for d in drawn]) for name in here], axis=1), seed_rng, seeds_too)
    low = 0 if minus is None else -100
    table = [(name, float(here[name].mean()), *_percentiles(means[:, j], 100, low)) for j, name in enumerate(here)]
    return pd.DataFrame(table, columns=["metric", "value", "low", "high"])


def strata(labels: np.ndarray) -> list[np.ndarray]:
    """Images that are redrawn among themselves, as indices: those of a class. Classes of one image, which would never vary, are
    one stratum together; where only one class has one, with the smallest other."""
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    by_size = sorted(range(len(classes)), key=lambda i: len(classes[i]))
    single = sum(len(own) == 1 for own in classes)
    joined = set(by_size[: 2 if single == 1 else single])
    rest = [own for i, own in enumerate(classes) if i not in joined]
    return [np.sort(np.concatenate([classes[i] for i in joined])), *rest] if joined else rest


def stretch(n: int) -> float:
    """What deviations of n images drawn from n are multiplied by: they vary by (n - 1) / n of what n new ones would."""
    return float(np.sqrt(n / (n - 1))) if n > 1 else 1.0


def _drawn(n: int, resamples: int, rng) -> np.ndarray:
    """Which of n things are drawn (resamples, n), with replacement."""
    return rng.integers(n, size=(resamples, n))


def times_drawn(n: int, resamples: int, rng) -> np.ndarray:
    """How often each of n things is drawn (resamples, n), n being drawn with replacement."""
    picks = _drawn(n, resamples, rng) + n * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * n).reshape(resamples, n)


def _resampled(right, labels, sizes, resamples, rng) -> Iterator[np.ndarray]:
    """Right images of each class (r, C, K), of r resamples at a time; all rows of right (C, N) share the images drawn.

    What the images of a stratum of several classes tell goes to those classes in turn.
    """
    own = []
    for members in strata(labels):
        inside = right[:, members]
        order = np.lexsort((*inside, labels[members]))  # an order of its own, whatever the file's
        own.append((labels[members][order], inside[:, order].T.astype(np.float32)))
    at_once = max(1, min(resamples, _CELLS // max(int(sizes.max()), len(right) * len(sizes))))
    for start in range(0, resamples, at_once):
        r = min(at_once, resamples - start)
        counts = np.zeros((r, len(right), len(sizes)), np.float32)
        for classes, inside in own:
            n, wider = len(inside), stretch(len(inside))
            if (classes == classes[0]).all():
                here, drawn = inside.sum(0), times_drawn(n, r, rng).astype(np.float32) @ inside  # whole numbers: exact
                counts[:, :, classes[0]] = here + wider * (drawn - here)
                continue
            mean = inside.mean(0)
            varied = mean + wider * (inside[_drawn(n, r, rng)] - mean)  # (r, n, C)
            for k in np.unique(classes):
                counts[:, :, k] = varied[:, classes == k].sum(1)
        yield counts


def _over_seeds(values: np.ndarray, rng, seeds_too: bool) -> np.ndarray:
    """values (R, M, S) -> their mean over seeds (R, M), seeds redrawn where seeds_too."""
    resamples, _, n_seeds = values.shape
    mean = values.mean(-1)
    if not seeds_too:
        return mean
    times = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples)
    redrawn = (values * times[:, None]).sum(-1) / n_seeds
    return mean + np.sqrt(n_seeds / (n_seeds - 1)) * (redrawn - mean)


def _percentiles(values: np.ndarray, largest: float, smallest: float | None = None) -> tuple[float, float]:
    smallest = -largest if smallest is None else smallest
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(np.clip(low, smallest, largest)), float(np.clip(high, smallest, largest))


def _weights(metric: str, sizes: np.ndarray, groups) -> np.ndarray:
    """What one image of each class weighs in the metric (K,); over the images they sum to 1."""
    if metric == "class_mean":
        return np.where(sizes > 0, 1 / np.maximum(sizes, 1), 0.0) / (sizes > 0).sum()
    if metric != "all" and metric not in (groups or {}):
        raise ValueError(f"metric is class_mean, all or a group ({', '.join(groups or GROUPS)} with groups), got {metric!r}")
    inside = sizes > 0
    if metric != "all":
        inside &= np.isin(np.arange(len(sizes)), groups[metric])
    if not inside.any():
        raise ValueError(f"no test image belongs to {metric}")
    return inside / sizes[inside].sum()


def _checked(right, labels, groups, like=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """right (S, N), labels (N,), test images of each class (K,), or an error."""
    right, labels = np.asarray(right), np.asarray(labels)
    if right.dtype != bool:
        raise TypeError(f"right says yes or no for each seed and image, got {right.dtype}; predictions == labels makes it")
    if right.ndim != 2 or labels.shape != right.shape[1:] or not right.size:
        raise ValueError(f"right is (S, N) and labels (N,), neither empty, got {right.shape} and {labels.shape}")
    if like is not None and right.shape != like.shape:
        raise ValueError(f"rows that are compared share seeds and images, got {like.shape} and {right.shape}")
    named = np.concatenate([np.asarray(classes, int) for classes in (groups or {}).values()] or [np.array([], int)])
    n_classes = 1 + max(int(labels.max()), int(named.max(initial=-1)))
    return right, labels, np.bincount(labels, minlength=n_classes)
