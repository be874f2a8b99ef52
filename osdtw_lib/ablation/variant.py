"""Measuring a cell of section 6.4's grid: Stage 2 at a head weight, then Stage 3 at every shared depth.

The refinement of a cell is the ordinary one (same images, same shifts, same order), but the frozen encoder is run
once for all depths and its features are kept: epoch by epoch, as many augmented passes as there are epochs of
refinement. Every cell is an artifact of its own, so a killed run goes on with the cell it was in.
"""

from __future__ import annotations

import copy
import dataclasses

from ..artifacts.artifact import Artifact
from ..stages.run import Run


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
