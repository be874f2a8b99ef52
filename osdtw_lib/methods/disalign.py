"""DisAlign: scores g (alpha_k z_k + beta_k) + (1 - g) z_k with a gate g = sigmoid(v x + c), weights pi_k^-rho."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.values import Batch, Rate, Strength
from ._base import shares_of_weighted
from ._second_stage import AfterCE, OverLinear, SecondStage, cross_entropy, second_stage


def aligned(z: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> Tensor:
    """z (B, K), scale and shift (K,), gate (B, 1) -> (B, K)."""
    return gate * (scale * z + shift) + (1 - gate) * z


def rarity_weights(priors, power: float) -> Tensor:
    """pi_k^-power (K,), of mean 1 over classes."""
    weights = torch.as_tensor(priors, dtype=torch.float64) ** -power
    return weights / weights.mean()


class AlignedHead(OverLinear):
    """features (B, D) -> (B, K); at first the linear head's own scores, the gate half open."""

    def __init__(self, head: nn.Linear):
        super().__init__(head)
        zeros = head.bias.detach().new_zeros
        self.scale, self.shift = nn.Parameter(zeros(len(head.bias)) + 1), nn.Parameter(zeros(len(head.bias)))
        self.gate, self.gate_bias = nn.Parameter(zeros(1, head.weight.shape[1])), nn.Parameter(zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(F.linear(x, self.gate, self.gate_bias).float())
        return aligned(self.linear(x).float(), self.scale, self.shift, gate)


class DisAlign(AfterCE):
    """The scores are trained to be those of balanced classes, more where the gate, an image's own, says so; head and features
    stay. rho depends on the data set: 1.2 is ImageNet-LT's. A batch's mean is by its own sum of weights."""

    title = "DisAlign"
    source = "Zhang et al. 2021, arXiv:2103.16370, section 3"
    space = {"rho": (0.8, 1.0, 1.5), "learning_rate": (0.1, 1.0)}

    class Parameters(SecondStage):
        rho: Strength = 1.2
        learning_rate: Rate = 0.1
        batch_size: Batch = 256

    head = staticmethod(AlignedHead)

    @property
    def shares(self):
        """Those that the weights leave."""
        weights = rarity_weights(self.problem.priors, self.parameters.rho)
        return shares_of_weighted(self.problem.class_counts, weights.numpy(), self.phases()[0].recipe["batch_size"])

    def phases(self):
        weights = self.problem.constant(rarity_weights(self.problem.priors, self.parameters.rho))

        def all_but_the_linear(network):
            network.requires_grad_(False)
            for name in ("scale", "shift", "gate", "gate_bias"):
                getattr(network.head, name).requires_grad_(True)

        options = {"prepare": all_but_the_linear, "class_weights": lambda epoch: weights}
        return [second_stage(self.problem, self.parameters, cross_entropy, **options)]


METHOD = DisAlign
