"""Logit-adjusted cross-entropy, -log softmax(z + tau log pi)_y; at tau = 1 it is the balanced softmax."""

from __future__ import annotations

import numpy as np

from ..models.likelihoods import categorical
from ._base import SingleNetwork


class LogitAdjusted(SingleNetwork):
    """The priors are added in training, so that the raw logits score as if classes were equally frequent."""

    title = "logit-adjusted cross-entropy"
    source = "Menon et al. 2021, arXiv:2007.07314"
    prior = "adjusted"

    def likelihood(self):
        return categorical(np.arange(self.problem.n_classes), self.problem.priors, self.problem.config.logit_adjustment)


METHOD = LogitAdjusted
