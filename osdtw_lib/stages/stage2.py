"""Notebook 05: one fully shared network, trained with the selected weights w_A and 1 - w_A (section 5)."""

from __future__ import annotations

from ..artifacts.artifact import Writer
from ..methods import osdtw
from ..models.weights import weights
from .networks import started
from .pipeline import train
from .run import Run
from .selection import chosen


def parameters(run: Run) -> dict:
    return run.dump("stage2", "likelihood", "logit_adjustment", "recipe") | {"head_weight": chosen(run)["head_weight"]}


def make(run: Run, write: Writer) -> None:
    network = osdtw.two_branches(started(run))
    train(run, write, network, [osdtw.joint(run.problem, chosen(run)["head_weight"])], "stage2", "stage2")
    write.tensors("network", weights(network))
