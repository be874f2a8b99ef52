"""What a training batch goes through: of pixels on the device, of a photograph in a loader's process, of both together.

Every image draws its own crop, operations and strengths from torch's, numpy's and Python's generators, as the
libraries do; `seeded` makes all that is random a function of a name, whatever process it happens in.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..backend.timm_import import timm, torchvision
from ..config.schema import Recipe
from .rand_augment import LAYERS, rand_augment, warped

ASPECT = (3 / 4, 4 / 3)  # of a random crop
UNMIXED = {"mixup": 0.0, "cutmix": 0.0}  # of a recipe, for a loss that knows hard labels only


def seed_of(*name) -> int:
    return zlib.crc32("/".join(map(str, name)).encode())


def seed_all(seed: int) -> None:
    """What torch, numpy and random draw next, on the CPU and the GPU in use, follows from `seed`."""
    torch.default_generator.manual_seed(seed)  # as torch.manual_seed, which asks every kind of accelerator: 300 times as long
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Afterwards torch's, numpy's and Python's generators go on as before."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextlib.contextmanager
def seeded(*name) -> Iterator[None]:
    """Inside, what torch, numpy and random draw depends on `name` alone; afterwards they go on as before."""
    with generators_kept():
        seed_all(seed_of(*name))
        yield


def centred(images: Tensor, size: tuple[int, int], crop_share: float, interpolation: str = "bicubic") -> Tensor:
    """uint8 (B, C, H, W): the middle `crop_share` of both sides, resized to `size` where it is not of that size."""
    height, width = (round(side * crop_share) for side in images.shape[-2:])
    images = torchvision.transforms.v2.functional.center_crop(images, [height, width])
    if images.shape[-2:] == torch.Size(size):
        return images
    return F.interpolate(images.float(), size, mode=interpolation, antialias=True).round_().clamp_(0, 255).byte()


def augmented(
    images: Tensor, recipe: Recipe, size: tuple[int, int], crop_share: float, fill: Tensor, interpolation: str = "bicubic"
) -> Tensor:
    """uint8 (B, C, H, W) -> uint8 (B, C, *size) on the same device; fill (C,) in 0..255 comes in from outside an image."""
    if recipe.random_crop:
        images = _cropped(images, recipe.random_crop, size[0], interpolation)
    else:
        images = centred(images, size, crop_share, interpolation)
    if recipe.flip:
        mirrored = (torch.rand(len(images)) < 0.5).to(images.device)
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    if recipe.random_shift:
        images = _shifted(images, recipe.random_shift)
    return rand_augment(images, *recipe.rand_augment, fill) if recipe.rand_augment else images


def photograph(
    recipe: Recipe | None, size: tuple[int, int], crop_share: float, fill: Tensor = (), interpolation: str = "bicubic"
) -> Callable:
    """Pillow image -> Pillow image, the same of one photograph by timm's transforms; without a recipe, as evaluation sees it."""
    resized = (round(size[0] / crop_share), round(size[1] / crop_share))
    resize = timm.data.transforms.ResizeKeepRatio(resized, longest=0.0, interpolation=interpolation)
    steps = [resize, torchvision.transforms.CenterCrop(size)]
    if recipe is None:
        return torchvision.transforms.Compose(steps)
    if recipe.random_crop:
        steps = [timm.data.transforms.RandomResizedCropAndInterpolation(size, recipe.random_crop, ASPECT, interpolation)]
    if recipe.flip:
        steps.append(torchvision.transforms.RandomHorizontalFlip())
    if recipe.rand_augment:
        steps.append(_timm_rand_augment(*recipe.rand_augment, tuple(int(v) for v in fill)))
    return torchvision.transforms.Compose(steps)


def _timm_rand_augment(magnitude: float, deviation: float, fill: tuple[int, ...]) -> Callable:
    """timm's RandAugment "rand-m..-mstd..-inc1", also of magnitudes that its strings cannot say (9.5)."""
    library = timm.data.auto_augment
    names = library.rand_augment_choices("rand", increasing=True)
    operations = library.rand_augment_ops(magnitude, hparams={"img_mean": fill, "magnitude_std": deviation}, transforms=names)
    for operation in operations:
        if operation.aug_fn is library.posterize:
            operation.aug_fn = _posterized
    return library.RandAugment(operations, LAYERS)


def _posterized(image: Image.Image, bits: int, **options) -> Image.Image:
    """As timm's; the strongest keeps no bit of a pixel, so black: Pillow made it so before it refused to."""
    return timm.data.auto_augment.posterize(image, bits, **options) if bits > 0 else Image.new(image.mode, image.size)


def mixed_and_erased(images: Tensor, labels: Tensor, recipe: Recipe, n_classes: int) -> tuple[Tensor, Tensor]:
    """Normalised (B, C, H, W), labels (B,) -> mixup or cutmix (labels become (B, K)), then random erasing."""
    if recipe.mixup or recipe.cutmix:
        images, labels = _mixed(images, labels, recipe, n_classes)
    if recipe.random_erasing:
        erase = timm.data.random_erasing.RandomErasing(recipe.random_erasing, mode="pixel", device=images.device)
        images = erase(images.clone())
    return images, labels


def _mixed(images: Tensor, labels: Tensor, recipe: Recipe, n_classes: int) -> tuple[Tensor, Tensor]:
    """One share for the batch, each image with the one as far from the end; mixup or cutmix, as likely where both are on."""
    cut = recipe.cutmix and not (recipe.mixup and np.random.rand() < 0.5)
    kept = float(np.random.beta(*[recipe.cutmix if cut else recipe.mixup] * 2))
    if cut:
        (top, bottom, left, right), kept = timm.data.mixup.cutmix_bbox_and_lam(images.shape, kept)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    else:
        mixed = torch.lerp(images.flip(0), images, kept)
    target = F.one_hot(labels, n_classes).to(images.dtype)
    return mixed, torch.lerp(target.flip(0), target, float(kept))


def _cropped(images: Tensor, area: tuple[float, float], size: int, interpolation: str) -> Tensor:
    """A random part of each image, of so much of its area and an aspect within 3/4..4/3, resized."""
    batch, _, height, width = images.shape
    share = torch.empty(batch).uniform_(*area)
    aspect = torch.empty(batch).uniform_(np.log(ASPECT[0]), np.log(ASPECT[1])).exp()
    pixels = share * height * width
    # rsqrt is PyTorch's own and the same on every processor; sqrt is MKL's and is not
    sides = (aspect / pixels).rsqrt() / height, (1 / (pixels * aspect)).rsqrt() / width
    part = torch.stack(sides).clamp(max=1)  # (2, B)
    (tall, wide), (down, right) = part, (2 * torch.rand(2, batch) - 1) * (1 - part)
    found = warped(images.float(), (wide, 0, right, 0, tall, down), size, interpolation, "reflection")
    return found.round_().clamp_(0, 255).byte()


def _shifted(images: Tensor, shift: int) -> Tensor:
    """Each image moved by up to `shift` pixels, each way; borders are repeated."""
    batch, _, height, width = images.shape
    moves = torch.randint(-shift, shift + 1, (2, batch)).to(images.device)
    rows = (moves[0][:, None] + torch.arange(height, device=images.device)).clamp(0, height - 1)
    columns = (moves[1][:, None] + torch.arange(width, device=images.device)).clamp(0, width - 1)
    at = torch.arange(batch, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
