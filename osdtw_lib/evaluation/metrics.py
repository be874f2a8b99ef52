"""Scores of a model on a test set: accuracy by group, negative log-likelihood, confusion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..longtail import GROUPS

METHOD_NAMES = {
    "ce": "cross-entropy",
    "logit_adjusted_ce": "logit-adjusted cross-entropy",
    "balanced_bce": "balanced BCE (LiVT's loss)",
    "stage1": "Stage 1, two networks",
    "stage2": "Stage 2, joint network",
    "osdtw_assembled": "OSDTW assembled",
    "osdtw": "OSDTW refined",
}


def accuracy_by_group(predicted: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray]) -> dict[str, float]:
    """Accuracy in % over the test images of each group and over all; NaN for a group without images."""
    right = predicted == labels
    members = {name: np.isin(labels, groups[name]) for name in GROUPS} | {"all": np.ones(len(labels), bool)}
    return {name: float(100 * right[m].mean()) if m.any() else float("nan") for name, m in members.items()}


def shown(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The accuracy table for a reader: one decimal; "not run" for a method without results, "-" for an empty group."""
    table = accuracy.drop(columns="seed").assign(method=accuracy["method"].map(METHOD_NAMES))
    for group in (*GROUPS, "all"):
        cells = zip(accuracy[group], accuracy["all"].isna())
        table[group] = ["not run" if not_run else "-" if np.isnan(value) else f"{value:.1f}" for value, not_run in cells]
    return table


def how_to_run_missing(accuracy: pd.DataFrame) -> str:
    """One line that says how to fill the rows that were not run; empty where none is missing."""
    missing = accuracy.loc[accuracy["all"].isna(), "method"].tolist()
    return f"not run: {', '.join(missing)}; add them to `baselines` and ./run_all.sh --from 06" if missing else ""


def confusion(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (K, K): row = true class, column = predicted class."""
    return np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


@torch.no_grad()
def class_scores(network, tasks: dict, batches) -> np.ndarray:
    """Algorithm 1, lines 22 to 24: the logit vector s = [s^A; s^B] of every image, in class order (N, K).

    network: images -> {task: logits}; tasks: {task: likelihood}, whose `classes` say which column is whose.
    """
    network.eval()
    logits = ({t: scores.float() for t, scores in network(images).items()} for images, _ in batches)
    return torch.cat([in_class_order(one, tasks).cpu() for one in logits]).numpy()


def in_class_order(logits: dict[str, torch.Tensor], tasks: dict) -> torch.Tensor:
    """{task: logits} -> every class's raw score, in class order (B, K)."""
    joined = torch.cat([likelihood.log_odds(logits[t]) for t, likelihood in tasks.items()], dim=-1)
    columns = torch.cat([likelihood.classes for likelihood in tasks.values()]).to(joined.device)
    return torch.empty_like(joined).index_copy_(1, columns, joined)


def predict(scores: np.ndarray) -> np.ndarray:
    """Algorithm 1, line 25: argmax over both heads' raw scores (N, K) -> (N,)."""
    return scores.argmax(1)


@torch.no_grad()
def negative_log_likelihood(network, tasks: dict, batches, class_weights: np.ndarray | None = None) -> float:
    """Mean over samples of minus the two tasks' log-likelihood, in nats; class_weights (K,) reweight the labels."""
    network.eval()
    total, mass = 0.0, 0.0
    for images, labels in batches:
        logits = network(images)
        losses = -sum(likelihood(logits[t], labels) for t, likelihood in tasks.items())
        weight = torch.ones_like(losses) if class_weights is None else torch.as_tensor(class_weights).to(losses)[labels]
        total += float((losses.double() * weight).sum())
        mass += float(weight.double().sum())
    return total / mass
