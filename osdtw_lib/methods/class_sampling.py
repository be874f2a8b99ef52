"""Cross-entropy, -log softmax(z)_y, over images drawn with every class as often: p_k = 1/K."""

from __future__ import annotations

from ._base import PlainCrossEntropy


class ClassSampling(PlainCrossEntropy):
    """Every class is drawn as often: the few images of a rare one come many times an epoch, augmented anew."""

    title = "cross-entropy, class-balanced sampling"
    source = "Kang et al. 2020, arXiv:1910.09217, Eq. 1"
    prior = "balanced"
    sampling = "classes"


METHOD = ClassSampling
