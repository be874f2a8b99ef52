"""An epoch of reading and augmenting by each recipe of the parameter files, over as many images as rare strengths need."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.data.source import LabelledImages

N, SIDE, CLASSES = 4000, 28, 5
AUGMENTATION = {"random_shift", "random_crop", "flip", "rand_augment", "mixup", "cutmix", "random_erasing"}


def shipped() -> dict[str, list[Path]]:
    """The parameter files, those together whose images go through the same."""
    alike: dict[str, list[Path]] = {}
    for path in sorted((PROJECT / "params").glob("*.yaml")):
        config = load_config(path)
        key = config.data.dataset == "files", config.model.channels, config.recipe.model_dump(include=AUGMENTATION)
        alike.setdefault(str(key), []).append(path)
    return {" ".join(path.stem for path in paths): paths for paths in alike.values()}


SHIPPED = shipped()


def pixels(channels):
    coarse = np.random.default_rng(0).integers(0, 256, (N, SIDE // 4, SIDE // 4, channels), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """4,000 PNGs."""
    folder = tmp_path_factory.mktemp("shipped")
    paths = [str(folder / f"{i}.png") for i in range(N)]
    for path, image in zip(paths, pixels(3)):
        Image.fromarray(image).save(path, compress_level=1)
    return ImageFiles(np.array(paths), np.arange(N) % CLASSES, np.array(paths))


def epoch_is_whole(images, config):
    size = 16 if isinstance(images, ImageFiles) else SIDE
    batches = Batches(images, config, (size, size), CLASSES)
    parts = [part for step in batches.epoch(0) for part in step]
    assert sum(len(part.images) for part in parts) == N and sum(part.share for part in parts) == pytest.approx(len(batches))
    for part in parts:
        assert part.images.shape[1:] == (config.model.channels, size, size) and len(part.labels) == len(part.images)
        assert torch.isfinite(part.images).all() and torch.isfinite(part.labels.float()).all()


@pytest.mark.parametrize("names", SHIPPED)
@pytest.mark.journey
def test_an_epoch_of_each_files_own_recipe(names, files):
    config = load_config(SHIPPED[names][0])
    channels = config.model.channels
    arrays = LabelledImages(pixels(channels), files.labels)
    epoch_is_whole(files if config.data.dataset == "files" else arrays, config)


@pytest.mark.journey
def test_the_recipe_that_own_images_recommends_for_photographs(files):
    config = load_config(PROJECT / "params" / "own_images.yaml", ["recipe.rand_augment=[9, 0.5]", "recipe.flip=true"])
    epoch_is_whole(files, config)
