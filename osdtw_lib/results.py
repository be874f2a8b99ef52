"""What earlier stages made, as objects: the selection, networks with their weights, the proxy."""

from __future__ import annotations

import json

import pandas as pd
import torch

from .artifacts import Artifact, write_text
from .config import BASELINES
from .losses import baseline_likelihood
from .proxy import Proxy
from .runs import TASKS, Run, notebook_of
from .summary import ProxySummary
from .vit import TwoBranchViT, VisionTransformer, copy_encoder, depth_of, load_weights, weights


def require(run: Run, stage: str, **where) -> Artifact:
    """The results of an earlier stage. Raises UserError naming the notebook to run where they are not there."""
    artifact = run.artifact(stage, **where if stage in ("stage2", "stage3") else {})
    return artifact.require(f"run notebook {notebook_of(stage)} first (./run_all.sh --from {notebook_of(stage)[:2]})")


def cell(selected: dict) -> dict:
    """What the artifacts of Stage 2 and 3 depend on besides the parameter file."""
    return {"head_weight": selected["head_weight"], "shared_depth": selected["shared_depth"]}


def selection(run: Run) -> dict:
    """The choice Stage 2 uses: shared_depth, head_weight, form, damping, total, chosen_by.

    outputs/NAME/selection.json shows it; should that file have been edited, it is put right from the proxy's.
    """
    made = require(run, "proxy")
    text = (made.folder / "selection.json").read_text()
    shown = run.folder / "selection.json"
    if not shown.exists() or shown.read_text() != text:
        if shown.exists():
            print("selection.json is not what the proxy wrote: put right (name shared_depth and head_weight in the "
                  "parameter file to choose yourself)")
        write_text(shown, text)
    return json.loads(text)


def start_network(run: Run, n_outputs: int) -> VisionTransformer:
    """A fresh network whose encoder is the starting point."""
    network = run.vit(n_outputs)
    source = load_weights(run.vit(len(run.class_names)), run.artifact("start").tensors("weights"))
    copy_encoder(source, network, run.n_depths)
    return network


def stage1_networks(run: Run) -> dict[str, VisionTransformer]:
    made = run.artifact("stage1")
    return {t: load_weights(run.vit(run.likelihoods[t].n_outputs), made.tensors(t)).eval() for t in TASKS}


def stage2_network(run: Run, head_weight: float) -> TwoBranchViT:
    made = run.artifact("stage2", head_weight=head_weight)
    return load_weights(run.two_branch(run.n_depths), made.tensors("network")).eval()


def assembled(run: Run, shared_depth: int, decoders: str = "stage1") -> TwoBranchViT:
    """Eq. (15): Stage 2's first `shared_depth` depths under the decoders of Stage 1 (or of Stage 2 itself)."""
    joint = stage2_network(run, selection(run)["head_weight"])
    branches = stage1_networks(run) if decoders == "stage1" else {"head": joint.head, "tail": joint.tail}
    network = run.two_branch(0)
    for task in TASKS:
        load_weights(getattr(network, task), weights(branches[task]))
        copy_encoder(joint.head, getattr(network, task), shared_depth)
    return TwoBranchViT(network.head, network.tail, shared_depth)


def trained(run: Run, method: str, shared_depth: int):
    """(network: images -> {task: logits}, {task: likelihood}) of a row of the accuracy table."""
    if method in BASELINES:
        vit = run.vit(len(run.class_names))
        load_weights(vit, run.artifact(f"baselines/{method}").tensors("network"))
        likelihood = baseline_likelihood(method, run.class_counts, run.config.logit_adjustment)
        return _Single(vit), {"all": likelihood}
    selected = selection(run)
    if method == "stage1":  # two networks side by side: nothing is shared
        networks = stage1_networks(run)
        network = TwoBranchViT(networks["head"], networks["tail"], 0)
    elif method == "stage2":
        network = stage2_network(run, selected["head_weight"])
    elif method == "osdtw_assembled":
        network = assembled(run, shared_depth, run.config.stage3.decoders)
    else:
        network = load_weights(run.two_branch(shared_depth), run.artifact("stage3", **cell(selected)).tensors("network"))
    return network, run.likelihoods


class _Single(torch.nn.Module):
    """One network under the name "all", so that it scores as a two-branch one does."""

    def __init__(self, network: VisionTransformer):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"all": self.network(images)}


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


def load_summary(run: Run) -> ProxySummary:
    """The proxy gathered into bins, for the explorer: any weight and damping within milliseconds."""
    made = require(run, "proxy")
    encoder, decoders, evidence = made.table("encoder_bins"), made.table("decoder_bins"), made.notes()["evidence"]
    return ProxySummary(encoder, decoders, run.n_depths, len(run.train), evidence)


def measured_bias(run: Run) -> pd.DataFrame:
    """The direct bias under the prior the parameter file selects with: shared_depth, head_weight, bias."""
    table = require(run, "direct").table("bias")
    return table.rename(columns={f"bias_{run.config.selection.prior}": "bias"})[["shared_depth", "head_weight", "bias"]]
