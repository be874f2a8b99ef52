"""Cross-entropy, -log softmax(z)_y: what every other method is read against."""

from __future__ import annotations

import numpy as np

from ..models.likelihoods import categorical
from ._base import SingleNetwork


class CrossEntropy(SingleNetwork):
    """A softmax over all classes, nothing corrected."""

    title = "cross-entropy"
    source = "the reference"
    prior = "training"

    def likelihood(self):
        return categorical(np.arange(self.problem.n_classes), np.ones(self.problem.n_classes))


METHOD = CrossEntropy
