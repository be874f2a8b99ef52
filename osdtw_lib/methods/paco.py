"""PaCo, -[(a_y - S) + alpha sum_P (q.k / T - S)] / (1 + alpha |P|), a = z + log pi, S the logsumexp of all a and q.k / T."""

from __future__ import annotations

import torch

from ..config.schema import Batch, Beta, Rate, Section, Side, Strength
from ..data.augment import UNMIXED
from ..training.phase import Phase
from ._base import Method
from ._contrast import Contrasted, parametric_contrast


class Paco(Method):
    """Classes and images of the same class side by side in one softmax: the other images of the part, each image augmented
    anew as a moving average of the network sees it, and a queue of those, which begins empty and not at random. In a training
    of few steps the average hardly leaves the start. Images are not mixed."""

    title = "PaCo"
    source = "Cui et al. 2021, arXiv:2107.12028, section 3.5"
    space = {"alpha": (0.01, 0.1, 0.2), "temperature": (0.05, 0.2)}

    class Parameters(Section):
        alpha: Strength = 0.05
        temperature: Rate = 0.2
        queue: Batch = 8192
        size: Side = 128  # of a projection
        average: Beta = 0.999

    def build(self):
        own = self.parameters
        return Contrasted(self.problem.vit(self.problem.n_classes), own.size, own.queue, own.average)

    def phases(self):
        own, prior = self.parameters, self.problem.constant(torch.as_tensor(self.problem.priors).log())

        def losses(network, part):
            scores, anchors = network(part.images)
            keys = network.keys(part.more[0].images)
            others = network.against(keys, part.labels)
            each = parametric_contrast(scores + prior.to(scores), anchors, part.labels, *others, own.alpha, own.temperature)
            network.remember(part, keys)
            return {self.name: each}

        step = Contrasted.after_step
        return [Phase(self.problem.length, losses, after_step=step, recipe=UNMIXED, streams=("again",), coupled=True)]

    def scores(self, network, images):
        return network.vit(images).float()


METHOD = Paco
