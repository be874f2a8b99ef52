"""The same run with another seed or likelihood, or at a cell of the grid; its results lie under outputs/NAME/ablation."""

from __future__ import annotations

import copy
from pathlib import Path

from ..artifacts.artifact import Artifact
from ..config.schema import Config
from ..stages.run import Run


class Variant(Run):
    """The same run with another seed or likelihood, in a folder under outputs/NAME/ablation.

    What depends on neither is shared: the run's own seed finds the run's own Stage 0 and Stage 1, and the two
    likelihoods of a seed have one Stage 0.
    """

    def __init__(self, run: Run, seed: int, likelihood: str):
        config = run.config.model_copy(update={"seed": seed, "likelihood": likelihood})
        super().__init__(config, source=run.source, place=self._place)  # the images need not be read again
        self.workers = 1  # the cells are what is shared out
        own_seed, own_likelihood = seed == run.config.seed, likelihood == run.config.likelihood
        self.label = f"seed {seed}, {likelihood}"
        shared = run.folder if own_seed else run.folder / "ablation" / f"seed{seed}"
        self.cells = run.folder / "ablation" / f"seed{seed}" / likelihood
        stage1 = shared if own_seed and own_likelihood else self.cells
        self.places = dict.fromkeys(("split", "start", "baselines"), shared)
        self.places |= dict.fromkeys(("stage1", "fisher", "direct"), stage1)

    def _place(self, name: str) -> Path:
        return self.places.get(name.split("/")[0], self.cells) / name

    def merging_by(self, power: float, damping: float | str) -> Variant:
        """The same with another `direct.power` and `direct.damping`, and a direct bias of its own."""
        other = copy.copy(self)
        direct = self.config.direct.model_copy(update={"power": power, "damping": damping})
        other.config = self.config.model_copy(update={"direct": direct})
        own = self.cells / f"direct_{power:g}_{damping}"
        other.place = lambda name: own if name == "direct" else self.place(name)
        return other

    def weighted(self, head_weight: float) -> Run:
        """The same at a head weight, with a Stage 2 of its own."""
        stage2 = self.cells / f"stage2_w{head_weight:g}"
        choice = {"shared_depth": self.n_depths, "head_weight": head_weight}
        return self.at(choice, lambda name: stage2 if name == "stage2" else self.place(name))

    def cell(self, head_weight: float, shared_depth: int | None) -> Artifact:
        """The measurement of one cell; shared_depth None: Stage 2's own network. At C = 0 there is no weight, unless the
        decoders are Stage 2's."""
        stage1, c = self.artifact("stage1"), self.config
        parameters = {"shared_depth": shared_depth} | c.stage3.model_dump(mode="json", include={"likelihood"})
        if shared_depth is not None:
            stage3 = c.stage3.model_dump(mode="json") | {"epochs": c.ablation.refinement_epochs or c.stage3.epochs}
            parameters |= {"stage3": stage3, "recipe": c.recipe.model_dump(mode="json")}
        if shared_depth == 0 and not weighs_at_zero(c):
            return Artifact("cell C=0", self.cells / "cells" / "C0", parameters, (stage1,))
        name = "joint" if shared_depth is None else f"C{shared_depth}"
        folder = self.cells / "cells" / f"w{head_weight:g}_{name}"
        stage2 = self.weighted(head_weight).artifact("stage2")
        return Artifact(f"cell w_A={head_weight:g}, {name}", folder, parameters, (stage1, stage2))


def weighs_at_zero(config: Config) -> bool:
    """Whether a network that shares nothing depends on the head weight all the same: its decoders are Stage 2's."""
    return config.stage3.decoders == "stage2"
