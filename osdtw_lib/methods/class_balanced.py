"""Class-balanced loss, w_y l(z, y) with w_k = (1 - beta) / (1 - beta^n_k); l is cross-entropy or the sigmoid focal loss."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.schema import Beta, Section, Strength
from ._base import OneNetwork, shares_of_weighted
from ._parts import effective_weights


def sigmoid_focal(scores: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """sum_k (1 - p_k)^gamma softplus(-s_k), s the score of the own class and minus that of the others: (B, K) -> (B,)."""
    s = torch.where(F.one_hot(labels, scores.shape[1]).bool(), scores, -scores)
    return ((-gamma * F.softplus(s)).exp() * F.softplus(-s)).sum(1)


class ClassBalanced(OneNetwork):
    """Weights by the effective number of images, from the first epoch on. A batch's mean is by its own sum of weights, where the
    paper divides by the number of images: a rare class so counts less than its weight says, in small batches most. With base
    "focal" every class is a question of its own, and the head begins at answers of 1/K."""

    title = "class-balanced loss"
    source = "Cui et al. 2019, arXiv:1901.05555, section 4"
    space = {"base": ("cross_entropy", "focal"), "beta": (0.9, 0.99, 0.999)}

    class Parameters(Section):
        base: Literal["cross_entropy", "focal"] = "cross_entropy"
        beta: Beta = 0.9999
        gamma: Strength = 1.0  # of the focal loss

    def build(self):
        vit = super().build()
        if self.parameters.base == "focal":
            with torch.no_grad():
                vit.head.bias.fill_(-math.log(self.problem.n_classes - 1))
        return vit

    @property
    def shares(self):
        """Those that the weights leave; for base "focal", of which that is not derived, the same are taken."""
        weights = self.weights.double().cpu().numpy()
        return shares_of_weighted(self.problem.class_counts, weights, self.problem.config.recipe.batch_size)

    @cached_property
    def weights(self):
        return self.problem.constant(effective_weights(self.problem.class_counts, self.parameters.beta))

    def class_weights(self, epoch):
        return self.weights

    def loss(self, scores, labels):
        if self.parameters.base == "focal":
            return sigmoid_focal(scores, labels, self.parameters.gamma)
        return F.cross_entropy(scores, labels, reduction="none")


METHOD = ClassBalanced
