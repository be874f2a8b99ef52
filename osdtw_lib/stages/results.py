"""What earlier stages made, as objects: the selection, networks with their weights, the proxy."""

from __future__ import annotations

import json
import math

import pandas as pd
import torch

from ..artifacts.artifact import Artifact, write_text
from ..config.schema import BASELINES
from ..explorer.state import Landscape
from ..models.likelihoods import baseline_likelihood
from ..proxy.exact import Proxy
from .run import TASKS, Run, notebook_of
from ..proxy.grid import FORMS
from ..proxy.binned import ProxySummary
from ..models.vit import TwoBranchViT, VisionTransformer, copy_encoder, costs_by_depth, depth_of, load_weights, weights


def require(run: Run, stage: str, **where) -> Artifact:
    """The results of an earlier stage. Raises UserError naming the notebook to run where they are not there."""
    artifact = run.artifact(stage, **where if stage in ("stage2", "stage3") else {})
    return artifact.require(f"run notebook {notebook_of(stage)} first (./run_all.sh --from {notebook_of(stage)[:2]})")


def cell(selected: dict) -> dict:
    """What the artifacts of Stage 2 and 3 depend on besides the parameter file."""
    return {"head_weight": selected["head_weight"], "shared_depth": selected["shared_depth"]}


def selection(run: Run) -> dict:
    """The choice Stage 2 uses: shared_depth, head_weight, form, damping, total, chosen_by.

    outputs/NAME/selection.json shows it: the proxy's, or one made by hand in the explorer from the same proxy. Should
    that file have been edited otherwise, it is put right from the proxy's.
    """
    text = _proposal(run)
    by_hand = chosen_by_hand(run)
    if by_hand:
        return by_hand
    shown = run.folder / "selection.json"
    if not shown.exists() or shown.read_text() != text:
        if shown.exists():
            print("selection.json is not what the proxy wrote: put right (name shared_depth and head_weight in the "
                  "parameter file to choose yourself, or choose in the explorer of notebook 04)")
        write_text(shown, text)
    return json.loads(text)


def proposed(run: Run) -> dict:
    """The proxy's own choice, whatever was chosen by hand."""
    return json.loads(_proposal(run))


def _proposal(run: Run) -> str:
    return (require(run, "proxy").folder / "selection.json").read_text()


def choose(run: Run, shared_depth: int, head_weight: float, form: str, damping: float) -> dict:
    """Choose by hand: selection.json then holds this cell until the proxy changes or `choose_proposed` is called."""
    at = load_summary(run).grid([shared_depth], [head_weight], form, damping, measured_bias(run)).iloc[0]
    used = 0.0 if form == "paper" else damping
    total = float(at["total"]) if math.isfinite(at["total"]) else None  # JSON has no infinity
    chosen = {"shared_depth": shared_depth, "head_weight": head_weight, "total": total, "form": form, "damping": used}
    chosen |= {"chosen_by": "hand", "proxy": require(run, "proxy").key}
    write_text(run.folder / "selection.json", json.dumps(chosen, indent=1))
    return chosen


def choose_proposed(run: Run) -> dict:
    """Back to the proxy's choice."""
    write_text(run.folder / "selection.json", _proposal(run))
    return selection(run)


def chosen_by_hand(run: Run) -> dict | None:
    """What selection.json holds if it is a choice by hand made from this very proxy; None for anything else."""
    try:
        chosen = json.loads((run.folder / "selection.json").read_text())
    except (OSError, ValueError):
        return None
    keys = {"shared_depth", "head_weight", "total", "form", "damping", "chosen_by", "proxy"}
    if not isinstance(chosen, dict) or chosen.keys() != keys or chosen["chosen_by"] != "hand":
        return None
    numbers = [chosen["head_weight"], chosen["damping"], 0 if chosen["total"] is None else chosen["total"]]
    if type(chosen["shared_depth"]) is not int or any(type(n) not in (int, float) or not math.isfinite(n) for n in numbers):
        return None
    fits = 0 <= chosen["shared_depth"] <= run.n_depths and 0 <= chosen["head_weight"] <= 1 and chosen["damping"] >= 0
    made_here = chosen["form"] in FORMS and chosen["proxy"] == run.artifact("proxy").key
    return chosen if fits and made_here else None


def origin(selected: dict) -> str:
    """Who chose, in words for a reader."""
    return {
        "hand": "chosen by hand in the explorer",
        "parameters": "named in the parameter file",
        "proxy": f"picked by the proxy, form “{selected['form']}”",
    }[selected["chosen_by"]]


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
    return joined(run, joint.head, branches, shared_depth)


def joined(run: Run, encoder: VisionTransformer, branches: dict[str, VisionTransformer], shared_depth: int) -> TwoBranchViT:
    """A new network: the first `shared_depth` depths of one network under the decoders of two others."""
    network = run.two_branch(0)
    for task in TASKS:
        load_weights(getattr(network, task), weights(branches[task]))
        copy_encoder(encoder, getattr(network, task), shared_depth)
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
    """The direct bias in the loss the parameter file selects with: shared_depth, head_weight, bias."""
    table = require(run, "direct").table("bias")
    return table.rename(columns={f"bias_{run.config.selection.loss}": "bias"})[["shared_depth", "head_weight", "bias"]]


def load_landscape(run: Run) -> Landscape:
    """Everything the explorer shows."""
    (head, tail, single) = (
        costs_by_depth(run.config.model, outputs)
        for outputs in (*(run.likelihoods[task].n_outputs for task in TASKS), len(run.class_names))
    )
    costs = pd.DataFrame(
        [
            # a shared depth counts once; what each network has for itself, in both
            {"shared_depth": depth} | {
                what: sum(head[i]) + sum(tail[i][depth:]) for i, what in enumerate(("parameters", "flops"))
            }
            for depth in range(run.n_depths + 1)
        ]
    )
    return Landscape(
        summary=load_summary(run),
        measured_bias=measured_bias(run),
        by_depth=require(run, "proxy").table("by_depth"),
        selected=selection(run),
        proposed=proposed(run),
        costs=costs,
        single=(sum(single[0]), sum(single[1])),
    )
