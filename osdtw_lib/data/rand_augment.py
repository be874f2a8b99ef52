"""RandAugment (Cubuk et al. 2020) of a batch on any device: each operation at once for all the images that drew it.

What is random is drawn on the CPU, so that the device is told and never asked: which images are whose is known there as
numbers. The operations and their strengths are timm's "increasing" ones: the higher the level, the stronger. An operation
takes images (n, C, S, S) in 0..255, its Strength, and the colour (1, C, 1, 1) of what comes in from outside an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backend.timm_import import torchvision

LAYERS, CHANCE = 2, 0.5  # so many operations an image, each done with this probability
LUMA = (0.299, 0.587, 0.114)


class Strength(NamedTuple):
    """How strongly each image is changed: a level in 0..1 and a sign of -1 or 1, (n, 1, 1, 1); an affine map (n, 2, 3)."""

    level: Tensor
    sign: Tensor
    maps: Tensor


Operation = Callable[[Tensor, Strength, Tensor], Tensor]


def draw_layers(count: int, magnitude: float, deviation: float) -> tuple[dict[str, Tensor], list[list[int]]]:
    """Of `count` images, sorted in each layer by their operation; magnitude 0..10 and its deviation from image to image.

    Tensors: `order`, where each stood in the layer before, level and sign, (layers, B), maps (layers, B, 2, 3), and `place`,
    where each is in the end, (B,). And for each layer how many images have no operation, the first, the second, ...
    """
    layers, sizes = [], []
    place = torch.arange(count)
    for _ in range(LAYERS):
        drawn = torch.randint(len(OPERATIONS), (count,))
        drawn[torch.rand(count) >= CHANCE] = -1
        level = (magnitude + deviation * torch.randn(count)).clamp_(0, 10) / 10
        sign = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
        by_operation = drawn.argsort(stable=True)
        sizes.append(torch.bincount(drawn + 1, minlength=1 + len(OPERATIONS)).tolist())
        signed = (level * sign)[by_operation].split(sizes[-1])
        maps = torch.cat([strength_maps(*both) for both in zip([None, *OPERATIONS], signed)])
        layers.append((place[by_operation], level[by_operation], sign[by_operation], maps))
        place = torch.empty_like(place).scatter_(0, by_operation, torch.arange(count))
    drawn = dict(zip(("order", "level", "sign", "maps"), map(torch.stack, zip(*layers))))
    return drawn | {"place": place}, sizes


def strength_maps(name: str | None, signed: Tensor) -> Tensor:
    """Signed levels (n,) -> what an operation that moves pixels looks up (n, 2, 3); noughts for one that does not."""
    return affine_maps(MOVES[name](signed), len(signed)) if name in MOVES else torch.zeros(len(signed), 2, 3)


def rand_augment(images: Tensor, draws: dict[str, Tensor], sizes: list[list[int]], fill: Tensor) -> Tensor:
    """uint8 (B, C, S, S) -> uint8, by the tensors of `draw_layers` on the same device; fill (C,) in 0..255."""
    images, fill = images.float(), fill.view(1, -1, 1, 1)
    strengths = zip(draws["level"].view(LAYERS, -1, 1, 1, 1), draws["sign"].view(LAYERS, -1, 1, 1, 1), draws["maps"])
    for order, strength, (first, *of_each) in zip(draws["order"], strengths, sizes):
        images = images[order]  # the first stay as they are
        for operation, size in zip(OPERATIONS.values(), of_each):
            own = slice(first, first + size)
            if size:
                found = operation(images[own], Strength(*(v[own] for v in strength)), fill)
                images[own] = found.round().clamp(0, 255)
            first = own.stop
    return images[draws["place"]].byte()


def affine_maps(rows, count: int) -> Tensor:
    """Six numbers, each (B,) or one for all -> (B, 2, 3): x' = r0 x + r1 y + r2, y' = r3 x + r4 y + r5, all in -1..1."""
    rows = [torch.as_tensor(row, dtype=torch.float32, device="cpu").expand(count) for row in rows]
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def warped(images: Tensor, maps: Tensor, size: int, mode: str = "bilinear", outside: str = "zeros") -> Tensor:
    """images (B, C, H, W) looked up where the maps (B, 2, 3) say: (B, C, size, size)."""
    grid = F.affine_grid(maps, (len(images), 1, size, size), align_corners=False)
    return F.grid_sample(images, grid, mode, outside, align_corners=False)


def _moved(images, strength, fill):
    return warped(images - fill, strength.maps, images.shape[-1]) + fill


def _rotation(turn: Tensor) -> tuple:
    cos, sin = (turn * math.radians(30)).cos(), (turn * math.radians(30)).sin()
    return cos, -sin, 0, sin, cos, 0


def _enhanced(other: Callable[[Tensor], Tensor]) -> Operation:
    """Towards what `other` makes of the images, or away from it, by up to nine tenths."""

    def operation(images, strength, fill):
        how_much = (1 + 0.9 * strength.level * strength.sign).clamp(min=0.1)
        return torch.lerp(other(images).expand_as(images), images, how_much)

    return operation


def _grey(images: Tensor) -> Tensor:
    weights = LUMA if images.shape[1] == 3 else [1 / images.shape[1]] * images.shape[1]
    each = torch.cat([images.new_full((1, 1, 1, 1), weight) for weight in weights], dim=1)  # made there, not copied
    return (images * each).sum(1, keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """Each pixel's mean over its neighbours, itself five times; the border stays."""
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    kernel = (kernel / 13).expand(images.shape[1], 1, 3, 3)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = F.conv2d(images, kernel, groups=images.shape[1])
    return smooth


def _autocontrast(images, strength, fill):
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1)), images)


def _equalize(images, strength, fill):
    return torchvision.transforms.v2.functional.equalize(images.byte()).float()


def _posterize(images, strength, fill):
    step = 2 ** (4 + (4 * strength.level).floor())  # 4 bits are kept, less those the level takes
    return (images / step).floor() * step


def _solarize(images, strength, fill):
    return torch.where(images < 256 - (256 * strength.level).floor(), images, 255 - images)


def _solarize_add(images, strength, fill):
    return torch.where(images < 128, images + (110 * strength.level).floor(), images)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Invert": lambda images, strength, fill: 255 - images,
    "Rotate": _moved,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhanced(_grey),
    "Contrast": _enhanced(lambda images: _grey(images).mean((2, 3), keepdim=True).round()),
    "Brightness": _enhanced(torch.zeros_like),
    "Sharpness": _enhanced(_smooth),
    "ShearX": _moved,
    "ShearY": _moved,
    "TranslateX": _moved,
    "TranslateY": _moved,
}
MOVES: dict[str | None, Callable[[Tensor], tuple]] = {  # signed levels (n,) -> the six numbers of an affine map
    "Rotate": _rotation,
    "ShearX": lambda s: (1, 0.3 * s, 0.3 * s, 0, 1, 0),
    "ShearY": lambda s: (1, 0, 0, 0.3 * s, 1, 0.3 * s),
    "TranslateX": lambda s: (1, 0, 0.9 * s, 0, 1, 0),
    "TranslateY": lambda s: (1, 0, 0, 0, 1, 0.9 * s),
}
