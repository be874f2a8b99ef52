"""The same run with another seed or likelihood, or longer trainings of the methods; results lie under outputs/NAME/verdict."""

from __future__ import annotations

import copy
import functools
import math
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import methods
from ..artifacts.artifact import Artifact
from ..config.schema import Config
from ..data.splits import drawn_again, index_hash
from ..stages.run import Run


class SeedRun(Run):
    """The run with a seed of its own and all methods of the verdict; the run's own seed finds what the run has made.

    The test images are the run's own, whatever the seed; so are the training images, unless `verdict.training_images` is
    "drawn": then each seed draws as many of each class from all that do not test.
    """

    def __init__(self, run: Run, seed: int, likelihood: str | None = None, top: Path | None = None):
        """top: where everything lies, the run's own seed's too."""
        likelihood = likelihood or run.config.likelihood
        changed = {"seed": seed, "likelihood": likelihood, "baselines": asked(run)}
        self.of, self.is_own = run, seed == run.config.seed and top is None
        self.top = top or run.folder / "verdict" / f"seed{seed}"
        self.is_own_likelihood = likelihood == run.config.likelihood
        super().__init__(run.config.model_copy(update=changed), source=run.source, place=self._place)
        self.workers = 1  # the cells are what is shared out
        self.folder = self._place("selection").parent  # selection.json of its own
        self.locked = run.locked

    @property
    def cache(self) -> Path:
        return self.of.cache

    @cached_property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        if self.is_own or self.config.verdict.training_images == "kept":
            return self.of.indices
        train, test = self.of.indices
        return drawn_again(self.source, train, np.concatenate((test, self.calibration_indices)), self.config.seed)[0], test

    @property
    def calibration_indices(self) -> np.ndarray:
        return self.of.calibration_indices

    def artifact(self, name: str) -> Artifact:
        found = super().artifact(name)
        if name != "split" or self.is_own:
            return found
        return Artifact(name, found.folder, found.parameters | {"indices_sha256": index_hash(*self.indices)}, found.inputs)

    def _place(self, name: str) -> Path:
        stage, *method = name.split("/")
        if method:
            ours = self.is_own and _same(self.of.asked.get(method[0]), self.asked[method[0]])
            return (self.of.folder if ours else self.top) / name
        if stage in ("split", "start"):
            return (self.of.folder if self.is_own else self.top) / name
        if self.is_own_likelihood:
            return (self.of.folder if self.is_own else self.top) / name
        return self.top / self.config.likelihood / name

    def stretched(self, factor: float) -> SeedRun:
        """The same with the methods' trainings `factor` times as long, rounded down."""
        length = self.config.stage2
        epochs = max(1, math.floor(factor * length.epochs))
        changed = self.config.model_copy(update={"stage2": length.lasting(epochs)})
        return self.changed(changed, self.top / f"epochs{epochs}", ("split", "start"))

    def refined_by(self, likelihood: str) -> SeedRun:
        """The same with the decoders refined by another `stage3.likelihood`; only Stage 3 is its own."""
        stage3 = self.config.stage3.model_copy(update={"likelihood": likelihood})
        other = copy.copy(self)
        other.config = self.config.model_copy(update={"stage3": stage3})
        for cached in ("problem", "methods"):
            other.__dict__.pop(cached, None)
        other.place = lambda name: self.top / f"refined_{likelihood}" if name == "stage3" else self.place(name)
        return other

    def selecting_by(self, form: str) -> SeedRun:
        """The same with C and w_A as another form of the proxy picks them, whatever is named; Stages 2 and 3 are its own."""
        selection = self.config.selection.model_copy(update={"form": form, "shared_depth": None, "head_weight": None})
        shared = ("split", "start", "stage1", "fisher", "direct")
        return self.changed(self.config.model_copy(update={"selection": selection}), self.top / f"selected_by_{form}", shared)

    def of_networks(self, name: str, networks: int, factor: float) -> SeedRun:
        """The same with an ensemble of so many networks, each trained `factor` times as long, rounded down."""
        longer = self.stretched(factor)
        values = self.asked[name][1].model_dump(mode="json") | {"networks": networks}
        config = longer.config.model_copy(update={"baselines": longer.config.baselines | {name: values}})
        return self.changed(config, longer.folder / f"networks{networks}", ("split", "start"))

    def changed(self, config: Config, top: Path, shared: tuple[str, ...]) -> SeedRun:
        """The same with other values and its results under `top`; what is shared (stages, "baselines/METHOD") is this one's."""
        other = copy.copy(self)
        other.config, other.asked = config, methods.asked(config)
        for cached in ("problem", "methods"):
            other.__dict__.pop(cached, None)
        other.place, other.folder = lambda name: top / name, top
        other.artifact = lambda name: self.artifact(name) if name in shared else Run.artifact(other, name)
        return other


def _same(one: tuple | None, other: tuple) -> bool:
    """Whether two methods with their parameters are the same; a file's class is another each time the file is read."""
    told = lambda asked: (asked[0].name, asked[0].file, asked[1].model_dump())  # noqa: E731
    return one is not None and told(one) == told(other)


@functools.lru_cache(maxsize=32)
def seed_run(run: Run, seed: int, likelihood: str | None = None) -> SeedRun:
    """SeedRun, opened once for each run."""
    return SeedRun(run, seed, likelihood)


def seeds_of(run: Run) -> tuple[int, ...]:
    wanted = run.config.verdict
    return wanted.seeds[:2] if wanted.quick else wanted.seeds


def asked(run: Run) -> dict[str, dict]:
    """The methods of the verdict and their parameters: those named, or else all that are known, and the run's own baselines."""
    named = run.config.verdict.methods
    return dict.fromkeys(methods.names(), {}) | run.config.baselines if named is None else named
