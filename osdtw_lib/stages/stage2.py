"""Notebook 05: one fully shared network, trained with the selected weights w_A and 1 - w_A (section 5)."""

from __future__ import annotations

from ..artifacts.artifact import Artifact, Writer
from ..methods import osdtw
from ..models.two_branch import TwoBranchViT
from ..models.weights import weights
from ..proxy.measured_bias import merged_encoder
from .networks import stage1_networks, started
from .pipeline import train
from .proxy_inputs import merge_of
from .run import Run
from .selection import chosen


def parameters(run: Run) -> dict:
    merge = run.dump("direct")["direct"] if run.config.stage2.from_merge else {}
    how = {"merge": {key: merge[key] for key in ("power", "damping")}} if merge else {}
    own = run.dump("stage2", "likelihood", "logit_adjustment", "head_share", "recipe")
    return own | {"head_weight": chosen(run)["head_weight"]} | how


def inputs(run: Run) -> tuple[Artifact, ...]:
    """A merge is made of Stage 1's networks too."""
    names = ("start", "stage1", "fisher") if run.config.stage2.from_merge else ("start",)
    return tuple(run.artifact(name) for name in names)


def make(run: Run, write: Writer) -> None:
    weight = chosen(run)["head_weight"]
    network = merged(run, weight) if run.config.stage2.from_merge else osdtw.two_branches(started(run))
    train(run, write, network, [osdtw.joint(run.problem, weight)], "stage2", "stage2")
    write.tensors("network", weights(network))


def merged(run: Run, head_weight: float) -> TwoBranchViT:
    """Stage 1's encoders merged at this weight, under both tasks' heads."""
    networks = stage1_networks(run)
    fishers, damping, power = merge_of(run)
    return osdtw.assemble(run.problem, merged_encoder(networks, fishers, head_weight, damping, power), networks, run.n_depths)
