"""Notebook 09: every method over seeds, at the budgets asked for, as rows, tables and a sentence."""

from __future__ import annotations

import json

import pandas as pd

from ..artifacts.artifact import Artifact, Writer
from ..artifacts.files import checksum, make_folder, write_text
from ..artifacts.lock import held
from ..stages import execute
from ..stages.run import Run
from ..stages.side_by_side import by_itself
from . import compare
from .cells import cells, decision, trials
from .measure import left_out, measure
from .rows import file_of, taken_from_elsewhere
from .seed_run import seed_run, seeds_of


def parameters(run: Run) -> dict:
    wanted = run.config.verdict.model_dump(mode="json")
    wanted |= {"others": [checksum(file_of(path)) for path in run.config.verdict.others]}
    wanted |= {"noise_of_seeds": "each row's, towards the median of all"}  # it was the mean of all rows'
    wanted |= {"likelihood_and_calibration": "with intervals over seeds"}  # they had deviations
    failed = {" ".join(map(str, place)): why for place, why in _failed(run).items()}  # the tables tell of it
    return wanted | ({"failed": failed} if failed else {})


def inputs(run: Run) -> tuple[Artifact, ...]:
    """The rows that are done: with another one done the tables are made again."""
    found = [cell.done() for cell in cells(run)]
    return tuple(Artifact(str(a.folder.relative_to(run.folder)), a.folder, {"key": a.key}) for a in found if a)


def before(run: Run) -> None:
    """Train and test what is missing; a killed run goes on in the cells it was in. Row files are looked at first."""
    taken_from_elsewhere(run)
    by_itself("verdict")
    with held(run.locked):
        execute(run, "split", quiet=True)
        measure(run)


def make(run: Run, write: Writer) -> None:
    """summary_BUDGET, who_wins_BUDGET (CSV), summary_BUDGET.tex and .md, not_run, tuning, verdict.json ({budget: sentence}),
    rows.json (all rows, for others to take)."""
    rows, said = rows_of(run), {}
    write.text("rows.json", "[\n" + ",\n".join(map(json.dumps, measured_rows(run))) + "\n]\n")  # a row a line
    for budget in run.config.verdict.budgets:
        table, wins = (f(rows, run.test.labels, run.groups, budget) for f in (compare.summary, compare.matrix))
        write.table(f"summary_{budget}", table)
        write.table(f"who_wins_{budget}", wins)
        write.text(f"summary_{budget}.tex", compare.latex(table))
        write.text(f"summary_{budget}.md", compare.markdown(table))
        said[budget] = compare.verdict(table, wins)
        print(f"verdict, {budget}: {said[budget]}", flush=True)
    write.table("not_run", missing(run, rows))
    write.table("tuning", tuning(run))
    write.json("verdict", said)


def publish(run: Run, artifact: Artifact) -> None:
    """The tables lie in outputs/NAME/tables as well, the rows in outputs/NAME/verdict/rows."""
    folder = make_folder(run.folder / "tables")
    for budget in run.config.verdict.budgets:
        for name in (*(f"summary_{budget}.{kind}" for kind in ("csv", "tex", "md")), f"who_wins_{budget}.csv"):
            write_text(folder / f"verdict_{name}", (artifact.folder / name).read_text(encoding="utf-8"))
    write_text(folder / "verdict_rows.json", (artifact.folder / "rows.json").read_text(encoding="utf-8"))


# what there is ----------------------------------------------------------------------------------------------


def measured_rows(run: Run) -> list[dict]:
    """The rows that are done, and of those made elsewhere what is not done here."""
    here = {cell.place: cell.result() for cell in cells(run) if cell.done()}
    rows = taken_from_elsewhere(run) | here
    return [rows[place] for place in sorted(rows)]


def rows_of(run: Run) -> list[dict]:
    """`measured_rows`; at OSDTW's compute its own rows stand too."""
    rows = measured_rows(run)
    own = [row | {"budget": "osdtw"} for row in rows if row["budget"] == "epochs" and row["ours"]]
    return rows + (own if "osdtw" in run.config.verdict.budgets else [])


def tuning(run: Run) -> pd.DataFrame:
    """Every trial of the rows that have all of theirs, here or where they were tuned: row, trial, values, score, difference,
    standard_error, chosen."""
    names = ("osdtw", *seed_run(run, run.config.seed).asked) if "tuned" in run.config.verdict.budgets else ()
    given = {at[0]: row["parameters"].get("trials") for at, row in taken_from_elsewhere(run).items() if at[1] == "tuned"}
    tables = []
    for name in names:
        if found := decision(run, name):
            tables.append(found[1].assign(row=name))
        elif given.get(name):
            tables.append(pd.DataFrame(given[name]).assign(row=name))
    columns = ["row", "trial", "values", "score", "difference", "standard_error", "chosen"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def missing(run: Run, rows: list[dict]) -> pd.DataFrame:
    """row, budget, seeds, why: what was asked for and has no row."""
    seeds, known = seeds_of(run), cells(run)
    methods = tuple(seed_run(run, seeds[0]).asked)
    names = {
        "epochs": dict.fromkeys(c.name for c in known if c.budget == "epochs"),
        "osdtw": dict.fromkeys((*methods, *(c.name for c in known if c.budget == "osdtw"))),
        "tuned": ("osdtw", *methods),
    }
    asked = [(name, b, seed) for b in run.config.verdict.budgets for name in names[b] for seed in seeds]
    quick = {at: "left out by --quick" for at in asked if at[0] in left_out(run)}
    return compare.not_run(asked, rows, quick | _failed(run))


def _failed(run: Run) -> dict[tuple[str, str, int], str]:
    """{Cell.place: why} of what was tried and cannot be made; nothing is tuned whose first trial, with its own values, failed."""
    found = {cell.place: why for cell in cells(run) if (why := cell.failed())}
    names = ("osdtw", *seed_run(run, run.config.seed).asked) if "tuned" in run.config.verdict.budgets else ()
    first = {name: why for name in names if (why := trials(run, name)[0].failed())}
    return found | {(n, "tuned", seed): f"its first trial: {why}" for n, why in first.items() for seed in seeds_of(run)}
