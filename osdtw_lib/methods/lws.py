"""Learnable weight scaling (LWS): scores f_k (w_k x + b_k), the scales f alone trained, every class drawn as often."""

from __future__ import annotations

from ..config.values import Epochs
from ._second_stage import AfterCE, ScaledHead, SecondStage, cross_entropy, second_stage


class Scaled(AfterCE):
    """Directions stay those that cross-entropy found; how long each class's weight is, is learnt anew."""

    title = "learnable weight scaling (LWS)"
    source = "Kang et al. 2020, arXiv:1910.09217, section 4"

    class Parameters(SecondStage):
        epochs: Epochs = 5

    head = staticmethod(ScaledHead)

    def phases(self):
        def only_the_scales(network):
            network.requires_grad_(False)
            network.head.scale.requires_grad_(True)

        return [second_stage(self.problem, self.parameters, cross_entropy, prepare=only_the_scales, sampling="classes")]


METHOD = Scaled
