"""Cross-entropy, -log softmax(z)_y, over images drawn by the root of their class's count: p_k ~ n_k^(1/2)."""

from __future__ import annotations

import numpy as np

from ._base import PlainCrossEntropy


class RootSampling(PlainCrossEntropy):
    """Classes are drawn by the root of their counts: half way to class-balanced sampling, so that the softmax answers neither for
    equal priors nor for the training set's."""

    title = "cross-entropy, square-root sampling"
    source = "Kang et al. 2020, arXiv:1910.09217, Eq. 1"
    prior = "training"
    sampling = "root"

    @property
    def shares(self) -> np.ndarray:
        """Those with which the classes are drawn."""
        roots = np.sqrt(self.problem.class_counts)
        return roots / roots.sum()


METHOD = RootSampling
