"""The proxy of a run, from Stage 1's results: whole, in bins, and its measured bias."""

from __future__ import annotations

import pandas as pd

from ..longtail import TASKS
from ..models.vit import depth_of
from ..models.weights import weights
from ..proxy.binned import ProxySummary
from ..proxy.exact import Proxy
from .networks import stage1_networks, start_network
from .pipeline import require
from .run import Run


def load_proxy(run: Run) -> Proxy:
    """The proxy of this run's Stage 1: Fishers, mismatch, and the way travelled from the start."""
    made, networks = require(run, "fisher"), stage1_networks(run)
    depths = depth_of(networks["head"])
    moved = {t: weights(networks[t]) for t in TASKS}
    mismatch = {n: (moved["tail"][n] - p).cpu() for n, p in moved["head"].items() if depths[n] <= run.n_depths}
    distance = []
    for task in TASKS:
        origin = weights(start_network(run, run.likelihoods[task].n_outputs))
        distance.append(sum(float((p - origin[n]).double().square().sum()) for n, p in moved[task].items()))
    return Proxy(made.tensors("head"), made.tensors("tail"), mismatch, depths, len(run.train), tuple(distance))


def merge_of(run: Run) -> tuple[dict, float, float]:
    """How the measured bias merges Stage 1's encoders: both Fishers, damping and power, for measured_bias.merged_encoder."""
    settings = run.config.direct
    damping = load_proxy(run).evidence() if settings.damping == "evidence" else settings.damping
    return {task: run.read("fisher", task) for task in TASKS}, damping, settings.power


def load_summary(run: Run) -> ProxySummary:
    """The proxy gathered into bins, for the explorer: any weight and damping within milliseconds."""
    made = require(run, "proxy")
    encoder, decoders, evidence = made.table("encoder_bins"), made.table("decoder_bins"), made.notes()["evidence"]
    return ProxySummary(encoder, decoders, run.n_depths, len(run.train), evidence)


def measured_bias(run: Run) -> pd.DataFrame:
    """The direct bias in the loss the parameter file selects with: shared_depth, head_weight, bias."""
    table = require(run, "direct").table("bias")
    return table.rename(columns={f"bias_{run.config.selection.loss}": "bias"})[["shared_depth", "head_weight", "bias"]]
