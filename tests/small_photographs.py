"""A few noisy photographs named by list files in ImageNet-LT's form, and what a recipe for photographs asks for."""

from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = (28, 15, 9, 6, 4, 3)  # training images a class
TEST = 3
RECIPE = {
    "batch_size": 16,
    "micro_batch": 4,
    "random_crop": [0.5, 1.0],
    "flip": True,
    "rand_augment": [9, 0.5],
    "mixup": 0.8,
    "cutmix": 1.0,
    "random_erasing": 0.25,
    "layer_decay": 0.75,
}


def photograph(path, label, rng):
    """A noisy picture whose colour tells the class, in the sizes and modes that real trees have."""
    height, width = rng.integers(36, 60, 2)
    base = np.array([(40 * label) % 256, (90 * label + 30) % 256, 255 - 40 * label])
    pixels = (base + rng.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert("CMYK" if rng.random() < 0.1 else "RGB").save(path, quality=90)


def write_photographs(folder: Path) -> dict:
    """images/ and two list files in the published form, in `folder`; returns the section `data` that names them."""
    rng = np.random.default_rng(0)
    for part, counts in (("train", COUNTS), ("val", [TEST] * len(COUNTS))):
        lines = []
        for label, count in enumerate(counts):
            for i in range(count):
                name = f"{part}/n0000000{label}/n0000000{label}_{i} copy.JPEG"
                photograph(folder / "images" / name, label, rng)
                lines.append(f"{name} {label}\n")
        (folder / f"LT_{part}.txt").write_text("".join(lines))
    lists = {part: str(folder / f"LT_{name}.txt") for part, name in (("train", "train"), ("test", "val"))}
    return {"dataset": "files", "root": str(folder / "images")} | lists
