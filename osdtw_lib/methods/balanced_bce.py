"""Balanced binary cross-entropy, sum_k softplus(a_k) - t_k a_k with a = z + tau (log pi - log(1 - pi))."""

from __future__ import annotations

import numpy as np

from ..models.likelihoods import bernoulli
from ._base import SingleNetwork


class BalancedBCE(SingleNetwork):
    """A Bernoulli label a class, adjusted by its prior's log-odds: both tasks' likelihood, over one group of all classes."""

    title = "balanced BCE (LiVT's loss)"
    source = "Xu et al. 2023, arXiv:2212.02015"
    prior = "adjusted"

    def likelihood(self):
        return bernoulli(np.arange(self.problem.n_classes), self.problem.priors, self.problem.config.logit_adjustment)


METHOD = BalancedBCE
