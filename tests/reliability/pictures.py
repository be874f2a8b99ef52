"""Small photograph-like image files: a long tail of them with names that are hard on encodings, and one of every format."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"Füchse": 9, "a dog": 7, "狼": 5, "NA": 4}  # name: images
FORMATS = [  # (suffix, mode, options of Pillow's save)
    *((".jpg", mode, {}) for mode in ("RGB", "L", "CMYK")),
    (".jpg", "RGB", {"progressive": True}),
    *((".png", mode, {}) for mode in ("RGB", "L", "LA", "RGBA", "P", "1", "I;16")),
    (".gif", "P", {}),
    *((".bmp", mode, {}) for mode in ("RGB", "L")),
    *((".tif", mode, {}) for mode in ("RGB", "F", "LAB")),
    (".tif", "L", {"compression": "tiff_lzw"}),
    *((".webp", mode, {}) for mode in ("RGB", "RGBA")),
    (".ppm", "RGB", {}),
    (".pgm", "L", {}),
    (".pbm", "1", {}),
]


def picture(path: Path, rng: random.Random, mode: str = "RGB", size: tuple[int, int] = (40, 32), **options) -> None:
    pixels = np.frombuffer(rng.randbytes(5 * 7 * 3), np.uint8).reshape(5, 7, 3)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.merge("LAB", image.split())
    else:
        image = image.convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def write_pictures(root: Path) -> list[tuple[str, str]]:
    """A folder a class below `root`/images; returns (path below root, class) of each."""
    listed = [
        (f"images/{label}/{n}{'.png' if n % 2 else '.jpg'}", label) for label, count in CLASSES.items() for n in range(count)
    ]
    for path, _ in listed:
        picture(root / path, random.Random(path))
    return listed
