"""Trained networks read back from the stages' results, and a fresh one at the starting point."""

from __future__ import annotations

import dataclasses

from ..methods import osdtw
from ..methods._base import Problem, Row
from ..models.two_branch import TwoBranchViT
from ..models.vit import ViT
from ..models.weights import copy_encoder, load_weights
from .run import Run


def started(run: Run) -> Problem:
    """The problem, its networks at the starting point: their encoder is that of stage `start`."""
    return dataclasses.replace(run.problem, vit=lambda n_outputs: start_network(run, n_outputs))


def start_network(run: Run, n_outputs: int) -> ViT:
    """A fresh network whose encoder is the starting point."""
    network = run.vit(n_outputs)
    source = load_weights(run.vit(len(run.class_names)), run.read("start", "weights"))
    copy_encoder(source, network, run.n_depths)
    return network


def stage1_networks(run: Run) -> dict[str, ViT]:
    return osdtw.Stage1(run.problem).networks(run.read)


def stage2_network(run: Run) -> TwoBranchViT:
    return osdtw.Stage2(run.problem).network(run.read)


def titles_of(run: Run) -> dict[str, str]:
    """{method: what a reader calls it}, of every row."""
    return {name: row.title for name, row in rows(run).items()}


def rows(run: Run, shared_depth: int | None = None) -> dict[str, Row]:
    """The rows of the accuracy table, in order, by name: the baselines asked for, then OSDTW's at a shared depth."""
    return run.methods | {name: row(run.problem, shared_depth) for name, row in osdtw.ROWS.items()}


def share_ratios(run: Run) -> dict[str, float]:
    """{method: the largest class share to the smallest for which its scores stand}, to three digits: for a key."""
    return {name: float(f"{row.shares.max() / row.shares.min():.3g}") for name, row in rows(run).items()}
