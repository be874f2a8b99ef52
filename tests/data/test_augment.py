"""Augmentation on the device against timm's in Pillow, operation by operation; mixing; seeds."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_lib.backend.timm_import import timm
from osdtw_lib.config.schema import Recipe
from osdtw_lib.data import augment
from osdtw_lib.data.augment import centred, draw, mixed_and_erased, seeded
from osdtw_lib.data.rand_augment import CHANCE, LAYERS, OPERATIONS, Strength, strength_maps

auto_augment = timm.data.auto_augment
FILL = (10, 20, 30)
TIMM = {name: name for name in ("AutoContrast", "Equalize", "Invert", "Rotate", "SolarizeAdd", "ShearX", "ShearY")}
TIMM |= {name: f"{name}Increasing" for name in ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")}
TIMM |= {"TranslateX": "TranslateXRel", "TranslateY": "TranslateYRel"}
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")  # interpolated in fixed point there: not to the digit


def picture(side=64):
    small = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def pixels(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None]


def augmented(images, recipe, size, crop_share, fill):
    return augment.augmented(images, *draw(images.shape, recipe), size, crop_share, fill)


def test_every_operation_of_timms_is_here():
    assert sorted(TIMM[name] for name in OPERATIONS) == sorted(auto_augment._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [2.0, 9.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_timms_does(monkeypatch, name, magnitude, sign):
    # timm turns a strength over where random.random() > 0.5
    monkeypatch.setattr(random, "random", lambda: 0.9 if (sign < 0) != (name == "Rotate") else 0.1)
    to_arguments = auto_augment.LEVEL_TO_ARG[TIMM[name]]
    options = {"fillcolor": FILL, "resample": Image.Resampling.BILINEAR}
    arguments = to_arguments(magnitude, {}) if to_arguments else ()
    if name == "Rotate":
        arguments = (-arguments[0],)
    expected = pixels(auto_augment.NAME_TO_OP[TIMM[name]](picture(), *arguments, **options)).float()
    level, signs = torch.full((1, 1, 1, 1), magnitude / 10), torch.full((1, 1, 1, 1), float(sign))
    strength = Strength(level, signs, strength_maps(name, (level * signs).flatten()))
    found = OPERATIONS[name](pixels(picture()).float(), strength, torch.tensor(FILL).view(1, 3, 1, 1)).round().clamp(0, 255)
    difference = (found - expected).abs()
    if name in MOVES:  # the middle to within rounding; along the border the two libraries blend the fill differently
        assert difference.mean() < 2 and difference.median() <= 1, float(difference.mean())
        assert (expected - pixels(picture()).float()).abs().mean() > 4 * difference.mean()
    else:
        assert difference.max() <= 1


def test_rand_augment_changes_each_image_in_its_own_way():
    images = pixels(picture()).repeat(64, 1, 1, 1)
    with seeded("x"):
        out = augmented(images, Recipe(rand_augment=(9.0, 0.5)), (64, 64), 1.0, torch.tensor(FILL))
    assert out.dtype == torch.uint8 and out.shape == images.shape
    same = (out == images).flatten(1).all(1).float().mean()
    assert 0.1 < same < 0.45  # a quarter stay as they are: two operations, each with chance one half
    assert len({bytes(o.numpy()) for o in out}) > 30


def one_operation_after_the_other(images, magnitude, deviation, fill):
    """RandAugment as it reads: of each layer, each operation for the images that drew it, where they are."""
    images = images.float()
    for _ in range(LAYERS):
        drawn = torch.randint(len(OPERATIONS), (len(images),))
        drawn[torch.rand(len(images)) >= CHANCE] = -1
        level = (magnitude + deviation * torch.randn(len(images))).clamp_(0, 10) / 10
        sign = torch.where(torch.rand(len(images)) < 0.5, -1.0, 1.0)
        for number, (name, operation) in enumerate(OPERATIONS.items()):
            chosen = (drawn == number).nonzero()[:, 0]
            if len(chosen):
                own = [v[chosen].view(-1, 1, 1, 1) for v in (level, sign)]
                strength = Strength(*own, strength_maps(name, (level * sign)[chosen]))
                images[chosen] = operation(images[chosen], strength, fill.view(1, -1, 1, 1)).round().clamp(0, 255)
    return images.byte()


@pytest.mark.parametrize("count", [1, 2, 64])
def test_sorting_images_by_operation_gives_each_what_it_would_get_in_its_place(count):
    images = torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number in range(10):
        with seeded("sorted", number):
            found = augmented(images, Recipe(rand_augment=(9.0, 2.0)), (24, 24), 1.0, torch.tensor(FILL))
        with seeded("sorted", number):
            expected = one_operation_after_the_other(images, 9.0, 2.0, torch.tensor(FILL))
        assert torch.equal(found, expected)


def test_a_random_crop_of_the_whole_is_the_whole():
    images = pixels(picture())
    flat = torch.full((8, 3, 64, 64), 77, dtype=torch.uint8)
    assert torch.equal(
        augmented(flat, Recipe(random_crop=(0.1, 1.0), flip=True), (32, 32), 1.0, torch.zeros(3))[:, :, 4:-4, 4:-4],
        torch.full((8, 3, 24, 24), 77, dtype=torch.uint8),
    )
    assert torch.equal(centred(images, (64, 64), 1.0), images)
    assert torch.equal(centred(images, (32, 32), 0.5), images[..., 16:48, 16:48])


def test_crops_are_parts_of_the_stated_area():
    gradient = torch.arange(64).float().expand(1, 3, 64, 64).byte().repeat(200, 1, 1, 1)
    with seeded("crop"):
        out = augmented(gradient, Recipe(random_crop=(0.2, 0.5)), (16, 16), 1.0, torch.zeros(3)).float()
    width = (out[:, 0, 8, -2] - out[:, 0, 8, 1]) / 13 * 16 / 64  # of the image's own, read off the gradient
    assert 0.35 < width.min() and width.max() < 0.87 and width.std() > 0.05


def test_flips_half_of_the_images():
    images = pixels(picture()).repeat(400, 1, 1, 1)
    with seeded("flip"):
        out = augmented(images, Recipe(flip=True), (64, 64), 1.0, torch.zeros(3))
    turned = (out == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(turned, ~(out == images).flatten(1).all(1)) and 150 < turned.sum() < 250


def test_a_shift_moves_each_image_and_repeats_its_border():
    images = torch.randint(0, 256, (12, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with seeded("shift"):
        moved = augmented(images, Recipe(random_shift=1), (6, 6), 1.0, torch.zeros(1))
    padded = torch.nn.functional.pad(images.float(), (1, 1, 1, 1), mode="replicate").byte()
    places = [(r, c) for r in range(3) for c in range(3)]
    found = [{p for p in places if torch.equal(x, padded[i, :, p[0] : p[0] + 6, p[1] : p[1] + 6])} for i, x in enumerate(moved)]
    assert all(found) and len(set.union(*found)) > 3


def test_mixup_mixes_images_and_labels_in_one_proportion():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    with seeded("mixup"):
        mixed, labels = mixed_and_erased(images, torch.arange(4), Recipe(mixup=1.0), 4)
    for i in range(4):
        kept = labels[i, i]
        assert torch.allclose(mixed[i], kept * images[i] + (1 - kept) * images[3 - i]) and 0 < kept < 1


def test_cutmix_pastes_a_box_of_the_stated_share():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    with seeded("cutmix", 2):
        mixed, labels = mixed_and_erased(images, torch.arange(4), Recipe(cutmix=1.0), 4)
    for i in range(4):
        assert labels[i, i] == pytest.approx(float((mixed[i] == images[i]).float().mean()))
    assert torch.equal(images, torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16))


def test_erasing_leaves_the_given_images_alone():
    images = torch.zeros(16, 3, 16, 16)
    with seeded("erase"):
        out, labels = mixed_and_erased(images, torch.zeros(16, dtype=torch.int64), Recipe(random_erasing=1.0), 2)
    assert (out != 0).flatten(1).any(1).all() and not images.any() and labels.ndim == 1


def test_what_is_seeded_comes_out_the_same_and_leaves_the_generators():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    draws = []
    for name in ("a", "a", "b"):
        with seeded(0, name):
            draws.append((random.random(), np.random.rand(), float(torch.rand(()))))
    assert draws[0] == draws[1] and not set(draws[0]) & set(draws[2])
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_photograph_is_augmented_by_timm_and_keeps_its_size():
    recipe = Recipe(random_crop=(0.1, 1.0), flip=True, rand_augment=(9, 0.5))
    for size in ((32, 32), (48, 48)):
        transform = augment.photograph(recipe, size, 0.875, torch.tensor(FILL))
        assert transform(picture(100)).size == size
        assert augment.photograph(None, size, 0.875)(Image.new("L", (200, 31))).size == size
