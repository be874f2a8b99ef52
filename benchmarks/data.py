"""Images a second that one core delivers to training: JPEG files decoded each time, against the decoded cache.

    python benchmarks/data.py [--quick] [--out FOLDER]

The files are generated, of ImageNet's usual size: about 500 x 375 pixels and 110 KB. Everything is measured in one
run, in interleaved rounds, in one process with one thread; the files and the cache lie in the system's page cache.
Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from common import arguments, machine, show, write
from PIL import Image

from osdtw_lib.backend.threads import cores
from osdtw_lib.backend.timm_import import timm
from osdtw_lib.data.decoded_cache import decoded
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import IMAGENET_MEAN, IMAGENET_STD
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.data.image_check import examine
from osdtw_lib.data.image_files import ImageFiles

COLUMNS = ["path", "images_per_core_second", "ratio", "images_per_second", "cores_for_4000", "rounds"]
SIDE, CROP = 256, 224  # pixels of the cache and of the network
BATCH = 64
RECIPES = {"read only": ("mnist_lt", 1), "crop, flip, RandAug": ("imagenet_lt", 3)}  # whose recipe, channels
READING = 1.5  # the bar: of reading for training by reading for evaluation, where nothing is augmented
FULL = "JPEG: decode, crop, flip, RandAug, erasing"  # what training without a cache does to an image


def photographs(folder: Path, count: int) -> ImageFiles:
    """JPEGs with coarse and fine structure, so that a file has about ImageNet's bytes; made on all cores."""

    def make(i: int) -> None:
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        fine = Image.fromarray(rng.integers(0, 256, (188, 250, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        Image.blend(coarse, fine, 0.28).save(folder / f"{i:05}.jpg", quality=94)

    with ThreadPoolExecutor(cores()) as threads:
        list(threads.map(make, range(count)))
    paths = sorted(map(str, folder.glob("*.jpg")))
    return ImageFiles(np.array(paths), np.arange(count) % 10, np.array([Path(p).name for p in paths]))


def transform(rand_augment: bool) -> Callable:
    """timm's transform for training: image -> float32 (3, CROP, CROP)."""
    extra = {"auto_augment": "rand-m9-mstd0.5", "re_prob": 0.25} if rand_augment else {}
    return timm.data.create_transform(CROP, is_training=True, color_jitter=None, mean=IMAGENET_MEAN, std=IMAGENET_STD, **extra)


def paths(files: ImageFiles, cache: LabelledImages) -> dict[str, Callable[[np.ndarray], object]]:
    """{name: function that makes a batch from indices}."""
    simple, full = transform(False), transform(True)

    def batch(one: Callable) -> Callable:
        return lambda chosen: torch.stack([one(int(i)) for i in chosen])

    def kept(i: int) -> Image.Image:
        return Image.fromarray(cache.pixels[i])

    return {
        FULL: batch(lambda i: full(files.read(i))),
        "JPEG: decode, crop, flip": batch(lambda i: simple(files.read(i))),
        "JPEG: decode only": lambda chosen: [files.read(int(i)) for i in chosen],
        "cache: crop, flip, RandAug, erasing": batch(lambda i: full(kept(i))),
        "cache: crop, flip": batch(lambda i: simple(kept(i))),
        "cache: uint8 batches for a GPU that augments": lambda chosen: torch.from_numpy(cache.pixels[chosen]),
    }


def measure(files: ImageFiles, cache: LabelledImages, rounds: int) -> pd.DataFrame:
    made, per_core, per_second = paths(files, cache), {}, {}
    rng = np.random.default_rng(1)
    for run in made.values():
        run(np.arange(min(BATCH, len(files))))  # what is loaded at its first use
    for _ in range(rounds):
        order = rng.permutation(len(files))
        for name, run in made.items():
            cpu, wall = time.process_time(), time.perf_counter()
            for chosen in np.array_split(order, max(1, len(order) // BATCH)):
                run(chosen)
            per_core.setdefault(name, []).append(len(order) / (time.process_time() - cpu))
            per_second.setdefault(name, []).append(len(order) / (time.perf_counter() - wall))
    rows = []
    for name, values in per_core.items():
        ratio = median(a / b for a, b in zip(values, per_core[FULL]))
        rate = median(values)
        spread = f"{min(values):.0f} to {max(values):.0f} in {rounds} rounds"
        rows.append((name, rate, ratio, median(per_second[name]), math.ceil(4000 / rate), spread))
    return pd.DataFrame(rows, columns=COLUMNS)


def small_pictures(folder: Path, count: int) -> ImageFiles:
    """PNGs of 28 x 28 grey pixels, of which decoding costs next to nothing."""
    rng = np.random.default_rng(2)
    paths = [str(folder / f"{i:05}.png") for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (7, 7), dtype=np.uint8)).resize((28, 28)).save(path)
    return ImageFiles(np.array(paths), np.zeros(count, np.int64), np.array(paths))


def reading(kinds: dict[str, tuple[ImageFiles, int]], rounds: int) -> pd.DataFrame:
    """Processor time of reading an image for training, by that for evaluation, as Batches reads files; kinds: {what they are:
    (files, the side that the network takes)}."""
    rows = []
    for kind, (files, side) in kinds.items():
        for name, (params, channels) in RECIPES.items():
            config = load_config(PROJECT / "params" / f"{params}.yaml").model_copy(update={"loader_workers": 0})
            colours = {"mean": [0.5] * channels, "std": [0.5] * channels}
            config = config.model_copy(update={"data": config.data.model_copy(update=colours)})
            files = ImageFiles(files.paths, files.labels, files.names, channels)
            batches = Batches(files, config, (side, side), 10, batch_size=BATCH)
            found = {None: [], 0: []}  # the epoch; none: as evaluation sees them
            for _ in range(rounds + 1):
                for epoch, spent in found.items():
                    cpu = time.process_time()
                    places = [part._replace(epoch=epoch) for part in batches._in_order()]
                    for _ in batches._reader.read(places, epoch is not None):
                        pass
                    spent.append((time.process_time() - cpu) / len(files) * 1e3)
            evaluation, training = (spent[1:] for spent in found.values())  # the first loads what is used
            ratio = median(b / a for a, b in zip(evaluation, training))
            rows.append((kind, name, median(evaluation), median(training), ratio))
    return pd.DataFrame(rows, columns=["images", "recipe", "evaluation_ms", "training_ms", "ratio"])


def once(function: Callable, files: ImageFiles) -> tuple:
    """(what it returns, images a CPU second, images a second with all cores)."""
    cpu, wall = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        result = function()
    return result, len(files) / (time.process_time() - cpu), len(files) / (time.perf_counter() - wall)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = photographs(folder, 16 if options.quick else 640)
        size = files.sizes.mean() / 1e3
        print(f"{len(files)} generated JPEGs of 500 x 375 pixels, {size:.0f} KB; cache of {SIDE} x {SIDE}, crops of {CROP}")
        _, *check = once(lambda: examine(files), files)
        cache, *build = once(lambda: decoded(files, SIDE, folder / "cache"), files)
        table = measure(files, cache, rounds=1 if options.quick else 5)
        count, rounds = (32, 1) if options.quick else (1024, 5)
        kinds = {"PNG, 28 px": (small_pictures(folder, count), 28), "JPEG, 500 x 375": (files, CROP)}
        read = reading(kinds, rounds)
    passes = pd.DataFrame(
        [("check of all files", *check), ("building the cache", *build)],
        columns=["once a data set", "images_per_core_second", "images_per_second"],
    )
    show("Images delivered by one core", table)
    show("Reading a file, processor time an image", read)
    ratio = read["ratio"][0]
    verdict = f"{ratio:.2f} times evaluation; at most {READING}: {'met' if ratio <= READING else 'MISSED'}"
    print(f"{read['images'][0]}, {read['recipe'][0]}: {verdict}")
    show(f"Passes over a data set, {cores()} cores", passes)
    write(table, options.out, "data.csv")
    write(read, options.out, "data_reading.csv")
    write(passes, options.out, "data_passes.csv")


if __name__ == "__main__":
    main()
