"""BBN, l CE(z, y_i) + (1 - l) CE(z, y_j) with z = 2 l W_1 f_1(x_i) + 2 (1 - l) W_2 f_2(x_j) + b and l = 1 - (e / E)^2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.vit import ViT, decode, encode, n_depths
from ..data.augment import UNMIXED
from ..training.phase import Phase
from ._base import Method
from ._parts import Experts


def share_of(epoch: int, epochs: int) -> float:
    """l: what the images as they are count, from 1 down; the rest is the reversed ones'."""
    return 1 - (epoch / epochs) ** 2


def bilateral(scores: Tensor, labels: Tensor, reversed_labels: Tensor, share: float) -> Tensor:
    """scores (B, K), both labels (B,) -> (B,)."""
    first, second = (F.cross_entropy(scores, y, reduction="none") for y in (labels, reversed_labels))
    return share * first + (1 - share) * second


class Bilateral(Experts):
    """Two branches that part at the last depth; the images of each, in pairs -> scores (B, K). Without others: one image in
    both branches, each for a half."""

    def __init__(self, networks: list[ViT]):
        super().__init__(networks, n_depths(networks[0]) - 1)
        self.bias = nn.Parameter(self.networks[0].head.bias.detach().clone())
        for network in self.networks:
            network.head.bias = None

    def forward(self, images: Tensor, others: Tensor | None = None, share: float = 0.5) -> Tensor:
        hidden = encode(self.networks[0], images if others is None else torch.cat([images, others]), self.shared_depth)
        seen = (hidden, hidden) if others is None else hidden.chunk(2)
        first, second = (decode(network, h, self.shared_depth).float() for network, h in zip(self.networks, seen))
        return 2 * share * first + 2 * (1 - share) * second + self.bias


class BBN(Method):
    """Each image as it is drawn is paired with one drawn by one over its class's count; the network attends to the first, then
    more and more to the second. It mixes features, so that images are not mixed on top; an epoch passes 2 N images."""

    title = "BBN"
    source = "Zhou et al. 2020, arXiv:1912.02413"

    def build(self):
        return Bilateral([self.problem.vit(self.problem.n_classes) for _ in range(2)])

    def phases(self):
        def losses(network, part):
            share, (other,) = share_of(part.epoch, self.problem.length.epochs), part.more
            return {"bbn": bilateral(network(part.images, other.images, share), part.labels, other.labels, share)}

        return [Phase(self.problem.length, losses, recipe=UNMIXED, streams=("reversed",))]

    def scores(self, network, images):
        return network(images).float()


METHOD = BBN
