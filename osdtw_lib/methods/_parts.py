"""What several methods are made of: a cosine head, class weights, experts over one trunk, features for a second stage."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.two_branch import share_encoder
from ..models.vit import ViT, decode, encode


class CosineHead(nn.Module):
    """Features (B, D) -> scale times the cosine with each class's direction (B, K); no bias, no weight decay.

    Its length says nothing, so that decay would but raise the rate. The directions are those of the linear head it replaces.
    """

    def __init__(self, head: nn.Linear, scale: float):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(F.normalize(head.weight.detach(), dim=1).clone())
        self.weight.undecayed = True

    def forward(self, features: Tensor) -> Tensor:
        """float32 under bf16 too, whose steps, times the scale, would be as large as a margin."""
        with torch.autocast("cuda" if features.is_cuda else "cpu", enabled=False):
            return self.scale * F.linear(F.normalize(features.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))


def with_cosine_head(vit: ViT, scale: float) -> ViT:
    vit.head = CosineHead(vit.head, scale)
    return vit


def features(vit: ViT, images: Tensor) -> Tensor:
    """images -> what the head is given (B, D)."""
    return vit.forward_head(vit.forward_features(images), pre_logits=True)


def effective_weights(counts, beta: float = 0.9999) -> Tensor:
    """(1 - beta) / (1 - beta^n) a class (K,), of mean 1 over classes (Cui et al. 2019, Eq. 2)."""
    logarithm = math.log(beta) if beta else -math.inf
    weights = -1 / torch.expm1(torch.as_tensor(counts, dtype=torch.float64) * logarithm)
    return (weights / weights.mean()).float()


def is_late(epoch: int, epochs: int, share: float = 0.8) -> bool:
    """Whether the last part of a training has begun, from which on weights count (deferred re-weighting, Cao et al. 2019)."""
    return epoch >= math.ceil(share * epochs)


def margins(counts, largest: float) -> Tensor:
    """(K,) in float64, largest (n_min / n_k)^(1/4): the rarest class has the largest (Cao et al. 2019, Eq. 13)."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    return largest * (counts.min() / counts) ** 0.25


def ldam(scores: Tensor, labels: Tensor, margins: Tensor, scale: float) -> Tensor:
    """scores (B, K) are scale x cosine; the label's own is lowered by scale x its class's margin -> (B,)."""
    lowered = scores - scale * margins.to(scores) * F.one_hot(labels, scores.shape[1])
    return F.cross_entropy(lowered, labels, reduction="none")


class Experts(nn.Module):
    """Networks that are one up to `shared_depth`: images -> scores (B, M, K). The heads have their own random weights."""

    def __init__(self, networks: list[ViT], shared_depth: int):
        super().__init__()
        first, *others = networks
        for i, other in enumerate(others, start=1):
            share_encoder(first, other, shared_depth)
            redrawn(other.head, i)
        self.networks, self.shared_depth = nn.ModuleList(networks), shared_depth

    def forward(self, images: Tensor) -> Tensor:
        hidden = encode(self.networks[0], images, self.shared_depth)
        return torch.stack([decode(network, hidden, self.shared_depth) for network in self.networks], dim=1)


def redrawn(head: nn.Module, seed: int) -> None:
    """The head's weights drawn anew, as far apart as they were; it depends on the seed alone."""
    with torch.no_grad():
        drawn = torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(seed)).to(head.weight)
        if isinstance(head, CosineHead):
            head.weight.copy_(F.normalize(drawn, dim=1))
        elif head.weight.device.type != "meta":
            head.weight.copy_(drawn * head.weight.std())
