"""How a training step grows: with images, classes (10 to 8,142), blocks, and processes that share it.

    python benchmarks/growth.py [--quick] [--out FOLDER]

The digits' Stage 2 (one encoder, two decoders) on random images of 28 px on the CPU, through the batches that stages
read; one thing varied at a time, all values of it in interleaved rounds. A ratio is the median over the rounds of a
value's time an image by the first value's in the same round. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import contextlib
import dataclasses
import io
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from common import arguments, machine, show, write
from steps import trainings
from train import Nowhere, Watched

from osdtw_lib.backend import distributed
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Training
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.training.loop import fit

COLUMNS = ["against", "value", "ms_per_image", "ratio", "rounds"]


@dataclass(frozen=True)
class Case:
    images: int = 2048
    classes: int = 10
    blocks: int = 12
    processes: int = 1
    width: int = 64


VARIED = {
    "images": (512, 2048, 8192, 16384),
    "classes": (10, 100, 1000, 8142),  # 8,142: iNaturalist 2018
    "blocks": (3, 6, 12, 24),
    "processes": (1, 2),
}
QUICK = {"images": (64, 128), "classes": (10, 8142), "processes": (1, 2)}
SMALL = Case(images=64, blocks=1, width=16)


def train_twice(case: Case, said: str) -> None:
    """Two epochs in this process; the milliseconds an image of the second go into the file `said`."""
    changes = [f"model.depth={case.blocks}", f"model.width={case.width}", "recipe.micro_batch=32", "device=cpu"]
    config = load_config(PROJECT / "params" / "mnist_lt.yaml", changes)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (case.images, 28, 28, 1), np.uint8), rng.integers(0, case.classes, case.images)
    batches, times = Batches(LabelledImages(pixels, labels), config, (28, 28), case.classes), {}
    watched = Watched(batches, lambda number: times.setdefault(number, time.perf_counter()))
    training = trainings(config, case.classes, "cpu")["stage2"]
    phase = dataclasses.replace(training.phase, length=Training(epochs=2))
    with contextlib.redirect_stdout(io.StringIO()):
        fit(training.prepared(), phase, watched, config.recipe, Nowhere(), 0, "benchmark")
    if distributed.rank() == 0:
        Path(said).write_text(str(1e3 * (times[2 * len(batches)] - times[len(batches)]) / case.images), encoding="utf-8")


def milliseconds(case: Case) -> float:
    """Of an image of an epoch, processes started before."""
    with tempfile.TemporaryDirectory() as folder:
        said = os.path.join(folder, "ms")
        if case.processes > 1:
            distributed.launch(train_twice, (case, said), case.processes, "cpu")
        else:
            train_twice(case, said)
        return float(Path(said).read_text(encoding="utf-8"))


def measure(quick: bool, rounds: int) -> pd.DataFrame:
    rows, base = [], SMALL if quick else Case()
    for against, values in (QUICK if quick else VARIED).items():
        times = {value: [] for value in values}
        for _ in range(rounds):
            for value in values:
                times[value].append(milliseconds(dataclasses.replace(base, **{against: value})))
        for value, found in times.items():
            ratios = [a / b for a, b in zip(found, times[values[0]])]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds"
            rows.append((against, value, median(found), median(ratios), spread))
    return pd.DataFrame(rows, columns=COLUMNS)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    print(machine(), flush=True)
    table = measure(options.quick, 1 if options.quick else 5)
    show("Growth of a training epoch, digits' Stage 2, CPU", table)
    write(table, options.out, "growth.csv")


if __name__ == "__main__":
    import growth  # other processes find its functions under this name

    growth.main()
