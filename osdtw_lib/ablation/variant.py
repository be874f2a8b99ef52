"""Measuring a cell of section 6.4's grid: Stage 2 at a head weight, then Stage 3 at every shared depth.

The refinement of a cell is the ordinary one (same images, same shifts, same order), but the frozen encoder is run
once for all depths and its features are kept: epoch by epoch, as many augmented passes as there are epochs of
refinement. Every cell is an artifact of its own, so a killed run goes on with the cell it was in.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch

from ..stages import all as stages
from ..artifacts.artifact import Artifact
from ..data.batches import Batches, Part
from ..evaluation.metrics import class_scores, predict
from ..stages.results import joined, stage1_networks, stage2_network
from ..stages.run import TASKS, Run
from ..training.loop import fit
from ..models.vit import TwoBranchViT, VisionTransformer, decode, embed

CACHE_BYTES = 2 << 30  # features are kept up to this size; beyond it the encoder runs again for every cell


class Variant(Run):
    """The same run with another seed or likelihood, in a folder under outputs/NAME/ablation.

    What depends on neither is shared: the run's own seed finds the run's own Stage 0 and Stage 1, and the two
    likelihoods of a seed have one Stage 0.
    """

    def __init__(self, run: Run, seed: int, likelihood: str):
        self.__dict__["source"] = run.source  # the images need not be read again
        super().__init__(run.config.model_copy(update={"seed": seed, "likelihood": likelihood}))
        self.workers = 1  # the cells are what is shared out
        own_seed, own_likelihood = seed == run.config.seed, likelihood == run.config.likelihood
        self.label = f"seed {seed}, {likelihood}"
        self.shared = run.folder if own_seed else run.folder / "ablation" / f"seed{seed}"
        self.cells = run.folder / "ablation" / f"seed{seed}" / likelihood
        self.stage1_folder = self.shared if own_seed and own_likelihood else self.cells
        self.direct_folder = self.stage1_folder / "direct"

    def merging_by(self, power: float, damping: float | str) -> Variant:
        """The same with another `direct.power` and `direct.damping`, and a direct bias of its own."""
        other = copy.copy(self)
        direct = self.config.direct.model_copy(update={"power": power, "damping": damping})
        other.config = self.config.model_copy(update={"direct": direct})
        other.direct_folder = self.cells / f"direct_{power:g}_{damping}"
        return other

    def artifact(self, name: str, *, head_weight: float | None = None, shared_depth: int | None = None) -> Artifact:
        made = super().artifact(name, head_weight=head_weight, shared_depth=shared_depth)
        if name in ("split", "start") or name.startswith("baselines/"):
            folder = self.shared / name
        elif name in ("stage1", "fisher"):
            folder = self.stage1_folder / name
        elif name == "direct":
            folder = self.direct_folder
        else:
            folder = self.cells / (name if head_weight is None else f"{name}_w{head_weight:g}")
        return dataclasses.replace(made, folder=folder)

    def cell(self, head_weight: float, shared_depth: int | None) -> Artifact:
        """The measurement of one cell; shared_depth None: Stage 2's own network. At C = 0 there is no weight."""
        made = {"stage1": self.artifact("stage1"), "stage2": self.artifact("stage2", head_weight=head_weight)}
        c = self.config
        parameters = {"shared_depth": shared_depth}
        if shared_depth is not None:
            stage3 = c.stage3.model_dump(mode="json") | {"epochs": c.ablation.refinement_epochs or c.stage3.epochs}
            parameters |= {"stage3": stage3, "recipe": c.recipe.model_dump(mode="json")}
        if shared_depth == 0:
            return Artifact("cell C=0", self.cells / "cells" / "C0", parameters, (made["stage1"],))
        name = "joint" if shared_depth is None else f"C{shared_depth}"
        folder = self.cells / "cells" / f"w{head_weight:g}_{name}"
        return Artifact(f"cell w_A={head_weight:g}, {name}", folder, parameters, tuple(made.values()))


def prepare(variant: Variant) -> None:
    """Everything a proxy is made of: split, start, Stage 1, Fisher, direct bias."""
    for stage in (stages.split, stages.start, stages.stage1, stages.fisher, stages.direct):
        stage(variant)


def measure(variant: Variant, head_weight: float, depths: list[int]) -> None:
    """Stage 2 at one head weight, then every shared depth of it that has no result yet."""
    asked = {depth: variant.cell(head_weight, depth) for depth in (None, *depths)}
    missing = [depth for depth, artifact in asked.items() if artifact.why_not_done()]
    if not missing:
        return
    stages.joint_training(variant, head_weight)
    joint, networks, c = stage2_network(variant, head_weight), stage1_networks(variant), variant.config
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
            network = joined(variant, joint.head, branches, depth)
            before = _scores(variant, Decoders(network), test.at(depth)).assign(network="assembled")
            checkpoint = write.checkpoint("training")
            write.table("curves", refine(variant, network, training.at(depth), length, checkpoint))
            after = _scores(variant, Decoders(network), test.at(depth)).assign(network="refined")
            write.table("scores", pd.concat([before, after]))


