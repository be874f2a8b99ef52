"""What second stages share: the features are fixed, and a head is trained on them by momentum SGD."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import Section, Training
from ..config.values import Batch, Count, Epochs, Rate
from ..models.vit import ViT
from ..models.weights import load_weights, weights
from ..data.augment import UNMIXED
from ..training.phase import Phase
from ._base import PlainNetwork, Problem
from ._parts import features


class SecondStage(Section):
    """Of the second stage. learning_rate is that of batches of batch_size; where a run's own are smaller, it takes those, and
    the rate is less by as much."""

    epochs: Epochs = 10
    learning_rate: Rate = 0.2
    batch_size: Batch = 512
    views: Count = 4  # augmentations of every image that features are kept of


def second_stage(problem: Problem, of: SecondStage, loss: Callable[[Tensor, Tensor], Tensor], decay=5e-4, **further) -> Phase:
    """loss(what the head makes of the features, float32 (B, K), labels (B,)) -> (B,). further: of the Phase.

    The rate falls to 0 along a cosine; weight decay is on matrices alone, as in the first stage.
    """
    batch = min(of.batch_size, problem.config.recipe.batch_size)
    length = Training(epochs=of.epochs, learning_rate=of.learning_rate * batch / of.batch_size)

    def losses(network, part):
        return {"second_stage": loss(network.head(part.images).float(), part.labels)}

    recipe = UNMIXED | {"batch_size": batch, "weight_decay": decay, "final_learning_rate": 0.0}
    options = {"name": "second_stage", "prepare": only_the_head, "recipe": recipe, "momentum": 0.9, "views": of.views}
    return Phase(length, losses, frozen=features, **(options | further))


def only_the_head(network: ViT) -> None:
    network.requires_grad_(False)
    network.head.requires_grad_(True)


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """(B, K), (B,) -> (B,)."""
    return F.cross_entropy(scores, labels, reduction="none")


class OverLinear(nn.Module):
    """A head that goes on from a linear one, under the same names."""

    def __init__(self, head: nn.Linear):
        super().__init__()
        self.weight, self.bias = head.weight, head.bias

    def linear(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class ScaledHead(OverLinear):
    """features (B, D) -> f_k (w_k x + b_k), (B, K); every f_k is 1 at first."""

    def __init__(self, head: nn.Linear):
        super().__init__(head)
        self.scale = nn.Parameter(head.bias.detach().new_ones(head.bias.shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)


class AfterCE(PlainNetwork):
    """Cross-entropy's network, its head trained on or made another: `head` says which."""

    after = "ce"

    def head(self, linear: nn.Linear) -> nn.Module:
        """The head, from a linear one of random weights; `begin` gives it those that were trained, where the names agree."""
        return linear

    def build(self) -> ViT:
        network = super().build()
        network.head = self.head(network.head)
        return network

    def begin(self, network: nn.Module, trained: dict[str, Tensor]) -> None:
        load_weights(network, weights(network) | trained)
