"""RIDE, the sum over experts of LDAM with deferred weights - f mean(T)^2 KL(softmax(mean z / T) || softmax(z_m / T))."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.schema import Beta, Fraction, Layers, Strength
from ..training.phase import Phase, hard
from ._experts import ExpertMethod
from ._parts import effective_weights, is_late, ldam, margins


def temperatures(counts, strength: float) -> Tensor:
    """(K,) in float64: 1 for the most frequent class, lower for the others; all 1 at strength 0."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    unscaled = len(counts) * counts / counts.sum() * strength + 1 - strength
    return unscaled / unscaled.max()


def distances(scores: Tensor, temperature: Tensor) -> Tensor:
    """scores (B, M, K) -> (B, M): KL of each expert from the mean of all, through which no gradient flows."""
    scaled = scores / temperature.to(scores)
    mean = F.log_softmax(scores.detach().mean(1, keepdim=True) / temperature.to(scores), dim=-1)
    return (mean.exp() * (mean - F.log_softmax(scaled, dim=-1))).sum(-1)


class Ride(ExpertMethod):
    """Experts that are paid for differing from their mean; after the weights have set in, more so where classes are rare. The
    weights do not count in that term. No routing: every image is scored by all experts. The values are those for ImageNet-LT.
    The experts' own blocks are whole ones here, where the paper's are narrowed; their heads alone begin apart."""

    title = "RIDE without routing"
    source = "Wang et al. 2021, arXiv:2010.01809"
    space = {"diversity": (0.1, 0.3, 0.45), "margin": (0.3, 0.5, 0.8)}

    class Parameters(ExpertMethod.Parameters):
        experts: Layers = 3
        diversity: Strength = 0.2  # f, which the loss falls with: 0.45 for CIFAR-100-LT
        temperature: Fraction = 0.02  # how far counts enter it: 0.05 for CIFAR-100-LT
        margin: Strength = 0.5  # of the rarest class
        beta: Beta = 0.9999
        weights_from: Fraction = 0.8  # of the epochs

    @property
    def experts(self):
        return self.parameters.experts

    def late(self, epoch: int) -> bool:
        return is_late(epoch, self.problem.length.epochs, self.parameters.weights_from)

    @cached_property
    def weights(self) -> Tensor:
        return self.problem.constant(effective_weights(self.problem.class_counts, self.parameters.beta))

    def class_weights(self, epoch: int) -> Tensor | None:
        return self.weights if self.late(epoch) else None

    def phases(self):
        own, counts = self.parameters, self.problem.class_counts
        lowered, rare = map(self.problem.constant, (margins(counts, own.margin), temperatures(counts, own.temperature)))

        def losses(network, part):
            scores = network(part.images).float()
            temperature = rare if self.late(part.epoch) else torch.ones_like(rare)

            def of_all(labels):
                return sum(ldam(one, labels, lowered, own.scale) for one in scores.unbind(1))

            far = distances(scores, temperature).sum(1).mean()
            return {
                "experts": hard(part, of_all, self.class_weights(part.epoch)),
                "diversity": -own.diversity * temperature.mean().to(far) ** 2 * far,
            }

        return [Phase(self.problem.length, losses, class_weights=self.class_weights)]


METHOD = Ride
