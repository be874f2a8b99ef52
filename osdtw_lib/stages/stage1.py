"""Notebook 03: each task alone (Eq. 14), from the same start, on the same batches."""

from __future__ import annotations

from ..artifacts.artifact import Writer
from ..longtail import TASKS
from ..methods import osdtw
from ..models.weights import weights
from .networks import started
from .pipeline import train
from .run import Run


def parameters(run: Run) -> dict:
    own = {"own_over": "the whole batch"} if run.config.stage1.samples == "own" else {}
    return run.dump("stage1", "likelihood", "logit_adjustment", "head_share", "recipe") | own


def make(run: Run, write: Writer) -> None:
    networks = osdtw.two_networks(started(run))
    train(run, write, networks, [osdtw.alone(run.problem)], "stage1", "stage1")
    for task in TASKS:
        write.tensors(task, weights(networks[task]))
