"""Generated JPEGs of many classes, named by lists as ImageNet-LT's are, and params/imagenet_lt.yaml over them."""

from __future__ import annotations

import numpy as np
from data import photographs

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.data import readers
from osdtw_lib.stages.run import Run

from .rows import Step

SIZES = {False: (1000, 3072, 1024), True: (8, 72, 16)}  # classes, images to train on, to test on
SMALL = (  # the network and the batch of --quick
    "model.image_size=32",
    "model.patch_size=16",
    "model.width=16",
    "model.depth=2",
    "model.heads=2",
    "stage0.decoder_width=16",
    "stage0.decoder_depth=1",
    "stage0.decoder_heads=2",
    "fisher.batch_size=16",
    "direct.images=16",
    "loader_workers=0",
)


def parameters(step: Step, *changes: str) -> list[str]:
    """What is to be changed of imagenet_lt.yaml, KEY=VALUE each; the files are written on first use, a minute at most."""
    folder, (classes, train, test) = step.work / "jpegs", SIZES[step.quick]
    if not (folder / "train.txt").exists():
        folder.mkdir(exist_ok=True)
        files = photographs(folder, train + test)
        share = np.geomspace(100, 1, classes) / np.geomspace(100, 1, classes).sum()
        counts = 1 + np.floor((train - classes) * share).astype(int)
        counts[0] += train - counts.sum()
        labels = np.concatenate([np.repeat(np.arange(classes), counts), np.arange(test) % classes])
        lines = [f"{name} {label}\n" for name, label in zip(files.names, labels)]
        (folder / "test.txt").write_text("".join(lines[train:]), encoding="utf-8")
        (folder / "train.txt").write_text("".join(lines[:train]), encoding="utf-8")
    own = [
        f"data.train={folder / 'train.txt'}",
        f"data.test={folder / 'test.txt'}",
        f"data.root={folder}",
        "data.val=null",
        "data.protocol=null",
        "model.init=masked_autoencoding",
        f"device={step.device.type}",
        f"outputs={step.work / 'outputs'}",
        "recipe.compile=false",
    ]
    return own + ([*SMALL, "recipe.batch_size=16", "recipe.micro_batch=8"] if step.quick else []) + list(changes)


def opened(step: Step, *changes: str) -> Run:
    """Its cache is read part by part, as that of a data set that is too large to lie on the device."""
    readers.ON_DEVICE_BYTES = min(0, readers.ON_DEVICE_BYTES)
    return Run(load_config(PROJECT / "params" / "imagenet_lt.yaml", parameters(step, *changes)))
