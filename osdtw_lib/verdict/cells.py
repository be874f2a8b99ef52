"""What the verdict trains: a cell is one row of its table at one seed and one budget, an artifact of its own."""

from __future__ import annotations

from dataclasses import dataclass

from ..artifacts.artifact import Artifact
from ..errors import UserError
from ..methods import osdtw
from ..methods._base import Row
from ..stages import execute
from ..stages.networks import rows
from ..stages.selection import chosen
from .rows import measured
from .seed_run import SeedRun

CHAIN = ("split", "start", "stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3")
# what each row of OSDTW is made of; the choice of C and w_A counts as training from Stage 2 on
MADE_OF = {
    "stage1": ("stage1",),
    "stage2": ("stage1", "fisher", "direct", "stage2"),
    "osdtw_assembled": ("stage1", "fisher", "direct", "stage2"),
    "osdtw": ("stage1", "fisher", "direct", "stage2", "stage3"),
}
assert MADE_OF.keys() == osdtw.ROWS.keys()


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
        return Artifact(f"row {self.name}", folder, {"row": self.name, "title": self.title, "budget": self.budget}, inputs)

    def done(self) -> Artifact | None:
        """The cell's artifact, where it has been made as it is asked for now."""
        try:
            artifact = self.artifact()
        except UserError:  # what it is made of cannot be named yet: nothing is selected
            return None
        return artifact if artifact.why_not_done() is None else None

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
            write.json("row", measured(self.run, row, self.name, self.title, self.budget, self.made_of))


def of_method(run: SeedRun, name: str, budget: str) -> Cell:
    kind = run.asked[name][0]
    made_of = tuple(f"baselines/{one}" for one in (kind.after, name) if one)
    return Cell(name, kind.title, budget, run, name, made_of)


def of_osdtw(run: SeedRun) -> list[Cell]:
    """OSDTW's four rows; of another likelihood than the run's the refined one alone, and Stage 1's."""
    likelihood = run.config.likelihood
    if run.is_own_likelihood:
        return [Cell(n, row.title, "epochs", run, n, MADE_OF[n]) for n, row in osdtw.ROWS.items()]
    shown = (osdtw.Stage1, osdtw.Refined)
    cells = [(f"{row.name}_{likelihood}", f"{row.title}, {likelihood} likelihood", row.name) for row in shown]
    return [Cell(name, title, "epochs", run, row, MADE_OF[row]) for name, title, row in cells]
