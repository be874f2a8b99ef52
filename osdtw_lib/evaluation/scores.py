"""The scores of a network over a test set, in class order, and their likelihood."""

from __future__ import annotations

import numpy as np
import torch

from ..backend.precision import autocast


def scores_over(network, scores, batches, precision: str = "fp32") -> np.ndarray:
    """scores(network, images) (B, K) of every image (N, K), float32 or wider; precision: the recipe's, in which a GPU does it."""
    return torch.cat(scores_of_several([(network, scores)], batches, precision)[0]).numpy()


@torch.no_grad()
def scores_of_several(networks: list[tuple], batches, precision: str = "fp32") -> list[list[torch.Tensor]]:
    """The same of several (network, scores), batch by batch; each image is read once."""
    found: list[list[torch.Tensor]] = [[] for _ in networks]
    for network, _ in networks:
        network.eval()
    for images, _ in batches:
        for own, (network, scores) in zip(found, networks):
            with autocast(precision, images.device, evaluation=True):
                made = scores(network, images)
            own.append(made.to(torch.promote_types(made.dtype, torch.float32)).cpu())
    return found


def class_scores(network, tasks: dict, batches, precision: str = "fp32") -> np.ndarray:
    """Algorithm 1, lines 22 to 24: the logit vector s = [s^A; s^B] of every image, in class order (N, K).

    network: images -> {task: logits}; tasks: {task: likelihood}, whose `classes` say which column is whose.
    """
    return scores_over(network, lambda _, images: in_class_order(network(images), tasks), batches, precision)


def in_class_order(logits: dict[str, torch.Tensor], tasks: dict) -> torch.Tensor:
    """{task: logits} -> every class's raw score, in class order (B, K)."""
    wide = {t: own.to(torch.promote_types(own.dtype, torch.float32)) for t, own in logits.items()}
    joined = torch.cat([likelihood.log_odds(wide[t]) for t, likelihood in tasks.items()], dim=-1)
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
