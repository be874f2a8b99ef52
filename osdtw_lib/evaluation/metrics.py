"""Scores of a model on a test set: accuracy by group, negative log-likelihood, confusion."""

from __future__ import annotations

import numpy as np

from ..longtail import GROUPS


def accuracy_by_group(predicted: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    """Accuracy in % over the test images of each group and over all; NaN for a group without images."""
    right = predicted == labels
    members = {name: np.isin(labels, groups[name]) for name in GROUPS} | {"all": np.ones(len(labels), bool)}
    return {name: float(100 * right[m].mean()) if m.any() else float("nan") for name, m in members.items()}


def confusion(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (K, K): row = true class, column = predicted class."""
    return np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
