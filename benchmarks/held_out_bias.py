"""Does sharing pay on images the networks were not trained on? Stage 1 on halves of the training images, scored on the others.

    python benchmarks/held_out_bias.py [PARAMS.yaml] [--quick] [--out FOLDER]

The measured bias of notebook 04 is of training images: what merging costs there, not what sharing saves. Here each half of every
class trains Stage 1's two networks, as many steps as the whole, from the run's start; both encoders are merged as the run's are,
and scored on the other half. One number then holds both: below 0, sharing pays. Beside it stand the same networks on their own
images, the run's own ones on theirs, and those on the test images, at which one may look from outside alone. Columns:
benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
from functools import cached_property

import numpy as np
import pandas as pd
from common import machine, parser, show, write
from end_to_end import TINY

from osdtw_lib.artifacts.lock import held
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.proxy.measured_bias import direct_bias
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import stage1_networks
from osdtw_lib.stages.proxy_inputs import merge_of
from osdtw_lib.stages.run import Run
from osdtw_lib.verdict.seed_run import SeedRun

FOLDS = 2
CELL = ["shared_depth", "head_weight"]


class Half(SeedRun):
    """The run without one of two halves of its training images, which test; its start stays."""

    copies_are_leaks = False

    def __init__(self, run: Run, number: int):
        self.number = number
        super().__init__(run, run.config.seed, top=run.folder / "halves" / str(number))
        length = self.config.stage1
        self.config = self.config.model_copy(update={"stage1": length.lasting(length.epochs * FOLDS)})

    @cached_property
    def indices(self):
        train, labels = self.of.indices[0], self.of.train.labels
        out = np.zeros(len(train), bool)
        for label in np.unique(labels):
            own = np.random.default_rng((self.of.config.seed, int(label))).permutation(np.flatnonzero(labels == label))
            out[own[(np.arange(len(own)) + label) % FOLDS == self.number]] = True
        return train[~out], train[out]

    def artifact(self, name):
        return self.of.artifact(name) if name == "start" else super().artifact(name)


def scored(run: Run, images, where: str) -> pd.DataFrame:
    """A row a cell: what the prediction's loss gains by merging, nats an image, classes alike; and how many images it is over."""
    fishers, damping, power = merge_of(run)
    counts = np.bincount(images.labels, minlength=len(run.class_names))
    batches = list(run.batches(images, run.config.direct.batch_size))
    found = direct_bias(stage1_networks(run), fishers, run.likelihoods, batches, counts, damping, power)
    return found[[*CELL, "bias_prediction"]].rename(columns={"bias_prediction": "excess"}).assign(where=where, images=len(images))


def measure(run: Run) -> pd.DataFrame:
    """A row a place and cell; the two halves' means, by their images."""
    parts = []
    for number in range(FOLDS):
        half = Half(run, number)
        for stage in ("split", "stage1", "fisher"):
            execute(half, stage, quiet=True)
        parts += [scored(half, half.test, "the other half"), scored(half, half.train, "their own half")]
    parts += [scored(run, run.train, "whole, training images"), scored(run, run.test, "whole, test images")]
    every = pd.concat(parts)
    every["sum"] = every["excess"] * every["images"]
    sums = every.groupby(["where", *CELL], sort=False)[["sum", "images"]].sum()
    return sums["sum"].div(sums["images"]).rename("excess").reset_index()


def best(table: pd.DataFrame) -> pd.DataFrame:
    """A row a place and depth: the least excess over head weights that train both tasks, and its head weight."""
    both = table[table["head_weight"].between(0, 1, inclusive="neither")]
    return both.loc[both.groupby(["where", "shared_depth"], sort=False)["excess"].idxmin()].reset_index(drop=True)


def main() -> None:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("params", nargs="?", default=str(PROJECT / "params" / "mnist_lt.yaml"))
    asked = made.parse_args()
    run = Run(load_config(asked.params, [*TINY, f"outputs={asked.out}"] if asked.quick else []))
    with held(run.locked):
        for stage in ("split", "start", "stage1", "fisher"):
            execute(run, stage, quiet=True)
        table = measure(run)
    print(machine())
    wide = best(table).pivot(index="shared_depth", columns="where", values="excess")
    show(f"{run.config.name}: nats by merging up to a depth, at the best head weight", wide.round(3).reset_index())
    write(table, asked.out, f"held_out_bias_{run.config.name}.csv")


if __name__ == "__main__":
    main()
