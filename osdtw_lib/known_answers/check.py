"""python -m osdtw_lib check: a small run from nothing, each stage's numbers against the bands they are known to lie in."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..backend.progress import clock
from ..config.load import load_config
from ..longtail import TASKS
from ..stages import execute
from ..stages.networks import stage1_networks
from ..stages.pipeline import require
from ..stages.run import Run
from .bands import BANDS, SETTINGS

LAYER = "blocks.0.mlp.fc1.weight"


def check(overrides: list[str] = ()) -> int:
    """Print a line a number as its stage is done. Returns 0, or 1 where one is out of its band; the last line says which link
    of the chain is off first, since what follows from it is off too."""
    started, seen, off = time.monotonic(), 0, []
    for name, value in numbers(overrides):
        if name not in BANDS:  # a row of a method of one's own
            continue
        band, seen = BANDS[name], seen + 1
        fits = bool(band.low <= value <= band.high)
        print(
            f"{band.stage:<10} {band.what:<52} {value:10.4g}   {band.low:g} to {band.high:g}   {'ok' if fits else 'OFF'}",
            flush=True,
        )
        off += [] if fits else [band]
    took = clock(time.monotonic() - started)
    if off:
        print(f"{len(off)} of {seen} numbers are off, first of stage {off[0].stage} ({off[0].what}): look there; {took}")
        return 1
    print(f"all {seen} numbers are where they should be; {took}")
    return 0


def numbers(overrides: list[str] = ()) -> Iterator[tuple[str, float]]:
    """(name in BANDS, value), as the stages get done, in a folder that is removed again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.yaml"
        path.write_text(json.dumps(SETTINGS | {"outputs": folder}), encoding="utf-8")
        run = Run(load_config(path, list(overrides)))
        for stage, read in READ.items():
            with contextlib.redirect_stdout(io.StringIO()):
                execute(run, stage)
            yield from read(run)


def _split(run: Run) -> Iterator[tuple[str, float]]:
    yield "images", len(run.train)
    yield "mean pixel", float(run.train.pixels.mean())


def _start(run: Run) -> Iterator[tuple[str, float]]:
    error = require(run, "start").table("curves")["error"]
    yield "painting, first", error.iloc[0]
    yield "painting, last", error.iloc[-1]


def _stage1(run: Run) -> Iterator[tuple[str, float]]:
    curves = require(run, "stage1").table("curves")
    for task in TASKS:
        yield f"{task}, first", curves[task].iloc[0]
        yield f"{task}, last", curves[task].iloc[-1]


def _fisher(run: Run) -> Iterator[tuple[str, float]]:
    for task in TASKS:
        yield f"{task}, trace", sum(float(values.double().sum()) for values in run.read("fisher", task).values())
    yield "by definition", float(run.read("fisher", "head")[LAYER].double().sum()) / _by_definition(run)


def _by_definition(run: Run) -> float:
    """The trace of a layer's Fisher of the head's network: squared gradients, an image after the other."""
    network, likelihood = stage1_networks(run)["head"], run.likelihoods["head"]
    weight, total = network.get_parameter(LAYER), 0.0
    for images, labels in run.batches(run.train, 64):
        for i in range(len(images)):
            [gradient] = torch.autograd.grad(likelihood(network(images[i : i + 1]), labels[i : i + 1]).sum(), weight)
            total += float(gradient.double().square().sum())
    return total / len(run.train)


def _direct(run: Run) -> Iterator[tuple[str, float]]:
    """Of the middle depth at equal weights, and of sharing everything."""
    bias = require(run, "direct").table("bias").set_index(["head_weight", "shared_depth"])["bias_prediction"]
    yield "bias, C = 2", bias[0.5, 2]
    yield "bias, C = L", bias[0.5, run.n_depths]


def _proxy(run: Run) -> Iterator[tuple[str, float]]:
    picks = require(run, "proxy").table("picks").set_index("form")
    yield "paper, depth", picks.at["paper", "shared_depth"]
    yield "paper, weight", picks.at["paper", "head_weight"]


def _stage2(run: Run) -> Iterator[tuple[str, float]]:
    curves = require(run, "stage2").table("curves")
    yield "joint, last", float(np.sum([curves[task].iloc[-1] for task in TASKS]))


def _tables(run: Run) -> Iterator[tuple[str, float]]:
    accuracy = require(run, "tables").table("accuracy").set_index("method")["all"]
    for row in accuracy.index:
        yield f"accuracy, {row}", accuracy[row]


READ = {
    "split": _split,
    "start": _start,
    "stage1": _stage1,
    "fisher": _fisher,
    "direct": _direct,
    "proxy": _proxy,
    "stage2": _stage2,
    "stage3": lambda run: iter(()),
    "baselines": lambda run: iter(()),
    "tables": _tables,
}
assert {band.stage for band in BANDS.values()} <= READ.keys()
