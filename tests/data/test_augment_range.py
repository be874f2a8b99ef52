"""RandAugment inside what the libraries take: every operation at every strength, colour and grey, both ways; cheap seeds."""

import contextlib
import random

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_lib.backend.timm_import import timm
from osdtw_lib.config.schema import Config, Files, Recipe
from osdtw_lib.data.augment import photograph, seed_of, seeded
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.data.rand_augment import OPERATIONS, Strength, draw_layers, rand_augment, strength_maps
from osdtw_lib.data.source import LabelledImages

pytestmark = pytest.mark.journey  # long

INCREASING = timm.data.auto_augment.rand_augment_choices("rand", increasing=True)
MAGNITUDES = [*np.arange(0, 10.5, 0.5).tolist(), 9.999, 12.0, 100.0]
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")  # interpolated differently: compared in test_augment.py
FILL = {"RGB": (10.0, 20.0, 30.0), "L": (33.0,)}


def picture(mode, side=24):
    small = np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).convert(mode)


def of_file(mode, name, magnitude, deviation=0.0, side=24):
    """The operation as a photograph meets it, done for certain."""
    recipe = Recipe().model_copy(update={"rand_augment": (magnitude, deviation)})
    steps = photograph(recipe, (side, side), 1.0, torch.tensor(FILL[mode])).transforms
    (operation,) = [op for op in steps[-1].ops if op.name == name]
    operation.prob = 1.0
    return operation


def tensor(image):
    return torch.from_numpy(np.array(image)).view(1, *image.size[::-1], -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", INCREASING)
def test_a_file_takes_every_operation_at_every_magnitude(name, mode):
    for magnitude in MAGNITUDES:
        with seeded(name, magnitude):
            outs = [of_file(mode, name, magnitude)(picture(mode)) for _ in range(4)]  # both directions
            outs += [of_file(mode, name, magnitude, 5.0)(picture(mode)) for _ in range(8)]
        assert all(out.mode == mode and out.size == (24, 24) for out in outs), magnitude


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in MOVES])
def test_pixels_on_the_device_become_what_a_file_becomes(monkeypatch, name, mode):
    timms = name if name in INCREASING else f"{name}Increasing"
    for sign, draw in ((-1.0, 0.9), (1.0, 0.1)):
        monkeypatch.setattr(random, "random", lambda draw=draw: draw)  # timm turns a strength over above one half
        for magnitude in MAGNITUDES:
            expected = tensor(of_file(mode, timms, magnitude)(picture(mode))).float()
            level, signs = torch.full((1, 1, 1, 1), min(magnitude, 10) / 10), torch.full((1, 1, 1, 1), sign)
            strength = Strength(level, signs, strength_maps(name, (level * signs).flatten()))
            found = OPERATIONS[name](tensor(picture(mode)).float(), strength, torch.tensor(FILL[mode]).view(1, -1, 1, 1))
            assert (found.round().clamp(0, 255) - expected).abs().max() <= 1, magnitude


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_strongest_posterize_keeps_no_bit(mode):
    assert not np.asarray(of_file(mode, "PosterizeIncreasing", 10)(picture(mode))).any()
    weaker = np.asarray(of_file(mode, "PosterizeIncreasing", 9.999)(picture(mode)))
    assert set(np.unique(weaker)) == {0, 128}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude, deviation", [(0, 0), (0, 5), (9, 0.5), (10, 0), (10, 5), (9.5, 1e-5), (12, 3), (100, 100)])
def test_both_ways_take_any_magnitude_and_deviation(magnitude, deviation, channels):
    mode = "RGB" if channels == 3 else "L"
    images = tensor(picture(mode)).repeat(400, 1, 1, 1)
    with seeded(magnitude, deviation):
        out = rand_augment(images, *draw_layers(len(images), magnitude, deviation), torch.tensor(FILL[mode]))
        transform = photograph(
            Recipe().model_copy(update={"rand_augment": (magnitude, deviation)}), (24, 24), 1.0, torch.tensor(FILL[mode])
        )
        files = [transform(picture(mode)) for _ in range(400)]
    assert out.shape == images.shape and out.dtype == torch.uint8
    assert {file.mode for file in files} == {mode}
    changed = [bool((np.asarray(file) != np.asarray(picture(mode))).any()) for file in files]
    assert 0.1 < np.mean(changed) < 0.95 and 0.1 < (out != images).flatten(1).any(1).float().mean() < 0.95


