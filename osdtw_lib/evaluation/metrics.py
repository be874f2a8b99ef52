"""Scores of a model on a test set: accuracy by group and by class, likelihood, calibration."""

from __future__ import annotations

import numpy as np

from ..longtail import GROUPS

CALIBRATION_BINS = 15


def accuracy_by_group(predicted: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    """Accuracy in % over the test images of each group and over all; NaN for a group without images."""
    right = predicted == labels
    members = {name: np.isin(labels, groups[name]) for name in GROUPS} | {"all": np.ones(len(labels), bool)}
    return {name: float(100 * right[m].mean()) if m.any() else float("nan") for name, m in members.items()}


def metrics_of(
    scores: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray], prior: np.ndarray | None = None
) -> dict[str, float]:
    """Every metric of one row on one test set.

    scores (N, K): a row's raw scores in class order, the prediction is their argmax; labels (N,);
    groups: {many, medium, few: class indices}, as shot_groups gives them.
    prior (K,): the share each class has in the likelihood; None: each class alike, however many images it has.

    The accuracies of accuracies_of_counts, in %. nll: minus the log of the true class's softmax, in nats, the mean
    within each class and then over the classes by prior. ece, ece_many, ece_medium, ece_few: calibration_error of the
    largest softmax over all images and within each group, in points of %.
    A class without test images is left out of every mean over classes, and the prior is spread over the others; a
    group without images is NaN. On a test set with as many images in each class, all and class_mean are the same.
    Raises ValueError for shapes that do not fit, no image, a label that is no class, scores that are not finite or a
    prior that is negative or 0 on every class with images.
    """
    scores, labels = np.asarray(scores, float), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(f"scores are (N, K) and labels (N,) with N at least 1, got {scores.shape} and {labels.shape}")
    n, n_classes = scores.shape
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels run from 0 to {n_classes - 1}, got {labels.min()} to {labels.max()}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold a number that is not finite")
    right = scores.argmax(1) == labels
    sizes = np.bincount(labels, minlength=n_classes)
    counts = np.bincount(labels[right], minlength=n_classes)
    found = {name: float(value) for name, value in accuracies_of_counts(counts, sizes, groups).items()}

    above = scores - scores.max(1, keepdims=True)
    log_total = np.log(np.exp(above).sum(1))
    losses = log_total - above[np.arange(n), labels]
    share = np.where(sizes > 0, np.ones(n_classes) if prior is None else np.asarray(prior, float), 0.0)
    if not (share >= 0).all() or not share.sum() > 0:
        raise ValueError("the prior is a share a class, none negative, not 0 on every class with test images")
    found["nll"] = float((losses * (share / np.maximum(sizes, 1))[labels]).sum() / share.sum())

    confidence = np.exp(-log_total)
    found["ece"] = calibration_error(confidence, right)
    for name in GROUPS:
        inside = np.isin(labels, groups[name])
        found[f"ece_{name}"] = calibration_error(confidence[inside], right[inside])
    return found


def accuracies_of_counts(counts: np.ndarray, sizes: np.ndarray, groups: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    """Every accuracy that right answers a class determine, in %, for any number of counts at once.

    counts (..., K): right test images of each class; sizes (K,): test images of each class, at least one in all.
    groups: {many, medium, few: class indices}, or None to leave the groups out. Returns {metric: (...)}:
    all and the groups, over images; class_mean, worst_class, worst_tenth (mean of the worst tenth of the classes,
    rounded down, at least one), harmonic_mean of the class accuracies (0 where a class has 0) and
    harmonic_mean_smoothed, with (right + 1) / (images + 2) for each class. Classes without test images are left out;
    a group without images is NaN.
    """
    counts, sizes = np.asarray(counts, float), np.asarray(sizes)
    present = sizes > 0
    n_present = int(present.sum())
    own, own_sizes = counts[..., present], sizes[present]
    accuracy = own / own_sizes
    tenth = max(1, n_present // 10)
    found = {"all": own.sum(-1) / own_sizes.sum(), "class_mean": accuracy.mean(-1)}
    for name in GROUPS if groups is not None else ():
        images = sizes[groups[name]].sum()
        found[name] = counts[..., groups[name]].sum(-1) / images if images else np.full(counts.shape[:-1], np.nan)
    found["worst_class"] = accuracy.min(-1)
    found["worst_tenth"] = np.partition(accuracy, tenth - 1, axis=-1)[..., :tenth].mean(-1)
    inverse = (1 / np.where(accuracy > 0, accuracy, 1.0)).sum(-1)
    found["harmonic_mean"] = np.where((accuracy > 0).all(-1), n_present / inverse, 0.0)
    found["harmonic_mean_smoothed"] = n_present / ((own_sizes + 2) / (own + 1)).sum(-1)
    return {name: 100 * value for name, value in found.items()}


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error in points of %, over 15 equal bins of confidence (Guo et al., ICML 2017, Eq. 3).

    confidence (n,) in [0, 1]: what a row says its chance is; right (n,) bool: whether it was. The mean over images of
    the distance between the mean confidence of their bin and its share of right ones. A bin holds its upper edge and
    not its lower one; 0 is in the first. NaN without images.
    """
    if not len(confidence):
        return float("nan")
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=np.asarray(right, float) - confidence, minlength=CALIBRATION_BINS)
    return float(100 * np.abs(gaps).sum() / len(confidence))
