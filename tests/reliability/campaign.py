"""Kills, damaged and mutated files, full disks, odd surroundings: tried by the hundred on tiny runs, and counted.

python tests/reliability/campaign.py --long          everything, about an hour on two idle cores
python tests/reliability/campaign.py                 a handful of each kind, as the tests do
python tests/reliability/campaign.py --trial NAME    one of them again, by the name the table gives
python tests/reliability/campaign.py --write-docs    the counts of the last long form of each part into docs/reliability.md
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # sums in one order, and forks are sound
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import tempfile
import time

import torch
from reliability import damage, disk, kills, mutations, report, runs, surroundings
from reliability.readers import pages
from reliability.trials import Outcome, Trial, run_trials

from osdtw_lib.config.paths import PROJECT

PARTS = ("kills", "damage", "mutations", "disk", "surroundings")


def main() -> int:
    """Exit status: 0 where all trials passed, 1 where one failed, 2 where none of the name is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="all of them")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part alone (may be given again)")
    parser.add_argument("--trial", metavar="NAME", help="one trial, or all whose names begin so")
    parser.add_argument("--lanes", type=int, default=2, help="trials at a time (default 2)")
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "reliability", help="where the counts go")
    parser.add_argument(
        "--write-docs", action="store_true", help="put the counts of the last long form of each part into docs/reliability.md"
    )
    chosen = parser.parse_args()
    if chosen.write_docs:
        return report.write_docs(chosen.out, PARTS)
    torch.set_num_threads(1)
    runs.prepare()
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        return _campaign(chosen, Path(folder))


def _campaign(chosen, folder: Path) -> int:
    started = time.monotonic()
    parts = chosen.only or PARTS
    if chosen.trial:
        chosen.long, parts = True, [part for part in PARTS if chosen.trial.startswith(part)]
    finished = _finished_runs(folder, chosen, parts)
    trials = [t for t in _trials(chosen, parts, finished) if not chosen.trial or t.name.startswith(chosen.trial)]
    if not trials:
        print(f"error: no trial is called {chosen.trial}", file=sys.stderr)
        return 2
    expected = sum(trial.seconds for trial in trials) / chosen.lanes
    tries = sum(trial.tries for trial in trials)
    print(f"{tries:,} tries, about {expected / 60:.0f} minutes on {chosen.lanes} idle cores, seed {chosen.seed}", flush=True)
    told = _Teller(len(trials))
    outcomes = run_trials(trials, chosen.seed, chosen.out / "failed", chosen.lanes, told)
    return report.write(outcomes, chosen, parts, time.monotonic() - started)


def _finished_runs(folder: Path, chosen, parts) -> dict[str, runs.Finished]:
    """The runs to try things on: one in this process, which has then loaded all it needs; the others in the lanes."""
    print("making the runs to try things on ...", flush=True)
    for name in ("small", "pictures", "together", "notebooks"):
        (folder / name).mkdir()
    finished = {"small": runs.make(folder / "small")}
    pages(finished["small"].folder)
    wanted = {"pictures": lambda place: _made(runs.make_of_pictures(folder / "pictures"))}
    if "kills" in parts and chosen.long:
        wanted["together"] = lambda place: _made(runs.make(folder / "together", runs.TOGETHER))
    if "damage" in parts and chosen.long:
        wanted["notebooks"] = lambda place: _made(kills.make_through_notebooks(place, folder / "notebooks"))
    making = [Trial("a run to try things on", name, work, limit=900) for name, work in wanted.items()]
    for outcome in run_trials(making, chosen.seed, folder / "making", chosen.lanes, lambda outcome: None):
        if outcome.state != "passed":
            raise RuntimeError(f"{outcome.name}: the run to try things on cannot be made: {outcome.said}\n{outcome.log}")
        finished[outcome.name] = runs.found(folder / outcome.name)
        pages(finished[outcome.name].folder)
    return finished


def _made(run: runs.Finished) -> None:
    """A trial's answer: nothing to say."""


def _trials(chosen, parts, finished: dict[str, runs.Finished]) -> list[Trial]:
    small = finished["small"]
    all_of = {
        "kills": lambda: kills.trials(chosen.long, small, finished.get("together")),
        "damage": lambda: damage.trials(chosen.long, {n: r for n, r in finished.items() if n != "together"}, chosen.seed),
        "mutations": lambda: mutations.trials(chosen.long, small),
        "disk": lambda: disk.trials(chosen.long, small),
        "surroundings": lambda: surroundings.trials(chosen.long, small, finished["pictures"]),
    }
    found = [trial for part in parts for trial in all_of[part]()]
    return sorted(found, key=lambda trial: -trial.seconds)  # the longest first: no lane waits at the end


class _Teller:
    """A line for each that failed, and one now and then."""

    def __init__(self, trials: int):
        self.trials, self.done, self.failed, self.last = trials, 0, 0, time.monotonic()

    def __call__(self, outcome: Outcome) -> None:
        self.done += 1
        self.failed += outcome.state == "failed"
        if outcome.state == "failed":
            print(f"FAILED {outcome.name}: {outcome.said[:400]}", flush=True)
        if time.monotonic() - self.last > 20:
            print(f"{self.done:,} of {self.trials:,} trials, {self.failed} failed", flush=True)
            self.last = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
