"""Prediction sets that hold the true class with a chosen probability, for rare classes too: split conformal prediction.

The score of a class is 1 - p, p being its softmax probability, and an image's set has every class whose score is at most that
class's threshold (Sadinle, Lei and Wasserman, JASA 2019): of all sets with a given coverage in each class these have the least
mean size, and a class's score needs no ordering of the others, as adaptive sets (APS) do. A threshold is the
ceil((n + 1) coverage)-th smallest score of n calibration images, and so holds for a new image of the same kind (Vovk 2005).

A class with images enough for that has a threshold of its own, and its promise whatever the frequencies of classes are. The
others of its group share one, from their images together, which promises their mean; where those are too few, the small classes
of all groups do; and where these are too few the class is in every set. Images of frequent classes say nothing about a rare
one: a threshold from all images may hold a tenth of a rare class where nine tenths are promised.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ..longtail import GROUPS

LADDER = ("class", "group", "rare", "none", "all")  # whose images a class's threshold is from; "all": the usual one


def images_needed(coverage: float) -> int:
    """The least n with ceil((n + 1) coverage) <= n: 9 images for 0.9. Raises ValueError for a coverage not between 0 and 1."""
    if not (isinstance(coverage, (int, float)) and 0 < coverage < 1):
        raise ValueError(f"coverage is a share above 0 and below 1, got {coverage!r}")
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def threshold(scores: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores; infinity where n is too small for that."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def thresholds(scores: list, groups: dict[str, np.ndarray], coverage: float) -> tuple[np.ndarray, list[str]]:
    """(K,) thresholds and for each class whose images they are from: "class", "group", "rare" or "none" of LADDER.

    scores: for each class those its calibration images give it, 1 - p, perhaps none. Raises ValueError as images_needed.
    """
    needed = images_needed(coverage)
    own = [np.asarray(values, float) for values in scores]
    rare = np.concatenate([values for values in own if len(values) < needed] or [np.empty(0)])
    found, how = np.full(len(own), threshold(rare, coverage)), ["rare" if len(rare) >= needed else "none"] * len(own)
    for members in groups.values():
        small = [k for k in members if len(own[k]) < needed]
        together = np.concatenate([own[k] for k in small] or [np.empty(0)])
        for k in members:
            if k not in small:
                found[k], how[k] = threshold(own[k], coverage), "class"
            elif len(together) >= needed:
                found[k], how[k] = threshold(together, coverage), "group"
    return found, how


def scores_by_class(probabilities: np.ndarray, labels: np.ndarray) -> list[list[float]]:
    """1 - p of the true class, for each class those of its images in ascending order; probabilities (N, K), labels (N,)."""
    own = 1 - probabilities[np.arange(len(labels)), labels]
    return [np.sort(own[labels == k]).tolist() for k in range(probabilities.shape[1])]


def sets(probabilities: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """bool (N, K): each class whose 1 - p is within its limit, and always the likeliest, so that no set is empty."""
    inside = 1 - probabilities <= limits
    inside[np.arange(len(inside)), probabilities.argmax(1)] = True
    return inside


def coverage_by_group(inside: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray], how: list[str]) -> pd.DataFrame:
    """What sets bool (N, K) do: group, reached (% of the images whose true class is in its set), worst_class (the least of a
    class's), mean_size, how (of how many classes the threshold is from whose images). group: of the true class, and `all`.
    """
    held, size, rows = inside[np.arange(len(labels)), labels], inside.sum(1), []
    for name in (*GROUPS, "all"):
        classes = np.arange(inside.shape[1]) if name == "all" else groups[name]
        own = np.isin(labels, classes)
        if not own.any():
            continue
        worst = min(held[labels == k].mean() for k in np.unique(labels[own]))
        from_whose = [f"{kind} {n}" for kind in LADDER if (n := sum(how[k] == kind for k in classes))]
        rows.append((name, 100 * held[own].mean(), 100 * worst, size[own].mean(), ", ".join(from_whose)))
    return pd.DataFrame(rows, columns=["group", "reached", "worst_class", "mean_size", "how"])
