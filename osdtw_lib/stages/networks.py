"""Trained networks read back from the stages' results."""

from __future__ import annotations

import torch

from ..config.schema import BASELINES
from ..longtail import TASKS
from ..models.likelihoods import baseline_likelihood
from ..models.two_branch import TwoBranchViT
from ..models.vit import VisionTransformer
from ..models.weights import copy_encoder, load_weights, weights
from .run import Run


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


def assembled(run: Run, shared_depth: int, head_weight: float, decoders: str = "stage1") -> TwoBranchViT:
    """Eq. (15): Stage 2's first `shared_depth` depths under the decoders of Stage 1 (or of Stage 2 itself)."""
    joint = stage2_network(run, head_weight)
    branches = stage1_networks(run) if decoders == "stage1" else {"head": joint.head, "tail": joint.tail}
    return joined(run, joint.head, branches, shared_depth)


def joined(run: Run, encoder: VisionTransformer, branches: dict[str, VisionTransformer], shared_depth: int) -> TwoBranchViT:
    """A new network: the first `shared_depth` depths of one network under the decoders of two others."""
    network = run.two_branch(0)
    for task in TASKS:
        load_weights(getattr(network, task), weights(branches[task]))
        copy_encoder(encoder, getattr(network, task), shared_depth)
    return TwoBranchViT(network.head, network.tail, shared_depth)


def trained(run: Run, method: str, shared_depth: int, head_weight: float):
    """(network: images -> {task: logits}, {task: likelihood}) of a row of the accuracy table."""
    if method in BASELINES:
        vit = run.vit(len(run.class_names))
        load_weights(vit, run.artifact(f"baselines/{method}").tensors("network"))
        likelihood = baseline_likelihood(method, run.class_counts, run.config.logit_adjustment)
        return _Single(vit), {"all": likelihood}
    if method == "stage1":  # two networks side by side: nothing is shared
        networks = stage1_networks(run)
        network = TwoBranchViT(networks["head"], networks["tail"], 0)
    elif method == "stage2":
        network = stage2_network(run, head_weight)
    elif method == "osdtw_assembled":
        network = assembled(run, shared_depth, head_weight, run.config.stage3.decoders)
    else:
        network = load_weights(run.two_branch(shared_depth), run.artifact("stage3", head_weight=head_weight, shared_depth=shared_depth).tensors("network"))
    return network, run.likelihoods


class _Single(torch.nn.Module):
    """One network under the name "all", so that it scores as a two-branch one does."""

    def __init__(self, network: VisionTransformer):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"all": self.network(images)}
