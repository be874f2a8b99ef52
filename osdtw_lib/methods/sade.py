"""SADE, CE(z_1) + CE(z_2 + log pi) + CE(z_3 + log pi - tau log pi_reversed): an expert each for the classes as they are, for
balanced ones, and for reversed ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config.schema import Strength
from ..training.phase import Phase, hard
from ._experts import ExpertMethod


def reversed_priors(priors) -> Tensor:
    """(K,): the rarest class gets the largest prior, and so on by rank."""
    priors = torch.as_tensor(priors)
    ranked = priors.argsort(stable=True)
    return torch.empty_like(priors).scatter_(0, ranked, priors[ranked.flip(0)])


def adjustments(priors, tau: float) -> Tensor:
    """(3, K): what each expert's scores get in training."""
    priors = torch.as_tensor(priors)
    prior = priors.log()
    return torch.stack([torch.zeros_like(prior), prior, prior - tau * reversed_priors(priors).log()])


def of_each(scores: Tensor, labels: Tensor, adjustments: Tensor) -> Tensor:
    """scores (B, 3, K) -> (B, 3): each expert's cross-entropy."""
    adjusted = (scores + adjustments.to(scores)).transpose(1, 2)
    return F.cross_entropy(adjusted, labels[:, None].expand(-1, 3), reduction="none")


class Sade(ExpertMethod):
    """Three experts of different skills, scored by their plain mean: the paper's aggregation learns from the test images, which
    no other method here sees. Its second expert alone is logit-adjusted cross-entropy over cosines."""

    title = "SADE (first called TADE) without test-time aggregation"
    source = "Zhang et al. 2022, arXiv:2107.09249, Eq. 3 its second expert"

    class Parameters(ExpertMethod.Parameters):
        tau: Strength = 2.0  # of the third expert: 1 for Places-LT

    @property
    def shares(self):
        """The mean of the experts' log-shares: the training set's, equal ones, and the reversed ones tau times."""
        mean = (torch.as_tensor(self.problem.priors).log() + self.parameters.tau * reversed_priors(self.problem.priors).log()) / 3
        return mean.softmax(0).numpy()

    def phases(self):
        added = self.problem.constant(adjustments(self.problem.priors, self.parameters.tau))

        def losses(network, part):
            scores = network(part.images).float()
            return {self.name: hard(part, lambda labels: of_each(scores, labels, added).sum(1))}

        return [Phase(self.problem.length, losses)]


METHOD = Sade
