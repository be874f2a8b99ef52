"""GPaCo: PaCo's loss without a moving average, -[(a_y - S) + alpha sum_P (q.k / T - S)] / (1 + alpha |P|), a = z + log pi."""

from __future__ import annotations

from typing import Literal

import torch

from ..config.schema import Batch, Rate, Section, Side, Strength
from ..data.augment import UNMIXED
from ..training.phase import Phase
from ._base import Method
from ._contrast import Contrasted, parametric_contrast


class GPaco(Method):
    """One network gives anchors and keys. Of one view each image is compared with the others of its part and the queue; of two
    it meets itself, augmented anew, at twice the cost. The authors' ViT code, for balanced data, leaves log pi out; here it
    stands. Images are not mixed."""

    title = "GPaCo"
    source = "Cui et al. 2023, arXiv:2209.12400"
    space = {"alpha": (0.01, 0.1, 0.2), "temperature": (0.05, 0.2)}

    class Parameters(Section):
        views: Literal[1, 2] = 1
        alpha: Strength = 0.05
        temperature: Rate = 0.2
        queue: Batch = 8192
        size: Side = 128  # of a projection

    def __init__(self, problem, parameters=None):
        super().__init__(problem, parameters)
        self.title += ", one view" if self.parameters.views == 1 else ""

    def build(self):
        return Contrasted(self.problem.vit(self.problem.n_classes), self.parameters.size, self.parameters.queue)

    def phases(self):
        own, prior = self.parameters, self.problem.constant(torch.as_tensor(self.problem.priors).log())

        def losses(network, part):
            n = len(part.labels)
            scores, anchors = network(torch.cat([part.images, *(other.images for other in part.more)]))
            labels = part.labels.repeat(own.views)
            queue = network.against(anchors[:0], labels[:0])
            each = parametric_contrast(scores + prior.to(scores), anchors, labels, *queue, own.alpha, own.temperature)
            network.remember(part, anchors[-n:])
            return {self.name: each.view(own.views, n).mean(0)}

        streams = ("again",) * (own.views - 1)
        step = Contrasted.after_step
        return [Phase(self.problem.length, losses, after_step=step, recipe=UNMIXED, streams=streams, coupled=True)]

    def scores(self, network, images):
        return network.vit(images).float()


METHOD = GPaco