@pytest.mark.parametrize("magnitude, deviation", [(9, 0.5), (8, 0), (10, 3)])
def test_what_timm_itself_makes_of_a_photograph_stays_as_it_is(magnitude, deviation):
    recipe, fill = Recipe().model_copy(update={"rand_augment": (magnitude, deviation)}), tuple(map(int, FILL["RGB"]))
    ours = photograph(recipe, (24, 24), 1.0, torch.tensor(FILL["RGB"]))
    theirs = timm.data.auto_augment.rand_augment_transform(f"rand-m{magnitude}-mstd{deviation}-inc1", {"img_mean": fill})
    refused = 0
    for number in range(400):
        with seeded(number):
            found = ours(picture("RGB"))
        try:
            with seeded(number):
                expected = theirs(picture("RGB"))
        except ValueError:  # no bit of a pixel
            refused += 1
        else:
            assert np.array_equal(np.asarray(found), np.asarray(expected)), number
    assert refused < 40 and (refused > 0 or magnitude + deviation < 10)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (700, 5)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_of_any_shape_is_cropped_and_augmented(size, mode):
    for recipe in (None, Recipe(rand_augment=(10, 5)), Recipe(random_crop=(0.08, 1.0), flip=True, rand_augment=(9, 0.5))):
        transform = photograph(recipe, (16, 16), 0.875, torch.tensor(FILL[mode]))
        with seeded(size):
            assert {transform(Image.new(mode, size, 77)).size for _ in range(30)} == {(16, 16)}


@contextlib.contextmanager
def seeded_by_every_accelerator(*name):
    """How an image was seeded when it was seeded by torch's front door."""
    with torch.random.fork_rng([]):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(seed_of(*name))
        yield


@pytest.fixture
def photographs(tmp_path):
    """Sixty PNGs of different sizes."""
    rng, paths = np.random.default_rng(0), [tmp_path / f"{i}.png" for i in range(60)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + i % 7, 24, 3), dtype=np.uint8)).save(path)
    return ImageFiles(np.array(list(map(str, paths))), np.arange(60) % 3, np.array([p.name for p in paths]))


@pytest.mark.parametrize("workers", [0, 1])
def test_cheap_seeds_give_the_pixels_of_the_costly_ones_and_leave_the_generators(photographs, workers):
    recipe = Recipe(random_crop=(0.08, 1.0), flip=True, rand_augment=(9, 2.0), batch_size=16)
    data = Files(dataset="files", train="x", mean=[0.5] * 3, std=[0.5] * 3)
    config = Config.model_construct(seed=7, data=data, recipe=recipe, loader_workers=workers)
    batches = Batches(photographs, config, (16, 16), 3)
    read = [part for step in batches.plan(2) for places in step for part in [places.indices]]
    pixels = torch.cat([part.images for step in batches.epoch(2) for part in step])
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert len(batches._reader.reading.__getitems__([(0, 2, 0), (1, None, 0), (5, 3, 0)])) == 3
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1]))
    transform, expected = photograph(recipe, (16, 16), 0.875, 255 * torch.tensor([0.5] * 3)), []
    for index in torch.cat(read).tolist():
        with seeded_by_every_accelerator(7, 2, "image", index):
            expected.append(tensor(transform(photographs.read(index)))[0])
    assert torch.equal(pixels, (torch.stack(expected).float() / 255 - 0.5) / 0.5)
    with seeded("x"):
        cheap = torch.rand(3), random.random(), np.random.rand()
    with seeded_by_every_accelerator("x"):
        assert torch.equal(cheap[0], torch.rand(3)) and cheap[1:] == (random.random(), np.random.rand())


def test_a_whole_part_is_mixed_and_erased_as_by_the_costly_seeds(monkeypatch):
    recipe = Recipe(
        random_crop=(0.3, 1.0), flip=True, rand_augment=(9, 0.5), mixup=0.8, cutmix=1.0, random_erasing=0.5, batch_size=8
    )
    data = Files(dataset="files", train="x", mean=[0.5] * 3, std=[0.5] * 3)
    config = Config.model_construct(seed=3, data=data, recipe=recipe, loader_workers=0)
    pixels = np.random.default_rng(1).integers(0, 256, (20, 18, 18, 3), dtype=np.uint8)

    def images(epoch):
        batches = Batches(LabelledImages(pixels, np.arange(20) % 3), config, (16, 16), 3)
        return [part.images for step in batches.epoch(epoch) for part in step]

    cheap = images(1), images(2)
    monkeypatch.setattr("osdtw_lib.data.batches.seeded", seeded_by_every_accelerator)
    for ours, reference in zip(cheap, (images(1), images(2))):
        assert len(ours) == 3 and all(map(torch.equal, ours, reference))
    assert not torch.equal(cheap[0][0], cheap[1][0])
