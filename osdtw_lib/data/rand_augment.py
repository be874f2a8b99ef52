"""RandAugment (Cubuk et al. 2020) of a batch on any device: each operation at once for all the images that drew it.

The operations and their strengths are timm's "increasing" ones: the higher the level, the stronger. An operation
takes images (n, C, S, S) in 0..255, a level (n, 1, 1, 1) in 0..1, a sign of -1 or 1, and the colour (1, C, 1, 1) of
what comes in from outside an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backend.timm_import import torchvision

LAYERS, CHANCE = 2, 0.5  # so many operations an image, each done with this probability
LUMA = (0.299, 0.587, 0.114)
Operation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def rand_augment(images: Tensor, magnitude: float, deviation: float, fill: Tensor) -> Tensor:
    """uint8 (B, C, S, S) -> uint8; magnitude 0..10 and its deviation from image to image; fill (C,) in 0..255."""
    images, fill = images.float(), fill.to(images.device).view(1, -1, 1, 1)
    for _ in range(LAYERS):
        drawn = torch.randint(len(OPERATIONS), (len(images),))
        drawn[torch.rand(len(images)) >= CHANCE] = -1
        level = (magnitude + deviation * torch.randn(len(images))).clamp_(0, 10) / 10
        sign = torch.where(torch.rand(len(images)) < 0.5, -1.0, 1.0)
        for number, operation in enumerate(OPERATIONS.values()):
            chosen = (drawn == number).nonzero()[:, 0]
            if len(chosen):
                strength = (v[chosen].view(-1, 1, 1, 1).to(images.device) for v in (level, sign))
                there = chosen.to(images.device)
                images[there] = operation(images[there], *strength, fill).round().clamp(0, 255)
    return images.byte()


def warped(images: Tensor, rows, size: int, mode: str = "bilinear", outside: str = "zeros") -> Tensor:
    """images (B, C, H, W) looked up at x' = r0 x + r1 y + r2, y' = r3 x + r4 y + r5, all in -1..1: (B, C, size, size)."""
    rows = [torch.as_tensor(row, dtype=torch.float32, device="cpu").expand(len(images)) for row in rows]
    maps = torch.stack(rows, dim=1).view(-1, 2, 3).to(images.device)
    grid = F.affine_grid(maps, (len(images), 1, size, size), align_corners=False)
    return F.grid_sample(images, grid, mode, outside, align_corners=False)


def _geometric(rows: Callable[[Tensor], tuple]) -> Operation:
    """rows(signed level (n,)) -> the six numbers of an affine map."""

    def operation(images, level, sign, fill):
        return warped(images - fill, rows((level * sign).flatten().cpu()), images.shape[-1]) + fill

    return operation


def _rotation(turn: Tensor) -> tuple:
    cos, sin = (turn * math.radians(30)).cos(), (turn * math.radians(30)).sin()
    return cos, -sin, 0, sin, cos, 0


def _enhanced(other: Callable[[Tensor], Tensor]) -> Operation:
    """Towards what `other` makes of the images, or away from it, by up to nine tenths."""

    def operation(images, level, sign, fill):
        return torch.lerp(other(images).expand_as(images), images, (1 + 0.9 * level * sign).clamp(min=0.1))

    return operation


def _grey(images: Tensor) -> Tensor:
    weights = LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1]
    return (images * torch.tensor(weights, device=images.device).view(1, -1, 1, 1)).sum(1, keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """Each pixel's mean over its neighbours, itself five times; the border stays."""
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    kernel = (kernel / 13).expand(images.shape[1], 1, 3, 3)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel, groups=images.shape[1])
    return smooth


def _autocontrast(images, level, sign, fill):
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1)), images)


def _equalize(images, level, sign, fill):
    return torchvision.transforms.v2.functional.equalize(images.byte()).float()


def _posterize(images, level, sign, fill):
    step = 2 ** (4 + (4 * level).floor())  # 4 bits are kept, less those the level takes
    return (images / step).floor() * step


def _solarize(images, level, sign, fill):
    return torch.where(images < 256 - (256 * level).floor(), images, 255 - images)


def _solarize_add(images, level, sign, fill):
    return torch.where(images < 128, images + (110 * level).floor(), images)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": lambda images, level, sign, fill: 255 - images,
    "Rotate": _geometric(_rotation),
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhanced(_grey),
    "Contrast": _enhanced(lambda images: _grey(images).mean((2, 3), keepdim=True).round()),
    "Brightness": _enhanced(torch.zeros_like),
    "Sharpness": _enhanced(_smooth),
    "ShearX": _geometric(lambda s: (1, 0.3 * s, 0.3 * s, 0, 1, 0)),
    "ShearY": _geometric(lambda s: (1, 0, 0, 0.3 * s, 1, 0.3 * s)),
    "TranslateX": _geometric(lambda s: (1, 0, 0.9 * s, 0, 1, 0)),
    "TranslateY": _geometric(lambda s: (1, 0, 0, 0, 1, 0.9 * s)),
}
