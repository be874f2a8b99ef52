"""Measuring a cell of section 6.4's grid: Stage 2 at a head weight, then Stage 3 at every shared depth.

The refinement of a cell is the ordinary one (same images, same shifts, same order), but the frozen encoder is run
once for all depths and its features are kept: epoch by epoch, as many augmented passes as there are epochs of
refinement. Every cell is an artifact of its own, so a killed run goes on with the cell it was in.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import torch

from ..backend.precision import autocast
from ..errors import UserError
from ..evaluation.scores import in_class_order, predict
from ..methods import osdtw
from ..models.two_branch import TwoBranchViT
from ..stages import execute
from ..stages.networks import stage1_networks, stage2_network
from ..stages.run import Run
from ..training.frozen_features import Decoders, Features
from ..training.loop import fit
from .variant import Variant, weighs_at_zero


def depths_of(run: Run) -> list[int]:
    """The shared depths to measure, ascending; 0 and L are always among them: the ends of what can be shared."""
    asked = run.config.ablation.depths
    depths = range(run.n_depths + 1) if asked is None else {0, *asked, run.n_depths}
    if max(depths) > run.n_depths:
        raise UserError(f"ablation.depths: the model has {run.n_depths} blocks, got {max(depths)}")
    return sorted(depths)


def shares_of(run: Run) -> list[tuple[float, list[int]]]:
    """(head weight, the depths to measure at it), so that every cell comes once: where C = 0 has no weight it is of the first."""
    depths, always = depths_of(run), weighs_at_zero(run.config)
    return [(w, depths if i == 0 or always else depths[1:]) for i, w in enumerate(run.config.ablation.head_weights)]


def prepare(variant: Variant) -> None:
    """Everything a proxy is made of: split, start, Stage 1, Fisher, direct bias."""
    for stage in ("split", "start", "stage1", "fisher", "direct"):
        execute(variant, stage)


def measure(variant: Variant, head_weight: float, depths: list[int]) -> None:
    """Stage 2 at one head weight, then every shared depth of it that has no result yet."""
    asked = {depth: variant.cell(head_weight, depth) for depth in (None, *depths)}
    missing = [depth for depth, artifact in asked.items() if artifact.why_not_done()]
    if not missing:
        return
    at_weight = variant.weighted(head_weight)
    execute(at_weight, "stage2")
    joint, networks, c = stage2_network(at_weight), stage1_networks(variant), variant.config
    length = c.stage3.model_copy(update={"epochs": c.ablation.refinement_epochs or c.stage3.epochs})
    refined = [depth for depth in missing if depth is not None]
    training = Features(variant.batches(variant.train), joint.head, refined, length.epochs, c.recipe.precision)
    test = Features(variant.batches(variant.test), joint.head, refined, 1, c.recipe.precision)
    for depth in missing:
        print(f"ablation: {variant.label}, w_A {head_weight:g}, {'joint network' if depth is None else f'C {depth}'}", flush=True)
        with asked[depth].making(str(variant.device)) as write:
            if depth is None:
                write.table("scores", _scores(variant, joint, variant.batches(variant.test)).assign(network="joint"))
                continue
            branches = networks if c.stage3.decoders == "stage1" else {"head": joint.head, "tail": joint.tail}
            network = osdtw.assemble(variant.problem, joint.head, branches, depth)
            before = _scores(variant, Decoders(network), test.at(depth)).assign(network="assembled")
            checkpoint = write.checkpoint("training")
            write.table("curves", refine(variant, network, training.at(depth), length, checkpoint))
            after = _scores(variant, Decoders(network), test.at(depth)).assign(network="refined")
            write.table("scores", pd.concat([before, after]))


def refine(run: Run, network: TwoBranchViT, features, length, checkpoint) -> pd.DataFrame:
    """Stage 3's refinement (section 6.2) of an assembled network in place, from features of its frozen encoder."""
    decoders, whole = Decoders(network), osdtw.refine(run.problem, length)
    phase = dataclasses.replace(whole, losses=lambda _, part: whole.losses(decoders, part))
    phase.prepared(network)
    label = f"refinement, C {network.shared_depth}"
    return fit(network, phase, features, run.config.recipe, checkpoint, run.seed("stage3"), label)


@torch.no_grad()
def _scores(run: Run, network, batches) -> pd.DataFrame:
    """A row for each class and half of the test set: half, class, images, right, nll (sum over its images, nats, of what the
    refinement maximises)."""
    network.eval()
    likelihoods, predicted, nll = osdtw.refined_by(run.problem).values(), [], []
    for images, labels in batches:
        with autocast(run.config.recipe.precision, images.device, evaluation=True):
            logits = network(images)
        predicted.append(predict(in_class_order(logits, run.likelihoods).cpu().numpy()))
        nll.append(-sum(of(logits, labels).double() for of in likelihoods).cpu().numpy())
    predicted, nll = np.concatenate(predicted), np.concatenate(nll)
    labels, rows = run.test.labels, []
    for k in range(len(run.class_names)):
        members = np.flatnonzero(labels == k)
        for half in (0, 1):
            own = members[half::2]
            row = {"half": half, "class": k, "images": len(own)}
            rows.append(row | {"right": int((predicted[own] == k).sum()), "nll": float(nll[own].sum())})
    return pd.DataFrame(rows)
