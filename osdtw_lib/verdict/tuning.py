"""The same small tuning for every row: TRIALS trainings each, judged on a validation part of the training images.

The test images are never looked at. A trial other than the paper's own values is taken only where it is ahead of them by more
than a standard error of the paired difference.
"""

from __future__ import annotations

import functools
import itertools
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..evaluation.intervals import paired_test
from ..methods import osdtw
from ..stages.run import Run
from .seed_run import SeedRun

TRIALS = 8
RATES = (0.5, 2.0)  # of the peak learning rate: a trial each
SPACE = {"weight_decay": (0.0, 0.01, 0.15, 0.5, 1.5)}  # of a row that names no parameters of its own to tune
MOST_A_CLASS, SHARE, FEWEST = 20, 0.1, 5  # validation images: a tenth of a class, of classes that have so many at least


def values_to_try(space: dict[str, tuple] | None, rates: tuple[float, ...] = RATES, own: dict | None = None) -> list[dict]:
    """TRIALS dictionaries at most: the paper's own values (nothing), the rates, then points of the space in a fixed order,
    but for `own`, which the first has already."""
    space = SPACE if space is None else space
    points = [point for values in itertools.product(*space.values()) if (point := dict(zip(space, values))) not in ({}, own)]
    shuffled = [points[i] for i in np.random.default_rng(0).permutation(len(points))]
    return [{}, *({"rate": rate} for rate in rates), *shuffled][:TRIALS]


def values_tried(run: SeedRun, name: str) -> list[dict]:
    """Of a method, or of "osdtw"; a method that has no training of its own has no rate to try."""
    if name not in run.asked:
        return values_to_try(osdtw.Refined.space, own={"likelihood": run.config.likelihood, "refinement": 1.0})
    kind = run.asked[name][0]
    trains = not kind.after or "learning_rate" in kind.Parameters.model_fields
    if kind.space or kind.after:  # what stands on another's network does not change that one's weight decay
        return values_to_try(kind.space or {}, RATES if trains else ())
    return values_to_try(None, own={"weight_decay": run.config.recipe.weight_decay})


def validation(labels: np.ndarray, seed: int) -> np.ndarray:
    """bool (N,): which training images validate."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held = min(MOST_A_CLASS, max(1, round(SHARE * len(members)))) if len(members) >= FEWEST else 0
        chosen[np.random.default_rng((seed, int(label), 1)).permutation(members)[:held]] = True
    return chosen


def tried(run: SeedRun, name: str, values: dict, top: Path) -> SeedRun:
    """The run with a trial's values for one row, its results under `top`; nothing to change: the run itself.

    `rate` is times the learning rate of every training of the whole network, weight_decay the recipe's, the rest are the
    method's own; of OSDTW the likelihood, and `refinement`, times the length of Stage 3. A method that stands on another's
    network has a rate of its own, and leaves that one, which is shared, alone.
    """
    if not values:
        return run
    config, kind = run.config, run.asked.get(name, (None, None))[0]
    own = run.asked[name][1].model_dump(mode="json") if kind else {}
    changed, after = {}, kind.after if kind else None
    if "rate" in values and after:
        own |= {"learning_rate": own["learning_rate"] * values["rate"]} if "learning_rate" in own else {}
    elif "rate" in values:
        for stage in ("stage1", "stage2", "stage3"):
            length = getattr(config, stage)
            peak = length.learning_rate or config.recipe.learning_rate
            changed[stage] = length.model_copy(update={"learning_rate": peak * values["rate"]})
    in_recipe = {"weight_decay"} - set(kind.Parameters.model_fields if kind else ())  # a method may have one of its own
    if in_recipe & values.keys():
        changed["recipe"] = config.recipe.model_copy(update={"weight_decay": values["weight_decay"]})
    if kind is None and "refinement" in values:
        epochs = max(1, round(config.stage3.epochs * values["refinement"]))
        changed |= {"likelihood": values["likelihood"], "stage3": config.stage3.lasting(epochs)}
    own |= {key: value for key, value in values.items() if key not in {"rate", *in_recipe}}
    key = next((k for k in config.baselines if k == name or Path(k).stem == name), name)
    changed |= {"baselines": config.baselines | {key: own}} if kind else {}
    return run.changed(config.model_copy(update=changed), top, ("split", "start", *([f"baselines/{after}"] if after else [])))


class TuningRun(SeedRun):
    """The run without its validation images, which test; a start of its own, made without them too."""

    copies_are_leaks = False  # of a training image both may be in the training part

    def __init__(self, run: Run):
        super().__init__(run, run.config.seed, top=run.folder / "verdict" / "tuning")

    @cached_property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        train, _ = self.of.indices
        held = validation(self.of.train.labels, self.of.config.seed)
        return train[~held], train[held]


@functools.lru_cache(maxsize=4)
def tuning_run(run: Run) -> TuningRun:
    """TuningRun, opened once for each run."""
    return TuningRun(run)


def chosen(rows: list[dict], labels: np.ndarray, tried: list[dict]) -> tuple[dict, pd.DataFrame]:
    """(values to take, a line a trial: trial, values, score, difference, standard_error, chosen) of a row's trials, in order.

    rows: as many as `tried`, on validation images with these labels (N,); None: that trial failed, and counts as all wrong.
    Scores are class means in %, each class alike; the standard error is that of other images (paired_test's v), and where no
    class has two of them nothing is known of it and the paper's own values stay.
    """
    right = np.array([np.asarray(row["predicted"]) == labels if row else np.zeros(len(labels), bool) for row in rows])
    scores = 100 * np.array([[hits[labels == k].mean() for k in np.unique(labels)] for hits in right]).mean(1)
    tests = [paired_test(hits[None], right[:1], labels) for hits in right]
    ahead, errors = np.array([test.mean for test in tests]), np.sqrt([test.v for test in tests])
    best = int(scores.argmax())
    best = best if ahead[best] > errors[best] else 0
    table = pd.DataFrame(
        {
            "trial": range(len(rows)),
            "values": [json.dumps(values) for values in tried],
            "score": scores,
            "difference": ahead,
            "standard_error": errors,
            "chosen": [i == best for i in range(len(rows))],
        }
    )
    return tried[best], table
