"""MiSLAS: mixup, then head and scales f_k (w_k x + b_k) by (1 - e_y) ell_y + e_y mean_k ell_k, e_k larger where n_k is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config.values import Batch, Fraction, Rate, Strength
from ..models.vit import ViT
from ..training.phase import Phase, hard
from ._base import PlainNetwork
from ._second_stage import ScaledHead, SecondStage, cross_entropy, only_the_head, second_stage


def smoothing(counts, head: float, tail: float) -> Tensor:
    """e (K,): `tail` for the rarest class, `head` for the most frequent, along a quarter of a sine of the count between."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    spread = counts.max() - counts.min()
    share = (counts - counts.min()) / spread if spread else torch.ones_like(counts)
    return tail + (head - tail) * torch.sin(math.pi / 2 * share)


def label_aware(scores: Tensor, labels: Tensor, smooth: Tensor) -> Tensor:
    """scores (B, K), labels (B,), smooth (K,) -> (B,)."""
    each, smooth = -scores.log_softmax(1), smooth.to(scores)[labels]
    return (1 - smooth) * each.gather(1, labels[:, None])[:, 0] + smooth * each.mean(1)


class MiSLAS(PlainNetwork):
    """Frequent classes, of which a network is surest, are smoothed most. As its code has it, the label keeps its share of what
    is spread over all classes, where the paper spreads over the others; a ViT has no batch statistics to shift. Few epochs
    are said to cost it what mixup gains."""

    title = "MiSLAS"
    source = "Zhong et al. 2021, arXiv:2104.00466"
    space = {"mixup": (0.2, 0.5, 1.0), "smooth_head": (0.2, 0.4)}

    class Parameters(SecondStage):
        mixup: Strength = 0.2  # of the first stage; CIFAR: 1
        smooth_head: Fraction = 0.3
        smooth_tail: Fraction = 0.0
        learning_rate: Rate = 0.1
        batch_size: Batch = 256
        head_rate: Rate = 0.05  # of the linear head, where the scales have 1

    def build(self) -> ViT:
        network = super().build()
        network.head = ScaledHead(network.head)
        return network

    def phases(self):
        own = self.parameters
        smooth = self.problem.constant(smoothing(self.problem.class_counts, own.smooth_head, own.smooth_tail))

        def mixed(network, part):
            scores = network(part.images).float()
            return {"first_stage": hard(part, lambda labels: cross_entropy(scores, labels))}

        def without_scales(network):
            network.head.scale.requires_grad_(False)

        def head_and_scales(network):
            only_the_head(network)
            network.head.weight.rate = network.head.bias.rate = own.head_rate

        recipe = {"mixup": own.mixup, "cutmix": 0.0}
        second = {"prepare": head_and_scales, "sampling": "classes"}
        return [
            Phase(self.problem.length, mixed, name="first_stage", prepare=without_scales, recipe=recipe),
            second_stage(self.problem, own, lambda scores, labels: label_aware(scores, labels, smooth), **second),
        ]


METHOD = MiSLAS
