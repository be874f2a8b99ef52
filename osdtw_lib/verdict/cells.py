"""What the verdict trains: a cell is one row of its table at one seed and one budget, an artifact of its own."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import pandas as pd

from .. import methods
from ..artifacts.artifact import Artifact
from ..artifacts.files import make_folder, write_text
from ..artifacts.manifest import version_changes, versions
from ..errors import UserError
from ..methods import osdtw
from ..methods._base import Row
from ..stages import execute
from ..stages.networks import rows
from ..stages.selection import chosen
from ..stages.run import Run
from .rows import AS_MANY, measured, taken_from_elsewhere
from .seed_run import SeedRun, seed_run, seeds_of
from .tuning import tried, tuning_run, values_tried
from .tuning import chosen as chosen_values

FAILED = "failed.json"  # beside where row.json would lie; without it the cell is tried again
LIKELIHOODS = ("bernoulli", "categorical")

CHAIN = ("split", "start", "stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3")


@dataclass(frozen=True)
class Cell:
    """A row by name, at a seed and a budget; `run` is opened for them, `made_of` are the artifacts its training is."""

    name: str
    title: str
    budget: str
    run: SeedRun
    row: str
    made_of: tuple[str, ...]

    def artifact(self) -> Artifact:
        folder = self.run.of.folder / "verdict" / "rows" / self.budget / self.name / f"seed{self.run.config.seed}"
        inputs = tuple(self.run.artifact(name) for name in self.made_of)
        parameters = {"row": self.name, "title": self.title, "budget": self.budget}
        if self.row == osdtw.Assembled.name:  # put together here, of what has neither in its key
            parameters |= {"shared_depth": chosen(self.run)["shared_depth"], "decoders": self.run.config.stage3.decoders}
        return Artifact(f"row {self.name}", folder, parameters, inputs)

    @property
    def place(self) -> tuple[str, str, int]:
        """rows.place_of what it will be."""
        return self.name, self.budget, self.run.config.seed

    def done(self) -> Artifact | None:
        """The cell's artifact, where it has been made as it is asked for now."""
        try:
            artifact = self.artifact()
        except UserError:  # what it is made of cannot be named yet: nothing is selected
            return None
        return artifact if artifact.why_not_done() is None else None

    def failed(self) -> str | None:
        """Why it could not be made, where that was tried with what is asked for now."""
        try:
            artifact = self.artifact()
            noted = json.loads((artifact.folder / FAILED).read_text(encoding="utf-8"))
            return noted["why"] if noted["key"] == artifact.key and not version_changes(noted) else None
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None

    def note_failure(self, why: str) -> None:
        artifact = self.artifact()
        write_text(make_folder(artifact.folder) / FAILED, json.dumps({"key": artifact.key, "why": why, "versions": versions()}))

    def result(self) -> dict:
        """What was measured, as rows.measured says it."""
        return json.loads((self.artifact().folder / "row.json").read_text(encoding="utf-8"))

    def make(self) -> None:
        """Train what is not trained, and test it; row.json in the cell's folder holds what came out."""
        if self.done():
            return
        for name in CHAIN if self.row in osdtw.ROWS else ("split", "start", *self.made_of):
            execute(self.run, name, quiet=True)
        artifact = self.artifact()
        depth = None if self.row in self.run.asked else chosen(self.run)["shared_depth"]
        row: Row = rows(self.run, depth)[self.row]
        with artifact.making(str(self.run.device)) as write:
            decided = decision(self.run.of, self.name) if self.budget == "tuned" else None
            tried = {"trials": decided[1].to_dict("records")} if decided else {}
            write.json("row", measured(self.run, row, self.name, self.title, self.budget, self.made_of, **tried))


def of_method(run: SeedRun, name: str, budget: str) -> Cell:
    method = run.methods[name]
    made_of = tuple(f"baselines/{one}" for one in (*methods.stands_on(type(method)), name))
    return Cell(name, method.title, budget, run, name, made_of)


