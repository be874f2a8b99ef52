"""The products of both tasks' scores that the theorem's block model leaves out: E[s_A s_B'], its diagonal.

Two networks of one architecture, two likelihoods, the same images. Every sample's gradients are formed (vmap), a few
samples at a time, and one sum an encoder parameter is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

BYTES = 1 << 28  # gradients held at once


def cross_fisher(
    networks: dict[str, nn.Module],
    likelihoods: dict[str, Callable[[Tensor, Tensor], Tensor]],
    batches: Iterable[tuple[Tensor, Tensor]],
    sums: dict[Hashable, dict[str, Tensor]],
) -> tuple[dict[str, Tensor], dict[Hashable, Tensor]]:
    """({parameter name: mean over samples of s_A s_B}, {key: (n,)}), in evaluation mode.

    networks, likelihoods: {"head": ..., "tail": ...}. sums: {key: {parameter name: weights of its shape}}; the second
    result is each sample's weighted sum of s_A s_B, whose mean is that of the first and whose spread is its noise.
    """
    names = list(dict.fromkeys(name for weights in sums.values() for name in weights))
    scores = {task: _per_sample(network, likelihoods[task], names) for task, network in networks.items()}
    own = dict(networks["head"].named_parameters())
    chunk = max(1, BYTES // (8 * sum(own[name].numel() for name in names)))
    cross = {name: torch.zeros_like(own[name], requires_grad=False) for name in names}
    found, samples = {key: [] for key in sums}, 0
    for images, labels in batches:
        for part, target in zip(images.split(chunk), labels.split(chunk)):
            head, tail = (scores[task](part, target) for task in ("head", "tail"))
            products = {name: head[name] * tail[name] for name in names}
            for name, product in products.items():
                cross[name] += product.sum(0)
            for key, weights in sums.items():
                found[key].append(sum(products[name].flatten(1) @ weight.flatten() for name, weight in weights.items()).cpu())
            samples += len(target)
    if samples == 0:
        raise ValueError("the scores need at least one sample")
    return {name: total / samples for name, total in cross.items()}, {key: torch.cat(parts) for key, parts in found.items()}


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
