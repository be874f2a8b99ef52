"""Are probabilities what they say? A temperature for each group of predicted classes, fitted on a calibration part, and how
far from the truth probabilities are before and after it.

scores (N, K) in class order, labels (N,), groups {many, medium, few: class indices}. A temperature T makes of scores s the
probabilities softmax(s / T): Guo et al., On Calibration of Modern Neural Networks, ICML 2017. It is chosen by the group of
the largest score, which is known for a new image and which T does not move; so no prediction changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import optimize

from ..longtail import GROUPS
from .intervals import LEVEL, strata, stretch, times_drawn

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 10  # images predicted into a group that a temperature is fitted on
FOLDS = 5
RESAMPLES = 1000
MEASURES = ("ece_equal_mass", "nll", "brier")


def probabilities(scores: np.ndarray) -> np.ndarray:
    """softmax (N, K), float64."""
    odds = np.exp(np.asarray(scores, np.float64) - np.max(scores, 1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the log of each image's true class (N,), in nats."""
    above = np.asarray(scores, np.float64) - np.max(scores, 1, keepdims=True)
    return np.log(np.exp(above).sum(1)) - above[np.arange(len(labels)), labels]


def brier(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance of each image's probabilities from its true class (N,), 0 to 2 (Brier 1950)."""
    distance = probabilities(scores)
    distance[np.arange(len(labels)), labels] -= 1
    return (distance**2).sum(1)


def equal_mass_bins(confidence: np.ndarray) -> np.ndarray:
    """(n,): which of 15 bins of equally many images, by confidence, each is in; of fewer images each has its own."""
    bins = np.empty(len(confidence), int)
    for number, members in enumerate(np.array_split(np.argsort(confidence, kind="stable"), BINS)):
        bins[members] = number
    return bins


def reliability(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """bin, images, confidence (mean of the bin), accuracy (share of right ones): a row a bin of equal mass that holds any."""
    table = pd.DataFrame({"bin": equal_mass_bins(confidence), "confidence": confidence, "accuracy": right.astype(float)})
    found = table.groupby("bin").agg(
        images=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
    )
    return found.reset_index()


def equal_mass_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in points of %, over 15 bins of equally many images; NaN without images.

    metrics.calibration_error is the same over 15 bins of equal width, which near 1 holds most images in one.
    """
    table = reliability(confidence, right)
    gaps = (table["confidence"] - table["accuracy"]).abs() * table["images"]
    return float(100 * gaps.sum() / len(confidence)) if len(confidence) else float("nan")


# temperatures ---------------------------------------------------------------------------------------------------


def weights_under(shares: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray]) -> np.ndarray:
    """(N,), summing to 1: each class counts by its share (K,), however many images it has.

    A class without images has its share taken by the others of its group, a group without images by the other groups.
    """
    weights = np.zeros(len(labels))
    for members in groups.values():
        inside = np.isin(labels, members)
        present, which, counts = np.unique(labels[inside], return_inverse=True, return_counts=True)
        if len(present):
            own = shares[present] * (shares[members].sum() / shares[present].sum())
            weights[inside] = (own / counts)[which]
    return weights / weights.sum()


def temperature(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The T of least weighted negative log-likelihood of softmax(scores / T), between 0.05 and 20.

    weights (N,), default all alike. The loss is convex in 1 / T, so that its slope has one zero: Brent's method finds it. Where
    every image is right, or none says more than chance, it is at an end. Raises ValueError for no image.
    """
    if not len(labels):
        raise ValueError("a temperature is fitted on images; there is none")
    weights = np.ones(len(labels)) if weights is None else weights
    scores = np.asarray(scores, np.float64)
    own = scores[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        return float(weights @ ((probabilities(inverse * scores) * scores).sum(1) - own))

    if slope(1 / COLDEST) <= 0:
        return COLDEST
    if slope(1 / HOTTEST) >= 0:
        return HOTTEST
    return float(1 / optimize.brentq(slope, 1 / HOTTEST, 1 / COLDEST, xtol=1e-12, rtol=1e-12))


def predicted_group(scores: np.ndarray, groups: dict[str, np.ndarray]) -> np.ndarray:
    """(N,): which group the largest score belongs to, by its number in GROUPS."""
    group_of = np.empty(scores.shape[1], int)
    for number, name in enumerate(GROUPS):
        group_of[groups[name]] = number
    return group_of[scores.argmax(1)]


def scaled(scores: np.ndarray, groups: dict[str, np.ndarray], temperatures: dict[str, float]) -> np.ndarray:
    """Scores over the temperature of the group predicted (N, K), float64."""
    chosen = np.array([temperatures[name] for name in GROUPS])[predicted_group(scores, groups)]
    return np.asarray(scores, np.float64) / chosen[:, None]


def fit_temperatures(
    scores: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray], shares: np.ndarray
) -> dict[str, float]:
    """{group: temperature}, each on the images predicted into it; 1 with fewer than 10 of them. Classes count by the shares (K,)
    for which softmax(scores) stands: under others even a row that is right would seem too sure of some classes."""
    weights, predicted, found = weights_under(shares, labels, groups), predicted_group(scores, groups), {}
    for number, name in enumerate(GROUPS):
        inside = predicted == number
        enough = inside.sum() >= FEWEST
        found[name] = temperature(scores[inside], labels[inside], weights[inside]) if enough else 1.0
    return found


def judged_temperatures(
    scores: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray], shares: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Whether temperatures help, on calibration images alone: group, temperature, images, gain, low, high, used.

    A row a group of predictions; images: those predicted into it. Five folds, each scaled by what the others fit; gain: nats of
    log-likelihood an image, under the shares (K,) for which the row stands, with a 95 % interval over images redrawn within
    their class, since so many of each were set aside. A temperature is used where the interval is above 0.
    """
    fold, rng = np.empty(len(labels), int), np.random.default_rng(seed)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        fold[rng.permutation(own)] = (np.arange(len(own)) + rng.integers(FOLDS)) % FOLDS
    gains = np.zeros(len(labels))
    for number in np.unique(fold):
        out, rest = fold == number, fold != number
        if rest.any():
            fitted = fit_temperatures(scores[rest], labels[rest], groups, shares)
            gains[out] = losses(scores[out], labels[out]) - losses(scaled(scores[out], groups, fitted), labels[out])
    weights, predicted = weights_under(shares, labels, groups), predicted_group(scores, groups)
    final, rows = fit_temperatures(scores, labels, groups, shares), []
    for number, name in enumerate(GROUPS):
        inside = predicted == number
        gain, low, high = _mean_and_interval(gains, weights * inside, labels, seed)
        rows.append((name, final[name], int(inside.sum()), gain, low, high, bool(low > 0)))
    return pd.DataFrame(rows, columns=["group", "temperature", "images", "gain", "low", "high", "used"])


def used_temperatures(judged: pd.DataFrame) -> dict[str, float]:
    """{group: temperature}, 1 where it is not used."""
    return {row.group: float(row.temperature) if row.used else 1.0 for row in judged.itertuples()}


def _mean_and_interval(values: np.ndarray, weights: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Weighted mean, and its 95 % interval; NaN where all weigh 0. A resample that draws none with a weight is left out."""
    if not weights.any():
        return float("nan"), float("nan"), float("nan")
    drawn = np.concatenate([times @ np.stack((weights * values, weights), 1) for times in _redrawn(labels, seed)])
    drawn = drawn[drawn[:, 1] > 0]
    return float(weights @ values / weights.sum()), *_ends(drawn[:, 0] / drawn[:, 1])


# before and after -----------------------------------------------------------------------------------------------


def compared(before: np.ndarray, after: np.ndarray | None, labels: np.ndarray, groups: dict, seed: int = 0):
    """How far probabilities are from the truth, on test images, as a table: group, measure, before, before_low, before_high,
    after, low, high.

    before, after: scores (N, K) without and with temperatures; after None: not known, NaN. group: of the true class, and
    `all`; a group without images is left out. measure: ece_equal_mass in points of %, nll in nats, brier; means over images.
    low and high: the 95 % interval of after - before, over test images redrawn within their class, the same ones for both.
    before_low and before_high are the interval of before. Bins stay as they are on the images themselves; a resampled ece is
    larger than one of new images, so its own interval lies high.
    """
    columns, keys, inside = [], [], _inside(labels, groups)
    scores_of = {"before": before, "after": before if after is None else after}
    for when, scores in scores_of.items():
        p = probabilities(scores)
        gap, nll, distance = p.max(1) - (p.argmax(1) == labels), losses(scores, labels), brier(scores, labels)
        for name, members in inside.items():
            bins = np.full(len(labels), -1)
            bins[members] = equal_mass_bins(p.max(1)[members])
            columns += [np.where(bins == number, gap, 0.0) for number in range(BINS)]
            columns += [nll * members, distance * members]
            keys.append((when, name))
    sizes = {name: members.sum() for name, members in inside.items()}
    values = np.stack(columns, 1)
    here = _measured(values.sum(0)[None], keys, sizes)
    drawn = [_measured(times @ values, keys, sizes) for times in _redrawn(labels, seed)]
    rows, nan = [], float("nan")
    for name in inside:
        for measure in MEASURES:
            was, now = ((when, name, measure) for when in scores_of)
            many = {key: np.concatenate([d[key] for d in drawn]) for key in (was, now)}
            change = _ends(many[now] - many[was]) if after is not None else (nan, nan)
            rows.append((name, measure, here[was][0], *_ends(many[was]), nan if after is None else here[now][0], *change))
    return pd.DataFrame(rows, columns=["group", "measure", "before", "before_low", "before_high", "after", "low", "high"])


def reliability_by_group(scores: np.ndarray, labels: np.ndarray, groups: dict) -> pd.DataFrame:
    """`reliability` of the largest probability: a row a group of true classes (and `all`) and bin."""
    p = probabilities(scores)
    confidence, right = p.max(1), p.argmax(1) == labels
    found = [reliability(confidence[m], right[m]).assign(group=name) for name, m in _inside(labels, groups).items()]
    return pd.concat(found, ignore_index=True)[["group", "bin", "images", "confidence", "accuracy"]]


def _inside(labels: np.ndarray, groups: dict) -> dict[str, np.ndarray]:
    members = {name: np.isin(labels, groups[name]) for name in GROUPS} | {"all": np.ones(len(labels), bool)}
    return {name: m for name, m in members.items() if m.any()}


def _measured(sums: np.ndarray, keys: list, sizes: dict) -> dict:
    """{(when, group, measure): (R,)} of sums over images (R, columns)."""
    found, width = {}, BINS + 2
    for i, (when, name) in enumerate(keys):
        own = sums[:, i * width : (i + 1) * width] / sizes[name]
        values = (100 * np.abs(own[:, :BINS]).sum(1), own[:, BINS], own[:, BINS + 1])
        found |= {(when, name, measure): value for measure, value in zip(MEASURES, values)}
    return found


def _redrawn(labels: np.ndarray, seed: int, at_once: int = 100) -> Iterator[np.ndarray]:
    """How often each image counts (r, N) in RESAMPLES resamples within its class, some at a time, as intervals.image_bootstrap
    widens them: on average once, and now and then a little less than never."""
    rng, redrawn = np.random.default_rng(seed), strata(labels)
    for _ in range(RESAMPLES // at_once):
        times = np.empty((at_once, len(labels)))
        for own in redrawn:
            times[:, own] = 1 + stretch(len(own)) * (times_drawn(len(own), at_once, rng) - 1)
        yield times


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
