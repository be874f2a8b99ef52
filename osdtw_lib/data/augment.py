"""What a training batch goes through: of pixels on the device, of a photograph in a loader's process, of both together.

Every image draws its own crop, operations and strengths from torch's, numpy's and Python's generators, as the
libraries do; `seeded` makes all that is random a function of a name, whatever process it happens in. What becomes of
pixels on a device is drawn on the CPU first (`draw`), goes there by one copy (`sent`) and is applied (`augmented`), so that
nothing waits for the device.
"""

from __future__ import annotations

import contextlib
import functools
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
from .rand_augment import LAYERS, affine_maps, draw_layers, rand_augment, warped

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


def draw(shape: torch.Size, recipe: Recipe) -> tuple[dict[str, Tensor], list[list[int]]]:
    """All that is random about how images (B, C, H, W) are augmented, on the CPU; and how many have which of RandAugment's
    operations (see there)."""
    batch, _, height, width = shape
    drawn: dict[str, Tensor] = {}
    sizes: list[list[int]] = []
    if recipe.random_crop:
        drawn["crops"] = _draw_crops(batch, height, width, recipe.random_crop)
    if recipe.flip:
        drawn["mirrored"] = torch.rand(batch) < 0.5
    if recipe.random_shift:
        drawn["moves"] = torch.randint(-recipe.random_shift, recipe.random_shift + 1, (2, batch))
    if recipe.rand_augment:
        layers, sizes = draw_layers(batch, *recipe.rand_augment)
        drawn |= layers
    return drawn, sizes


def sent(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Tensors of the CPU on the device, by one copy that nobody waits for."""
    if device.type == "cpu":
        return tensors
    sizes = [-(-t.nbytes // 8) * 8 for t in tensors.values()]  # each begins where one of any type may
    packed = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")

    def parts(whole: Tensor) -> Iterator[Tensor]:
        for place, t in zip(whole.split(sizes), tensors.values()):
            yield place[: t.nbytes].view(t.dtype).view(t.shape)

    for place, t in zip(parts(packed), tensors.values()):
        place.copy_(t)
    return dict(zip(tensors, parts(packed.to(device, non_blocking=True))))


def augmented(
    images: Tensor,
    draws: dict[str, Tensor],
    sizes: list[list[int]],
    size: tuple[int, int],
    crop_share: float,
    fill: Tensor,
    interpolation: str = "bicubic",
) -> Tensor:
    """uint8 (B, C, H, W) -> uint8 (B, C, *size) by what was drawn, all on one device; fill (C,) in 0..255 comes in from
    outside an image."""
    if "crops" in draws:
        found = warped(images.float(), draws["crops"], size[0], interpolation, "reflection")
        images = found.round_().clamp_(0, 255).byte()
    else:
        images = centred(images, size, crop_share, interpolation)
    if "mirrored" in draws:
        images = torch.where(draws["mirrored"].view(-1, 1, 1, 1), images.flip(-1), images)
    if "moves" in draws:
        images = _shifted(images, draws["moves"])
    return rand_augment(images, draws, sizes, fill) if sizes else images


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
    if recipe.random_shift:
        steps.append(functools.partial(_moved, most=recipe.random_shift))
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


def _draw_crops(batch: int, height: int, width: int, area: tuple[float, float]) -> Tensor:
    """(B, 2, 3): a random part of each image, of so much of its area and an aspect within 3/4..4/3, as an affine map."""
    share = torch.empty(batch).uniform_(*area)
    aspect = torch.empty(batch).uniform_(np.log(ASPECT[0]), np.log(ASPECT[1])).exp()
    pixels = share * height * width
    # rsqrt is PyTorch's own and the same on every processor; sqrt is MKL's and is not
    sides = (aspect / pixels).rsqrt() / height, (1 / (pixels * aspect)).rsqrt() / width
    part = torch.stack(sides).clamp(max=1)  # (2, B)
    (tall, wide), (down, right) = part, (2 * torch.rand(2, batch) - 1) * (1 - part)
    return affine_maps((wide, 0, right, 0, tall, down), batch)


def _moved(image: Image.Image, most: int) -> Image.Image:
    """One image moved by up to so many pixels each way, as `_shifted` does."""
    pixels = np.array(image)
    one = torch.from_numpy(pixels).reshape(1, image.height, image.width, -1).permute(0, 3, 1, 2)
    moved = _shifted(one, torch.randint(-most, most + 1, (2, 1)))
    return Image.fromarray(moved[0].permute(1, 2, 0).numpy().reshape(pixels.shape))


def _shifted(images: Tensor, moves: Tensor) -> Tensor:
    """Each image moved by moves (2, B), pixels down and right; borders are repeated."""
    batch, _, height, width = images.shape
    rows = (moves[0][:, None] + torch.arange(height, device=images.device)).clamp(0, height - 1)
    columns = (moves[1][:, None] + torch.arange(width, device=images.device)).clamp(0, width - 1)
    at = torch.arange(batch, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
