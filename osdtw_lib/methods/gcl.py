"""Gaussian clouded logits (GCL): -log softmax(s (cos_k - mu |eps_k| d_k - m [k = y]))_y, d_k from 0 (frequent) to 1 (rare)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..config.values import Batch, Epochs, Number, Rate, Strength
from ..models.vit import ViT
from ..training.phase import Phase, hard
from ._base import Method
from ._parts import with_cosine_head
from ._second_stage import SecondStage, cross_entropy, second_stage


def cloud_sizes(counts) -> np.ndarray:
    """d (K,): log n_max - log n, of its largest; 0 where all classes are of a size."""
    sizes = np.log(np.max(counts)) - np.log(counts)
    return sizes / max(sizes.max(), 1e-12)


def drawn(cosines: Tensor) -> Tensor:
    """Noise of deviation 1/3, one number a logit."""
    return torch.randn_like(cosines) / 3


def clouded(cosines: Tensor, labels: Tensor, noise: Tensor, cloud: Tensor, scale: float, margin=0.0, focus=0.0) -> Tensor:
    """(B, K), (B,), (B, K), cloud mu d (K,) -> (B,); focus: the power of (1 - p_y), through which no gradient goes."""
    lowered = cosines - cloud.to(cosines) * noise.clamp(-1, 1).abs()
    lowered = lowered.scatter_add(1, labels[:, None], torch.full_like(lowered[:, :1], -margin))
    loss = cross_entropy(scale * lowered, labels)
    return (-torch.expm1(-loss.detach())) ** focus * loss


def sampling_shares(counts) -> tuple[float, ...]:
    """A class's share of the second stage's draws: n (1 - b) / (1 - b^n), b = 0.9999 + 0.00001 d; almost equal shares."""
    rates = 0.9999 + 1e-5 * cloud_sizes(counts)
    shares = np.asarray(counts) * (1 - rates) / -np.expm1(counts * np.log(rates))
    return tuple((shares / shares.sum()).tolist())


class GaussianClouded(Method):
    """Every logit is lowered at random, those of rare classes by more, so that their images go on pushing; the head then goes on
    alone. Its authors mix images in both stages and train 200 epochs first; kept features are not mixed."""

    title = "Gaussian clouded logit adjustment (GCL)"
    source = "Li et al. 2022, arXiv:2305.11733"
    space = {"noise": (0.5, 1.0), "second_scale": (10.0, 15.0, 30.0)}

    class Parameters(SecondStage):
        scale: Rate = 30.0  # s of the first stage
        noise: Strength = 0.5  # mu; Places-LT: 1
        mixup: Strength = 1.0
        second_scale: Rate = 20.0
        margin: Number = 0.1  # m, focus and what follows: of the second stage
        focus: Strength = 1.0
        epochs: Epochs = 30
        batch_size: Batch = 64

    def build(self) -> ViT:
        return with_cosine_head(self.problem.vit(self.problem.n_classes), scale=1.0)

    def phases(self):
        own = self.parameters
        cloud = self.problem.constant(own.noise * cloud_sizes(self.problem.class_counts))

        def first(network, part):
            cosines = network(part.images).float()
            noise = drawn(cosines)
            return {"first_stage": hard(part, lambda labels: clouded(cosines, labels, noise, cloud, own.scale))}

        def second(cosines, labels):
            return clouded(cosines, labels, drawn(cosines), cloud, own.second_scale, own.margin, own.focus)

        shares = sampling_shares(self.problem.class_counts)
        return [
            Phase(self.problem.length, first, name="first_stage", recipe={"mixup": own.mixup, "cutmix": 0.0}),
            second_stage(self.problem, own, second, sampling=shares),
        ]

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        return self.parameters.second_scale * network(images).float()


METHOD = GaussianClouded
