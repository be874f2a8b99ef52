"""Notebook 09: every method over seeds, at the budgets asked for, as rows, tables and a sentence."""

from __future__ import annotations

import json

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import checksum, make_folder, write_text
from ..artifacts.lock import held
from ..config.paths import PROJECT
from ..config.schema import Config
from ..stages import execute
from ..stages.run import Run
from ..stages.side_by_side import everywhere, opened
from . import compare
from .cells import Cell, of_method, of_osdtw
from .rows import fingerprints, taken
from .seed_run import SeedRun, seeds_of

LIKELIHOODS = ("bernoulli", "categorical")


def parameters(run: Run) -> dict:
    wanted = run.config.verdict.model_dump(mode="json")
    return wanted | {"others": [checksum(PROJECT / path) for path in run.config.verdict.others]}


def inputs(run: Run) -> tuple[Artifact, ...]:
    """The rows that are done: with another one done the tables are made again."""
    found = [cell.done() for cell in cells(run)]
    return tuple(Artifact(str(a.folder.relative_to(run.folder)), a.folder, {"key": a.key}) for a in found if a)


def before(run: Run) -> None:
    """Train and test what is missing; a killed run goes on in the cells it was in. Row files are looked at first."""
    rows_from_elsewhere(run)
    with held(run.locked):
        measure(run)


def make(run: Run, write: Writer) -> None:
    """summary_BUDGET, who_wins_BUDGET (CSV), summary_BUDGET.tex, not_run, verdict.json ({budget: sentence})."""
    rows, said = rows_of(run), {}
    for budget in run.config.verdict.budgets:
        table, wins = (f(rows, run.test.labels, run.groups, budget) for f in (compare.summary, compare.matrix))
        write.table(f"summary_{budget}", table)
        write.table(f"who_wins_{budget}", wins)
        write.text(f"summary_{budget}.tex", compare.latex(table))
        said[budget] = compare.verdict(table, wins)
        print(f"verdict, {budget}: {said[budget]}", flush=True)
    write.table("not_run", missing(run, rows))
    write.json("verdict", said)


def publish(run: Run, artifact: Artifact) -> None:
    """The tables lie in outputs/NAME/tables as well, the rows in outputs/NAME/verdict/rows."""
    folder = make_folder(run.folder / "tables")
    for budget in run.config.verdict.budgets:
        for name in (f"summary_{budget}.csv", f"summary_{budget}.tex", f"who_wins_{budget}.csv"):
            write_text(folder / f"verdict_{name}", (artifact.folder / name).read_text(encoding="utf-8"))


# what there is ----------------------------------------------------------------------------------------------


def cells(run: Run) -> list[Cell]:
    """Every cell asked for: OSDTW's rows and the methods a seed; at OSDTW's budget those whose length it gives is known."""
    found = []
    for seed in seeds_of(run):
        own = SeedRun(run, seed)
        found += of_osdtw(own)
        for other in LIKELIHOODS:
            found += of_osdtw(SeedRun(run, seed, other)) if other != run.config.likelihood else []
        found += [of_method(own, name, "epochs") for name in own.asked]
        if "osdtw" in run.config.verdict.budgets:
            found += [cell for name in own.asked if (cell := at_osdtws_budget(own, name))]
    return found


def at_osdtws_budget(run: SeedRun, name: str) -> Cell | None:
    """The method trained as much longer as OSDTW's FLOPs are more than its own; None until both are counted."""
    both = [(cell.done() and row_at(cell)["cost"]["flops"]) for cell in (of_osdtw(run)[-1], of_method(run, name, "epochs"))]
    return of_method(run.stretched(both[0] / both[1]), name, "osdtw") if all(both) else None


def row_at(cell: Cell) -> dict:
    return json.loads((cell.artifact().folder / "row.json").read_text(encoding="utf-8"))