def refine(run: Run, network: TwoBranchViT, features, length, checkpoint) -> pd.DataFrame:
    """Stage 3's refinement (section 6.2) of an assembled network in place, from features of its frozen encoder."""
    network.freeze_encoder()
    decoders = Decoders(network)

    def losses(hidden, labels):
        logits = decoders(hidden)
        return {t: -run.likelihoods[t](logits[t], labels).mean() for t in TASKS}

    label = f"refinement, C {network.shared_depth}"
    return fit(network, losses, features, run.config.recipe, length, network.depths(), checkpoint, run.seed("stage3"), label)


class Decoders(torch.nn.Module):
    """Both decoders of a network as one module: features (B, T, D) -> {task: logits}."""

    def __init__(self, network: TwoBranchViT):
        super().__init__()
        self.network = network

    def forward(self, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        return {t: decode(getattr(self.network, t), hidden, self.network.shared_depth) for t in TASKS}


class Features:
    """Batches with what a frozen encoder makes of the images, at several depths by one pass; kept where they fit."""

    def __init__(self, batches: Batches, encoder: VisionTransformer, depths: list[int], epochs: int, precision: str):
        self.batches, self.encoder, self.depths, self.precision = batches, encoder.eval(), sorted(set(depths)), precision
        tokens = encoder.patch_embed.num_patches + encoder.num_prefix_tokens
        size = 4 * len(batches.labels) * tokens * encoder.embed_dim * len(self.depths) * epochs
        self.keep = size <= CACHE_BYTES
        self.kept: dict[int | None, list] = {}

    def at(self, depth: int) -> AtDepth:
        return AtDepth(self, depth)

    def in_order(self, depth: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(features, labels) of the images as they are."""
        steps = self._steps(None, ([Part(images, labels, 1.0, 0)] for images, labels in self.batches), depth)
        return ((part.images, part.labels) for step in steps for part in step)

    def epoch(self, number: int, depth: int) -> Iterator[Iterator[Part]]:
        """An epoch's steps and their parts, with features for images."""
        return self._steps(number, self.batches.epoch(number), depth)

    def _steps(self, key: int | None, steps: Iterable[Iterable[Part]], depth: int) -> Iterator[Iterator[Part]]:
        if not self.keep:
            return ((_with(part, self._encode(part.images, [depth])[depth]) for part in step) for step in steps)
        if key not in self.kept:
            self.kept[key] = [[(_with(part, None), self._encode(part.images, self.depths)) for part in step] for step in steps]
        return ((_with(part, hidden[depth]) for part, hidden in step) for step in self.kept[key])

    @torch.no_grad()
    def _encode(self, images: torch.Tensor, depths: list[int]) -> dict[int, torch.Tensor]:
        found = {0: images}
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            tokens = embed(self.encoder, images)
            for depth, block in enumerate(self.encoder.blocks[: max(depths)], start=1):
                tokens = block(tokens)
                found[depth] = tokens
        return {depth: found[depth] for depth in depths}


def _with(part: Part, images: torch.Tensor | None) -> Part:
    return dataclasses.replace(part, images=images)


@dataclasses.dataclass(frozen=True)
class AtDepth:
    """`Features` at one depth, in the shape of `Batches`."""

    features: Features
    depth: int

    @property
    def labels(self) -> torch.Tensor:
        return self.features.batches.labels

    @property
    def batch_size(self) -> int:
        return self.features.batches.batch_size

    def __len__(self) -> int:
        return len(self.features.batches)

    def __iter__(self):
        return self.features.in_order(self.depth)

    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        return self.features.epoch(number, self.depth)


def _scores(run: Run, network, batches) -> pd.DataFrame:
    """A row for each class and half of the test set: half, class, images, right, nll (sum over its images, nats)."""
    network.eval()
    predicted = predict(class_scores(network, run.likelihoods, batches))
    with torch.no_grad():
        pairs = ((network(images), labels) for images, labels in batches)
        nll = torch.cat([-sum(run.likelihoods[t](logits[t], y).double() for t in TASKS) for logits, y in pairs]).cpu().numpy()
    labels, rows = run.test.labels, []
    for k in range(len(run.class_names)):
        members = np.flatnonzero(labels == k)
        for half in (0, 1):
            own = members[half::2]
            row = {"half": half, "class": k, "images": len(own)}
            rows.append(row | {"right": int((predicted[own] == k).sum()), "nll": float(nll[own].sum())})
    return pd.DataFrame(rows)
