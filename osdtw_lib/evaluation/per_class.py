"""What a table's average hides: recall, precision and the commonest mistake of every class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..longtail import GROUPS
from .intervals import wilson
from .metrics import accuracies_of_counts


def further_accuracies(predicted: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    """Beside the share of images named right (N,): class_mean, worst_class, and harmonic_groups, the harmonic mean of the
    accuracies of the groups that have test images (0 where one has none right); all in %."""
    n_classes = 1 + max(int(labels.max()), *(int(np.max(m, initial=0)) for m in groups.values()))
    sizes = np.bincount(labels, minlength=n_classes)
    found = accuracies_of_counts(np.bincount(labels[predicted == labels], minlength=n_classes), sizes, groups)
    own = np.array([found[name] for name in GROUPS if not np.isnan(found[name])])
    harmonic = len(own) / (1 / own).sum() if len(own) and (own > 0).all() else 0.0
    return {"class_mean": float(found["class_mean"]), "worst_class": float(found["worst_class"]), "harmonic_groups": harmonic}


def confusions(predicted: np.ndarray, labels: np.ndarray, names) -> pd.DataFrame:
    """true, predicted (names), count: of every pair of classes (N,) that occurs, in class order; hits stand in it too."""
    pairs, counts = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    names = np.array(names, dtype=object)
    return pd.DataFrame({"true": names[pairs[:, 0]], "predicted": names[pairs[:, 1]], "count": counts})


def dense(confusion: pd.DataFrame, names) -> np.ndarray:
    """What `confusions` gave, as counts (K, K): row = true class, column = predicted class."""
    place = {name: k for k, name in enumerate(names)}
    counts = np.zeros((len(place), len(place)), np.int64)
    counts[confusion["true"].map(place), confusion["predicted"].map(place)] = confusion["count"]
    return counts


def classes(predicted: np.ndarray, labels: np.ndarray, names, training: np.ndarray) -> pd.DataFrame:
    """A line a class: class, training_images, test_images, right, recall with its 95 % Wilson interval recall_low and
    recall_high, precision (all in %, NaN where no image stands behind it), taken_for, the class it is most often taken for
    (empty where never), and taken_for_images."""
    n = len(names)
    sizes, named = np.bincount(labels, minlength=n), np.bincount(predicted, minlength=n)
    right = np.bincount(labels[predicted == labels], minlength=n)
    taken_for, times = _commonest_mistakes(predicted, labels, n)
    intervals = np.array([wilson(int(r), int(s)) if s else (np.nan, np.nan) for r, s in zip(right, sizes)])
    with np.errstate(invalid="ignore"):
        recall, precision = 100 * right / sizes, 100 * right / named
    return pd.DataFrame(
        {
            "class": list(names),
            "training_images": training,
            "test_images": sizes,
            "right": right,
            "recall": recall,
            "recall_low": intervals[:, 0],
            "recall_high": intervals[:, 1],
            "precision": precision,
            "taken_for": [names[k] if count else "" for k, count in zip(taken_for, times)],
            "taken_for_images": times,
        }
    )


def _commonest_mistakes(predicted: np.ndarray, labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each class the other one it is most often taken for, of several the first, and how often (0: never)."""
    wrong = predicted != labels
    pairs, counts = np.unique(labels[wrong].astype(np.int64) * n + predicted[wrong], return_counts=True)
    taken_for, times = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for pair, count in zip(pairs, counts):
        k, other = divmod(int(pair), n)
        if count > times[k]:
            taken_for[k], times[k] = other, count
    return taken_for, times