def of_osdtw(run: SeedRun, budget: str = "epochs") -> list[Cell]:
    """OSDTW's four rows, the refined one by the other `stage3.likelihood`, and as published, at the choice of Eq. (18), where the
    parameter file selects otherwise; of another likelihood than the run's the refined one alone, and Stage 1's."""
    config, refined = run.config, osdtw.Refined.name
    if not run.is_own_likelihood:
        named = [(f"{row}_{config.likelihood}", run, row, f", {config.likelihood} likelihood") for row in ("stage1", refined)]
    else:
        other = run.refined_by("joint" if config.stage3.likelihood == "separate" else "separate")
        named = [(row, run, row, "") for row in osdtw.ROWS]
        named.append((f"{refined}_{other.config.stage3.likelihood}", other, refined, ""))
        if config.selection.form != "paper" or config.selection.shared_depth is not None:
            named.append((f"{refined}_eq18", run.selecting_by("paper"), refined, ", at Eq. (18)'s choice"))
    return [
        Cell(name, osdtw.ROWS[row](at.problem).title + added, budget, at, row, _made_of(at, row))
        for name, at, row, added in named
    ]


def _made_of(run: SeedRun, row: str) -> tuple[str, ...]:
    """What a row of OSDTW is made of; the choice of C and w_A counts as training from Stage 2 on."""
    choice = ("fisher", "direct") if run.config.selection.form == "direct" else ("fisher",)
    return {
        "stage1": ("stage1",),
        "stage2": ("stage1", *choice, "stage2"),
        "osdtw_assembled": ("stage1", *choice, "stage2"),
        "osdtw": ("stage1", *choice, "stage2", "stage3"),
    }[row]


def cells(run: Run) -> list[Cell]:
    """Every cell asked for: at each seed OSDTW's rows and the methods; beyond the same epochs, those that can be named yet."""
    found: list[Cell | None] = []
    for seed in seeds_of(run):
        own = seed_run(run, seed)
        for likelihood in LIKELIHOODS:
            found += of_osdtw(seed_run(run, seed, likelihood))
        found += [of_method(own, name, "epochs") for name in own.asked]
        if "osdtw" in run.config.verdict.budgets:
            found += [cell for name in own.asked for cell in at_osdtws_budget(own, name)]
        if "tuned" in run.config.verdict.budgets:
            found += [tuned(own, name) for name in ("osdtw", *own.asked)]
    return [cell for cell in found if cell]


def at_osdtws_budget(run: SeedRun, name: str) -> list[Cell | None]:
    """The method trained as much longer as OSDTW's FLOPs are more than its own; of an ensemble, where they buy more networks than
    it has, also as many as they buy. [None] until both are counted."""
    both = [_flops(cell) for cell in (_of(run, "osdtw", "epochs"), of_method(run, name, "epochs"))]
    if not all(both):
        return [None]
    factor = both[0] / both[1]
    found: list[Cell | None] = [of_method(run.stretched(factor), name, "osdtw")]
    if name == "ensemble":
        has = run.asked[name][1].networks
        if (networks := math.floor(factor * has)) > has:
            many = of_method(run.of_networks(name, networks, factor * has / networks), name, "osdtw")
            found.append(dataclasses.replace(many, name=AS_MANY))
    return found


def _flops(cell: Cell) -> int | None:
    """Of its training, counted here or elsewhere; None until it is."""
    row = cell.result() if cell.done() else taken_from_elsewhere(cell.run.of).get(cell.place)
    return row and row["cost"]["flops"]


def trials(run: Run, name: str) -> list[Cell]:
    """The trainings a row is tuned by, tested on validation images."""
    own = tuning_run(run)
    return [
        _of(tried(own, name, values, own.top / name / f"trial{i}"), name, f"trial{i}")
        for i, values in enumerate(values_tried(own, name))
    ]


def decision(run: Run, name: str) -> tuple[dict, pd.DataFrame] | None:
    """tuning.chosen of a row; None until all of its trials are done, or the first has failed."""
    made = trials(run, name)
    if not made[0].done() or not all(cell.done() or cell.failed() for cell in made):
        return None
    own = made[0].run
    rows = [cell.result() if cell.done() else None for cell in made]
    return chosen_values(rows, own.test.labels, values_tried(own, name))


def tuned(run: SeedRun, name: str) -> Cell | None:
    """The row with the values its trials chose; None until they have."""
    decided = decision(run.of, name)
    return _of(tried(run, name, decided[0], run.top / "tuned" / name), name, "tuned") if decided else None


def _of(run: SeedRun, name: str, budget: str) -> Cell:
    if name != osdtw.Refined.name:
        return of_method(run, name, budget)
    return Cell(name, osdtw.Refined(run.problem).title, budget, run, name, _made_of(run, name))
