"""Distillation from a small CNN after DeiT-LT, CE(z, y) / 2 + CE(z', t) / 2 with t = argmax of the teacher's scores."""

from __future__ import annotations

import copy
import math
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import Beta, Fraction, Layers, Rate, Section, Side, Strength
from ..models.vit import ViT
from ..training.phase import Phase, hard
from ._base import Method, shares_left
from ._parts import CosineHead, effective_weights, features, is_late, ldam, margins, redrawn

LARGEST_SIDE = 56  # of what the teacher's first blocks see


class Residual(nn.Module):
    """Two convolutions and what they pass by; normalised an image at a time, so that no image's loss depends on others."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.passed = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if (inputs, stride) != (outputs, 1) else nn.Identity()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(8, outputs), outputs) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.passed(x))


class Teacher(nn.Sequential):
    """A residual network of three widths: images of `side` -> scale x cosine (B, K)."""

    def __init__(self, channels: int, side: int, n_classes: int, width: int, blocks: int, scale: float):
        stride = max(1, side // LARGEST_SIDE)
        stem = nn.Conv2d(channels, width, 2 * stride + 1, stride, padding=stride)
        widths = [width] + [width * 2**stage for stage in range(3) for _ in range(blocks)]
        inner = [Residual(a, b, 1 if a == b else 2) for a, b in zip(widths, widths[1:])]
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(stem, nn.ReLU(), *inner, *pooled, CosineHead(nn.Linear(widths[-1], n_classes), scale))


class Distilled(nn.Module):
    """A network with a second head over the same features, and its teacher: images -> both heads' scores (B, K)."""

    def __init__(self, vit: ViT, teacher: Teacher):
        super().__init__()
        self.vit, self.second, self.teacher = vit, copy.deepcopy(vit.head), teacher
        redrawn(self.second, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        seen = features(self.vit, images)
        return self.vit.head(seen).float(), self.second(seen).float()

    def train_only(self, teacher: bool) -> None:
        self.requires_grad_(not teacher)
        self.teacher.requires_grad_(teacher)


def from_teacher(scores: Tensor, teacher_labels: Tensor, weights: Tensor | None) -> Tensor:
    """The mean cross-entropy (a number), weighted by the teacher's label where weights (K,) are given."""
    weights = None if weights is None else weights.to(scores)
    return F.cross_entropy(scores, teacher_labels, weight=weights)


class DeitLtStyle(Method):
    """The idea of DeiT-LT, not its row: the paper trains for 1,200 epochs and more, from nothing, with a token for the teacher's
    label, after a larger teacher of another loss. Here a second head reads the pooled features, however they are pooled, and the
    teacher, trained first as long as the student, has LDAM-DRW. It sees the student's images, mixed as they are. In the last
    epochs nothing is mixed, and what the teacher says counts by its label's class, against the others of the part."""

    title = "DeiT-LT style, distilled from a CNN, our start and length"
    source = "after Rangwani et al. 2024, arXiv:2404.02900"

    class Parameters(Section):
        weights_from: Fraction = 0.9  # of the student's epochs; 0.92 and 0.86 of the paper's
        beta: Beta = 0.9999
        teacher_width: Side | None = None  # None: a twelfth of the student's, at least 8
        teacher_blocks: Layers = 2  # of each width
        teacher_weights_from: Fraction = 0.8
        margin: Strength = 0.5
        scale: Rate = 30.0

    @property
    def shares(self):
        """Of two heads' mean: one is trained as plain cross-entropy is, the other taken for one of balanced classes."""
        return shares_left(self.problem.priors, 0.5)

    def build(self) -> Distilled:
        own, vit = self.parameters, self.problem.vit(self.problem.n_classes)
        shape = vit.patch_embed.proj.in_channels, max(vit.patch_embed.img_size), self.problem.n_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            teacher = Teacher(*shape, own.teacher_width or max(8, vit.embed_dim // 12), own.teacher_blocks, own.scale)
        return Distilled(vit, teacher.to(vit.head.weight.device))

    @cached_property
    def effective(self) -> Tensor:
        return self.problem.constant(effective_weights(self.problem.class_counts, self.parameters.beta))

    def weights(self, epoch: int, share: float) -> Tensor | None:
        return self.effective if is_late(epoch, self.problem.length.epochs, share) else None

    def phases(self):
        own, length = self.parameters, self.problem.length
        lowered = self.problem.constant(margins(self.problem.class_counts, own.margin))

        def of_teacher(epoch):
            return self.weights(epoch, own.teacher_weights_from)

        def teach(network, part):
            scores = network.teacher(part.images).float()
            return {"ldam": hard(part, lambda y: ldam(scores, y, lowered, own.scale), of_teacher(part.epoch))}

        def learn(network, part):
            with torch.no_grad():
                told = network.teacher(part.images).argmax(1)
            scores, second = network(part.images)
            each = hard(part, lambda y: F.cross_entropy(scores, y, reduction="none"))
            taught = from_teacher(second, told, self.weights(part.epoch, own.weights_from))
            return {"label": each.mean() / 2, "teacher": taught / 2}

        first = Phase(length, teach, "teacher", class_weights=of_teacher, prepare=lambda n: n.train_only(teacher=True))
        unmixed = math.ceil(own.weights_from * length.epochs)
        prepare = lambda network: network.train_only(teacher=False)  # noqa: E731
        return [first, Phase(length, learn, "student", prepare=prepare, unmixed_from=unmixed, coupled=True)]

    def scores(self, network: Distilled, images: Tensor) -> Tensor:
        return sum(network(images)) / 2


METHOD = DeitLtStyle
