"""Logit adjustment after the training, argmax_k z_k - tau log pi_k of the cross-entropy network's logits."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config.schema import Section, Strength
from ._base import shares_left
from ._second_stage import AfterCE


def adjusted(scores: Tensor, priors, tau: float) -> Tensor:
    """scores (B, K), priors (K,) -> (B, K)."""
    return scores - tau * torch.as_tensor(priors).log().to(scores)


class PosthocLogitAdjustment(AfterCE):
    """Cross-entropy's own network, its scores divided by the priors; nothing is trained."""

    title = "post-hoc logit adjustment"
    source = "Menon et al. 2021, arXiv:2007.07314, Eq. 9"
    space = {"tau": (0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2.0)}

    class Parameters(Section):
        tau: Strength = 1.0

    @property
    def shares(self):
        return shares_left(self.problem.priors, self.parameters.tau)

    def phases(self):
        return []

    def scores(self, network, images):
        return adjusted(network(images).float(), self.problem.priors, self.parameters.tau)


METHOD = PosthocLogitAdjustment
