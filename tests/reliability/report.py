"""The counts: a table on the screen, campaign.json and campaign.md beside the logs, and in docs/reliability.md."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from osdtw_lib.config.paths import PROJECT

from .trials import Outcome

DOCS = PROJECT / "docs" / "reliability.md"
COLUMNS = ("tried", "passed", "refused", "failed", "not_tried")
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def write(outcomes: list[Outcome], chosen, parts, seconds: float) -> int:
    """Writes the files, prints the table and the first failure of each kind. Returns the exit status."""
    rows = _rows(outcomes)
    said = {
        "seed": chosen.seed,
        "finished": time.strftime("%Y-%m-%d"),
        "minutes": round(seconds / 60, 1),
        "lanes": chosen.lanes,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": _commit(),
        "rows": rows,
        "failures": [asdict(o) for o in outcomes if o.state == "failed"],
        "not_tried": [asdict(o) for o in outcomes if o.state == "not tried"],
        "seconds": {o.name: o.seconds for o in outcomes},
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "campaign.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
    for part in parts if chosen.long and not chosen.trial else ():  # for the docs, whether run together or one by one
        own = said | {"rows": _rows([o for o in outcomes if o.name.startswith(f"{part}/")])}
        (chosen.out / f"long-{part}.json").write_text(json.dumps(own, indent=1), encoding="utf-8")
    text = table(rows)
    (chosen.out / "campaign.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\n{seconds / 60:.1f} minutes; {chosen.out / 'campaign.json'}")
    for row in rows:
        if row["first_failed"]:
            print(
                f"first failed, {row['kind']}: {row['first_failed']}: {row['why'][:500]}\n"
                f"    again: python tests/reliability/campaign.py --seed {chosen.seed} --trial '{row['first_failed']}'"
            )
    if not said["failures"]:
        shutil.rmtree(chosen.out / "failed", ignore_errors=True)
    return 1 if said["failures"] else 0


def _rows(outcomes: list[Outcome]) -> list[dict]:
    rows = {}
    for outcome in sorted(outcomes, key=lambda o: o.kind):
        none = {"kind": outcome.kind, **dict.fromkeys(COLUMNS, 0), "first_failed": "", "why": ""}
        row = rows.setdefault(outcome.kind, none)
        if outcome.state == "not tried":
            row["not_tried"] += outcome.tries
            continue
        row["tried"] += outcome.tries
        row[outcome.state] += outcome.tries
        row["refused"] += outcome.tries if outcome.said == "refused" else 0
        if outcome.state == "failed" and not row["first_failed"]:
            row |= {"first_failed": outcome.name, "why": outcome.said}
    return list(rows.values())


def table(rows: list[dict]) -> str:
    """In Markdown, with a line of sums."""
    sums = {"kind": "**all**"} | {c: sum(row[c] for row in rows) for c in COLUMNS}
    lines = [
        "| what | tried | passed | of them refused in one line | failed | could not be tried here |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {row['kind']} | " + " | ".join(f"{row[c]:,}" for c in COLUMNS) + " |" for row in [*rows, sums]]
    return "\n".join(lines) + "\n"


def write_docs(folder: Path, parts) -> int:
    """The counts of the last long form of each part, between the marks in docs/reliability.md; which parts were not run."""
    found = {part: folder / f"long-{part}.json" for part in parts}
    said = {part: json.loads(path.read_text(encoding="utf-8")) for part, path in found.items() if path.is_file()}
    if not said:
        print(f"{folder}: no counts of a long form; run it with --long, all at once or a part at a time")
        return 2
    when: dict[str, list[str]] = {}
    for part in parts:
        one = said.get(part)
        line = "not run in the long form on this version; a handful of each is, in the tests"
        if one:
            line = f"{one['finished']}, seed {one['seed']}, commit {one['commit']}, {one['machine']}, {one['minutes']} minutes"
            line += f" with {one['lanes']} trials at a time"
        when.setdefault(line, []).append(part)
    lines = "\n".join(f"- {', '.join(names)}: {line}" for line, names in when.items())
    rows = [row for one in said.values() for row in one["rows"]]
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n{lines}\n\n{table(rows)}{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