def rows_of(run: Run) -> list[dict]:
    """The rows that are done, and of those made elsewhere what is not done here. At OSDTW's budget its own rows stand too."""
    rows = [row_at(cell) for cell in cells(run) if cell.done()]
    here = {_at(row) for row in rows}
    rows += [row for row in rows_from_elsewhere(run) if _at(row) not in here]
    own = [row | {"budget": "osdtw"} for row in rows if row["budget"] == "epochs" and row["row"].startswith(("osdtw", "stage"))]
    return rows + (own if "osdtw" in run.config.verdict.budgets else [])


def _at(row: dict) -> tuple[str, str, int]:
    return row["row"], row["budget"], row["seed"]


def rows_from_elsewhere(run: Run) -> list[dict]:
    """Raises UserError where one of verdict.others does not fit."""
    if not run.config.verdict.others:
        return []
    own = {seed: fingerprints(SeedRun(run, seed)) for seed in seeds_of(run)}
    return [taken(path, own) for path in run.config.verdict.others]


def missing(run: Run, rows: list[dict]):
    """A table of what was asked for and has no row."""
    seeds, budgets = seeds_of(run), run.config.verdict.budgets
    names = [cell.name for cell in cells(run) if cell.budget == "epochs"]
    methods = set(SeedRun(run, seeds[0]).asked)
    asked = [(name, budget, seed) for name in dict.fromkeys(names) for budget in budgets for seed in seeds]
    return compare.not_run([one for one in asked if one[1] == "epochs" or one[0] in methods], rows)


# measuring --------------------------------------------------------------------------------------------------


def measure(run: Run) -> None:
    """Every cell that is not done, several at once: first the starts, then what stands on them, then what stands on that."""
    seeds = seeds_of(run)
    kinds = SeedRun(run, seeds[0]).asked
    chains = [("chain", seed, other) for seed in seeds for other in LIKELIHOODS]
    alone = [(seed, name) for seed in seeds for name, (kind, _) in kinds.items() if not kind.after]
    standing = [(seed, name) for seed in seeds for name, (kind, _) in kinds.items() if kind.after]
    everywhere(run, _start, [(seed,) for seed in seeds if SeedRun(run, seed).artifact("start").why_not_done()])
    _all(run, chains + [("method", *job) for job in alone])
    _all(run, [("method", *job) for job in standing])
    if "osdtw" in run.config.verdict.budgets:
        _all(run, [("longer", *job) for job in alone])
        if _to_do(run, [("longer", *job) for job in standing]):  # those of a seed share the network they stand on
            everywhere(run, _longer, [(seed, [name for at, name in standing if at == seed]) for seed in seeds])


def _all(run: Run, jobs: list[tuple[str, int, str]]) -> None:
    missing = _to_do(run, jobs)
    if missing:
        print(f"verdict: {len(missing)} trainings to do", flush=True)
        everywhere(run, _job, missing)


def _to_do(run: Run, jobs: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    given = {_at(row) for row in rows_from_elsewhere(run)}

    def is_there(cell: Cell | None) -> bool:
        return cell is not None and ((cell.name, cell.budget, cell.run.config.seed) in given or cell.done() is not None)

    return [job for job in jobs if not all(map(is_there, _made_by(run, *job)))]


def _made_by(run: Run, kind: str, seed: int, name: str) -> list[Cell | None]:
    if kind == "chain":
        return of_osdtw(SeedRun(run, seed, name))
    own = SeedRun(run, seed)
    return [of_method(own, name, "epochs") if kind == "method" else at_osdtws_budget(own, name)]


def _start(config: Config, seed: int) -> None:
    run = SeedRun(opened(config), seed)
    for stage in ("split", "start"):
        execute(run, stage, quiet=True)


def _job(config: Config, kind: str, seed: int, name: str) -> None:
    for cell in _made_by(opened(config), kind, seed, name):
        if cell and not cell.done():
            print(f"verdict: seed {seed}, {cell.title}" + (", at OSDTW's budget" if kind == "longer" else ""), flush=True)
            cell.make()


def _longer(config: Config, seed: int, names: list[str]) -> None:
    for name in names:
        _job(config, "longer", seed, name)
