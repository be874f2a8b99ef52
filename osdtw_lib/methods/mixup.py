"""Mixup, lam l(z, a) + (1 - lam) l(z, b) of lam x_a + (1 - lam) x_b, lam ~ Beta(alpha, alpha), l cross-entropy."""

from __future__ import annotations

import dataclasses

from ..config.schema import Section, Strength
from ._base import PlainCrossEntropy


class Mixup(PlainCrossEntropy):
    """Mixup as all the mixing there is: the recipe's cutmix is off and its mixup is this one. It asks for long trainings."""

    title = "mixup"
    source = "Zhang et al. 2018, arXiv:1710.09412"
    prior = "training"
    space = {"alpha": (0.1, 0.4, 0.8, 1.0, 2.0)}

    class Parameters(Section):
        alpha: Strength = 0.2  # 1.0 for CIFAR

    def phases(self):
        (phase,) = super().phases()
        return [dataclasses.replace(phase, recipe={"mixup": self.parameters.alpha, "cutmix": 0.0})]


METHOD = Mixup
