"""Notebook 06: assembly (Eq. 15), then the decoders refined with the shared encoder frozen (section 6.2), or not."""

from __future__ import annotations

from ..artifacts.artifact import Writer
from ..methods import osdtw
from ..models.weights import weights
from .pipeline import train
from .run import Run
from .selection import chosen


def parameters(run: Run) -> dict:
    return run.dump("stage3", "recipe") | {"shared_depth": chosen(run)["shared_depth"]}


def make(run: Run, write: Writer) -> None:
    depth = chosen(run)["shared_depth"]
    network = osdtw.Assembled(run.problem, depth).network(run.read)
    train(run, write, network, [osdtw.refine(run.problem)], "stage3", "refinement")
    write.tensors("network", weights(network))
    write.json("predictor", run.problem.described(shared_depth=depth))
