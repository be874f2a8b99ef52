"""LDAM with deferred weights, -log softmax(s (cos - m_y e_y))_y with m_k = m_max (n_min / n_k)^(1/4)."""

from __future__ import annotations

from functools import cached_property

from ..config.schema import Beta, Fraction, Rate, Section, Strength
from ._base import OneNetwork
from ._parts import effective_weights, is_late, ldam, margins, with_cosine_head


class LdamDrw(OneNetwork):
    """A margin that grows with rarity over a cosine head, and in the last epochs weights by the effective number of images:
    the authors' code, where the text has 1/n. The head scales the cosine once; the margin is scaled with it."""

    title = "LDAM-DRW"
    source = "Cao et al. 2019, arXiv:1906.07413, Eq. 13, Algorithm 1"
    space = {"margin": (0.2, 0.3, 0.8), "scale": (10.0, 20.0, 30.0)}

    class Parameters(Section):
        margin: Strength = 0.5  # of the rarest class
        scale: Rate = 30.0
        beta: Beta = 0.9999
        weights_from: Fraction = 0.8  # of the epochs

    def build(self):
        return with_cosine_head(super().build(), self.parameters.scale)

    @cached_property
    def weights(self):
        return self.problem.constant(effective_weights(self.problem.class_counts, self.parameters.beta))

    @cached_property
    def margins(self):
        return self.problem.constant(margins(self.problem.class_counts, self.parameters.margin))

    def class_weights(self, epoch):
        return self.weights if is_late(epoch, self.problem.length.epochs, self.parameters.weights_from) else None

    def loss(self, scores, labels):
        return ldam(scores, labels, self.margins, self.parameters.scale)


METHOD = LdamDrw
