"""The products of both tasks' scores that the theorem's block model leaves out: E[s_A s_B'], its diagonal.

Two networks of one architecture, two likelihoods, the same images. Every sample's gradients are formed (vmap), a few
samples at a time, and only three sums an encoder parameter are kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

BYTES = 1 << 28  # gradients held at once


def cross_fisher(
    networks: dict[str, nn.Module],
    likelihoods: dict[str, Callable[[Tensor, Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    names: Iterable[str],
) -> dict[str, dict[str, Tensor]]:
    """{"head", "tail", "cross"} of {parameter name: tensor}: means over samples of s_A^2, s_B^2 and s_A s_B, in evaluation mode.

    networks, likelihoods: {"head": ..., "tail": ...}; names: the parameters to look at, those both networks share.
    """
    names = list(names)
    scores = {task: _per_sample(network, likelihoods[task], names) for task, network in networks.items()}
    own = dict(networks["head"].named_parameters())
    chunk = max(1, BYTES // (8 * sum(own[name].numel() for name in names)))
    sums = {which: {name: torch.zeros_like(own[name]) for name in names} for which in ("head", "tail", "cross")}
    samples = 0
    for images, labels in batches:
        for part, target in zip(images.split(chunk), labels.split(chunk)):
            head, tail = (scores[task](part, target) for task in ("head", "tail"))
            for name in names:
                sums["head"][name] += head[name].square().sum(0)
                sums["tail"][name] += tail[name].square().sum(0)
                sums["cross"][name] += (head[name] * tail[name]).sum(0)
            samples += len(target)
    if samples == 0:
        raise ValueError("the scores need at least one sample")
    return {which: {name: total / samples for name, total in named.items()} for which, named in sums.items()}


def _per_sample(network: nn.Module, likelihood, names: list[str]):
    """(images (B, ...), labels (B,)) -> {name: (B, *shape)}."""
    network = copy.deepcopy(network).eval()
    values = {name: p.detach() for name, p in network.named_parameters()}
    chosen = {name: values.pop(name) for name in names}

    def score(parameters, image, label):
        logits = functional_call(network, values | parameters, (image[None],))
        return likelihood(logits, label[None])[0]

    many = vmap(grad(score), in_dims=(None, 0, 0))

    def scores(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels know no vmap
            return many(chosen, images, labels)

    return scores
