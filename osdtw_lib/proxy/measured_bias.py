"""The encoder bias measured instead of expanded: forward passes of Stage 1's networks, no training.

What the bias stands for is how much task t loses when its first C depths are replaced by the weighted optimum

    phi_w = (w_A (a + lam)^p phi_A + w_B (b + lam)^p phi_B) / (w_A (a + lam)^p + w_B (b + lam)^p),

a and b being the two diagonal Fishers, lam = `direct.damping` and p = `direct.power`. The theorem's own is p = 1; p = 2,
which leaves a parameter more nearly to the task that needs it, ranked measured grids better (notebook 08), for which we
know no derivation. That can be run:

    direct bias(C, w_A) = sum over t of [ L_t(phi_w up to C, psi_t) - L_t(phi_t, psi_t) ]

with L_t the mean negative log-likelihood of task t over the training set, under its own prior ("training") or with every
class counting alike ("balanced"). A third loss, "prediction", is that of what is predicted: argmax over both heads' raw
scores, so the cross-entropy of a softmax over them, every class counting alike. For one weight the merged prefix is run
once, and both decoders branch off it at every depth.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from ..backend import distributed
from ..backend.progress import Progress
from ..evaluation.scores import in_class_order
from ..models.vit import ViT, decode, depth_of, embed, n_depths, through
from .grid import DEFAULT_WEIGHTS

LOSSES = ("training", "balanced", "prediction")


def stratified_sample(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Indices of `size` images, or of one a class where that is more, as evenly over the classes as their counts allow,
    in ascending order; of all images where there are no more."""
    rng = np.random.default_rng(seed)
    members = sorted((rng.permutation(np.flatnonzero(labels == k)) for k in np.unique(labels)), key=len)
    chosen, left = [], size
    for position, own in enumerate(members):  # the smallest classes first: what they cannot fill goes to the others
        share = max(1, left // (len(members) - position))
        chosen.append(own[:share])
        left -= len(chosen[-1])
    return np.sort(np.concatenate(chosen))


def direct_bias(
    networks: dict[str, ViT],
    fishers: dict[str, dict[str, Tensor]],
    likelihoods: dict,
    batches,
    class_counts,
    damping: float,
    power: float = 1.0,
    head_weights: Sequence[float] = DEFAULT_WEIGHTS,
    checkpoint=None,
) -> pd.DataFrame:
    """A row a cell: shared_depth (0..L), head_weight, and for each of LOSSES bias_LOSS and standard_error_LOSS.

    networks, fishers, likelihoods: {"head": ..., "tail": ...} of Stage 1. batches: (images, labels) of a sample
    stratified by class, the same each time. class_counts (K,): of the whole training set, for the training prior.
    Values are nats a sample. Several processes share the head weights; a killed run goes on from `checkpoint`.
    """
    last = n_depths(networks["head"])
    own = torch.cat([losses_at(networks, likelihoods, images, labels, 0) for images, labels in batches])
    labels = torch.cat([labels for _, labels in batches]).cpu().numpy()
    sums = torch.zeros(len(head_weights), last + 1, 2 * len(LOSSES), dtype=torch.float64)
    done = 0
    saved = checkpoint.load() if checkpoint is not None else None
    if saved:
        sums, done = saved[0]["sums"], saved[1]["weights"]
        print(f"direct bias: resumes after weight {done}", flush=True)
    progress = Progress("direct bias", len(head_weights), len(labels), done=done)
    for i, weight in enumerate(head_weights):
        if i < done or i % distributed.world_size() != distributed.rank():
            continue
        merged = merged_encoder(networks, fishers, weight, damping, power)
        for depth, losses in enumerate(losses_under(merged, networks, likelihoods, _counted(batches, progress)), start=1):
            sums[i, depth] = torch.as_tensor(estimates(losses - own, labels, class_counts))
        progress.epoch({})
        if checkpoint is not None:
            checkpoint.save({"sums": sums}, {"weights": i + 1})
    distributed.sum_over_processes([sums], 0)
    columns = [f"{what}_{loss}" for loss in LOSSES for what in ("bias", "standard_error")]
    rows = [
        {"shared_depth": depth, "head_weight": float(weight), **dict(zip(columns, sums[i, depth].tolist()))}
        for depth in range(last + 1)
        for i, weight in enumerate(head_weights)
    ]
    return pd.DataFrame(rows)


@torch.no_grad()
def merged_encoder(networks: dict, fishers: dict, weight: float, damping: float, power: float) -> ViT:
    """The head's network with phi_w for its encoder, tasks weighted w_A (`weight`) and 1 - w_A times their damped Fishers to the
    power; where neither task has information, the plain weighted mean."""
    merged = copy.deepcopy(networks["head"]).eval()
    head, tail = (dict(networks[task].named_parameters()) for task in ("head", "tail"))
    depths = depth_of(merged)
    for name, parameter in merged.named_parameters():
        if depths[name] <= n_depths(merged):
            a, b = (fishers[task][name].to(parameter) + damping for task in ("head", "tail"))
            largest = torch.maximum(a, b)  # the powers of small numbers would vanish
            pull_head, pull_tail = weight * (a / largest) ** power, (1 - weight) * (b / largest) ** power
            total = pull_head + pull_tail  # NaN where neither has information
            share = torch.where(total > 0, pull_head / total, weight)
            parameter.copy_(share * head[name] + (1 - share) * tail[name])
    return merged


def losses_under(merged: ViT, networks: dict, likelihoods: dict, batches) -> list[Tensor]:
    """`losses_at` of every image (N, 2) with the first 1, 2 .. L depths of all networks those of `merged`, which is run once."""
    depths = [[] for _ in range(n_depths(merged))]
    for images, target in batches:
        hidden = images
        for depth, found in enumerate(depths, start=1):
            hidden = _one_depth(merged, hidden, depth)
            found.append(losses_at(networks, likelihoods, hidden, target, depth))
    return [torch.cat(found) for found in depths]


def _counted(batches, progress: Progress):
    for images, target in batches:
        yield images, target
        progress.step(len(target))


@torch.no_grad()
def _one_depth(network: ViT, hidden: Tensor, depth: int) -> Tensor:
    """From depth - 1 to depth; images go in at depth 1."""
    tokens = embed(network, hidden) if depth == 1 else hidden
    return through(network, tokens, depth - 1, depth)


@torch.no_grad()
def losses_at(networks: dict, likelihoods: dict, hidden: Tensor, labels: Tensor, depth: int) -> Tensor:
    """When the decoders take over at `depth`: all tasks' negative log-likelihood, summed, and the cross-entropy of the
    prediction (B, 2), float64."""
    logits = {t: decode(networks[t], hidden, depth) for t in networks}
    tasks = -sum(likelihoods[t](logits[t], labels).double() for t in networks)
    prediction = F.cross_entropy(in_class_order(logits, likelihoods).double(), labels, reduction="none")
    return torch.stack([tasks, prediction], dim=1).cpu()


def estimates(excess: Tensor, labels: np.ndarray, class_counts) -> np.ndarray:
    """(mean, standard error) of each of LOSSES, float64 (6,), of a sample stratified by class (n, 2) as `losses_at` has it."""
    excess, counts = excess.numpy(), np.asarray(class_counts, dtype=float)
    present = np.unique(labels)
    means = np.array([excess[labels == k].mean(0) for k in present])  # (classes, 2)
    sizes = np.array([(labels == k).sum() for k in present])
    squares = np.array([((excess[labels == k] - mean) ** 2).sum(0) for k, mean in zip(present, means)])
    free = (sizes - 1)[:, None]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: unknown
        own, pooled = squares / free, squares.sum(0) / free.sum()
    spread = np.where(free > 0, own, pooled)  # one image says nothing of its class's spread: the other classes' then
    rest = 1 - sizes / counts[present]
    spread[rest == 0] = 0.0  # a class taken whole has no sampling error
    frequency, alike = counts[present] / counts[present].sum(), np.full(len(present), 1 / len(present))
    values = []
    for share, column in ((frequency, 0), (alike, 0), (alike, 1)):
        values += [share @ means[:, column], math.sqrt((share**2 * spread[:, column] / sizes * rest).sum())]
    return np.array(values)
