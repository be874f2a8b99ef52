"""LADE, -log softmax(z + log pi)_y - alpha sum_k pi_k (A_k - B_k - lambda B_k^2), A_k the mean of class k's own z_k and
B_k = log mean_i e^(z_ik) / (K pi_k) over all images."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from ..config.schema import Section, Strength
from ..data.augment import UNMIXED
from ..training.phase import Phase
from ._base import PlainNetwork


def disentangled(scores: Tensor, labels: Tensor, priors: Tensor, decay: float) -> Tensor:
    """What is added, of scores (B, K) and labels (B,): a number. A class that has no image here has an A of 0."""
    own = F.one_hot(labels, scores.shape[1]).to(scores)
    first = (own * scores).sum(0) / (own.sum(0) + 1e-8)
    second = (scores - (priors * len(priors)).log()).logsumexp(0) - math.log(len(labels))
    return -(priors * (first - second - decay * second.square())).sum()


class Lade(PlainNetwork):
    """The balanced softmax, and a bound that takes the training priors out of every score by itself. How well B is known
    depends on how many images it is taken over: on the part's size. Images are not mixed."""

    title = "LADE"
    source = "Hong et al. 2021, arXiv:2012.00321, Eq. 15, 16, 18 to 20"
    space = {"alpha": (0.01, 0.03, 0.3), "decay": (0.1, 0.5)}

    class Parameters(Section):
        alpha: Strength = 0.1
        decay: Strength = 0.1  # lambda

    def phases(self):
        priors, own = self.problem.constant(self.problem.priors), self.parameters

        def losses(network, part):
            scores = network(part.images).float()
            prior = priors.to(scores)
            balanced = F.cross_entropy(scores + prior.log(), part.labels)
            return {"balanced": balanced, "disentangled": own.alpha * disentangled(scores, part.labels, prior, own.decay)}

        return [Phase(self.problem.length, losses, recipe=UNMIXED, coupled=True)]


METHOD = Lade
