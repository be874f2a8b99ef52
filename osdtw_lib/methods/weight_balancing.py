"""Weight balancing: the head trained on with strong decay and w_k <- w_k min(1, delta / ||w_k||) after every step (MaxNorm)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config.values import Batch, Fraction, Rate, Strength
from ._base import shares_of_weighted
from ._parts import effective_weights
from ._second_stage import AfterCE, OverLinear, SecondStage, cross_entropy, second_stage


def longest_allowed(weight: Tensor, share: float) -> Tensor:
    """A length so far between those of the shortest row and the longest, a number."""
    lengths = weight.norm(dim=1)
    return lengths.min() + share * (lengths.max() - lengths.min())


def shortened(weight: Tensor, longest: Tensor) -> Tensor:
    """Rows (K, D), those that are longer cut to it."""
    return weight * (longest / weight.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)


class MaxNormHead(OverLinear):
    """A linear head that knows how long its rows may be."""

    def __init__(self, head: nn.Linear):
        super().__init__(head)
        self.register_buffer("longest", head.bias.detach().new_zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class WeightBalanced(AfterCE):
    """Features are cross-entropy's, with the run's decay, which is to be tuned; the class-balanced loss is cross-entropy with
    weights (1 - beta) / (1 - beta^n), a batch's mean by its own sum of weights. The published code projects once an epoch, where
    its authors mean every step, and its loss is a binary one of softmax probabilities."""

    title = "weight balancing (decay and MaxNorm)"
    source = "Alshammari et al. 2022, arXiv:2203.14197"
    space = {"threshold": (0.05, 0.2, 0.3), "learning_rate": (0.01, 0.1)}

    class Parameters(SecondStage):
        learning_rate: Rate = 0.01
        batch_size: Batch = 64
        weight_decay: Strength = 0.1
        threshold: Fraction = 0.1  # where between the shortest row and the longest

    head = staticmethod(MaxNormHead)

    @property
    def shares(self):
        """Those that the weights leave; what the decay and the shortened rows do to them is not known."""
        weights = effective_weights(self.problem.class_counts).double().cpu().numpy()
        return shares_of_weighted(self.problem.class_counts, weights, self.phases()[0].recipe["batch_size"])

    def begin(self, network: nn.Module, trained: dict[str, Tensor]) -> None:
        super().begin(network, trained)
        network.head.longest.copy_(longest_allowed(network.head.weight.detach(), self.parameters.threshold))

    def phases(self):
        weights = self.problem.constant(effective_weights(self.problem.class_counts))

        @torch.no_grad()
        def project(network):
            network.head.weight.copy_(shortened(network.head.weight, network.head.longest))

        options = {"decay": self.parameters.weight_decay, "class_weights": lambda epoch: weights, "after_step": project}
        return [second_stage(self.problem, self.parameters, cross_entropy, **options)]


METHOD = WeightBalanced
