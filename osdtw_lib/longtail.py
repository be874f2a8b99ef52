"""Class counts, the head/tail partition and the shot groups: numpy only."""

from __future__ import annotations

import numpy as np

GROUPS = ("many", "medium", "few")
TASKS = ("head", "tail")


def exponential_class_counts(largest: int, imbalance_ratio: float, n_classes: int) -> np.ndarray:
    """Images a class under the exponential profile of the field's CIFAR-LT protocol.

    Class i keeps int(largest * (1 / imbalance_ratio) ** (i / (n_classes - 1))) images, i in label order:
    500 images at ratio 100 over 100 classes make 10,847. Returns int64 (n_classes,).
    Raises ValueError for a ratio below 1, no class, or a class that would be empty.
    """
    if not imbalance_ratio >= 1:
        raise ValueError(f"imbalance_ratio is at least 1 (largest / smallest class), got {imbalance_ratio}")
    if n_classes < 1 or largest < 1:
        raise ValueError(f"needs at least one class and one image, got n_classes {n_classes}, largest {largest}")
    # computed as the published code does, so that the truncation falls on the same integers
    counts = [int(largest * (1 / imbalance_ratio) ** (i / max(n_classes - 1, 1))) for i in range(n_classes)]
    if counts[-1] < 1:
        raise ValueError(
            f"largest {largest} at imbalance_ratio {imbalance_ratio} leaves the smallest class without an image; "
            f"use a ratio of at most {largest}"
        )
    return np.array(counts, dtype=np.int64)


def head_tail_partition(class_counts, head_share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Section 4: sort the classes by training count; the more frequent half is Task A (head), the rest Task B.

    class_counts (K,). head_share: how many of the classes are head, where it is not the paper's half; rounded (a half up), and
    each task keeps a class. Returns the class indices of head and tail (one and the other for K = 2; 3 and 2 for 5), each in
    ascending order. Ties: the smaller class index counts as the more frequent.
    Raises ValueError for fewer than two classes or a negative count.
    """
    counts = _checked_counts(class_counts)
    if len(counts) < 2:
        raise ValueError(f"a head and a tail need at least two classes, got {len(counts)}")
    order = np.argsort(-counts, kind="stable")
    heads = min(max(int(head_share * len(counts) + 0.5 + 1e-9), 1), len(counts) - 1)
    return np.sort(order[:heads]), np.sort(order[heads:])


def shot_groups(class_counts) -> dict[str, np.ndarray]:
    """The field's groups by training count: many > 100, medium 20..100, few < 20. Class indices (ascending)."""
    counts = _checked_counts(class_counts)
    return {
        "many": np.flatnonzero(counts > 100),
        "medium": np.flatnonzero((counts >= 20) & (counts <= 100)),
        "few": np.flatnonzero(counts < 20),
    }


def class_priors(class_counts) -> np.ndarray:
    """pi_k, the training-set frequency of each class over all N samples. Raises ValueError for an empty class."""
    counts = _checked_counts(class_counts)
    if not counts.all():
        empty = ", ".join(map(str, np.flatnonzero(counts == 0)[:10]))
        raise ValueError(f"classes without a training image have no prior: {empty}")
    return counts / counts.sum()


def _checked_counts(class_counts) -> np.ndarray:
    counts = np.asarray(class_counts)
    if counts.ndim != 1 or len(counts) == 0:
        raise ValueError(f"class_counts is one number a class, got shape {counts.shape}")
    if (counts < 0).any():
        raise ValueError("class_counts holds a negative number")
    return counts
