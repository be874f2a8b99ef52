"""Focal loss, -(1 - p_y)^gamma log p_y with p = softmax(z): an image that is right already counts less."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.schema import Section, Strength
from ._base import OneNetwork


def focal(scores: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """scores (B, K), labels (B,) -> (B,); log(1 - p_y) is the others' mass, so that nothing is lost where p_y is 1."""
    others = scores.masked_fill(F.one_hot(labels, scores.shape[1]).bool(), -torch.inf)
    wrong = others.logsumexp(1) - scores.logsumexp(1)
    return (gamma * wrong).exp() * F.cross_entropy(scores, labels, reduction="none")


class Focal(OneNetwork):
    """Nothing is detached. The loss is not proper: its softmax is less sure of itself than it is right."""

    title = "focal loss"
    source = "Lin et al. 2017, arXiv:1708.02002, Eq. 4"
    prior = "training"

    class Parameters(Section):
        gamma: Strength = 2.0

    def loss(self, scores, labels):
        return focal(scores, labels, self.parameters.gamma)


METHOD = Focal
