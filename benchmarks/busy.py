"""Training beside other processes: what it costs, by how OpenMP's threads wait for each other.

    python benchmarks/busy.py [--quick] [--out FOLDER]

The digits' Stage 1 (both networks on one batch, training.fit). A process for each way of waiting, all alive from the
start and all but one asleep; in interleaved rounds each trains alone, then beside two processes that compute without
end. Columns and bars: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import contextlib
import dataclasses
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import pandas as pd
from common import arguments, machine, show, write
from train import InMemory, ours, setups

COLUMNS = ["threads_wait", "idle_steps_per_second", "idle_ratio", "busy_steps_per_second", "busy_ratio", "rounds"]
BEFORE, OURS, PASSIVE = "libgomp's own spin", "as set by osdtw_lib", "asleep (PASSIVE)"
WAYS = {  # what is set before the process starts
    BEFORE: {"GOMP_SPINCOUNT": "300000"},  # what libgomp takes where nothing is set
    OURS: {},
    "a spin of 1000": {"GOMP_SPINCOUNT": "1000"},
    PASSIVE: {"OMP_WAIT_POLICY": "PASSIVE"},
}
IDLE_COST, BUSY_TIMES = 0.10, 3.5  # the bars: of steps/s idle with libgomp's own spin; of the own time idle
MOST_LOAD = 0.5  # before the start; with more the machine was not idle
BESIDE = 2  # processes that compute without end
ENDLESS = "import os; parent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"  # but end with this one


class Timed(InMemory):
    """Batches until `seconds` have passed, two at least; `done` counts them."""

    limit, done = 0.0, 0

    def epoch(self, number: int) -> Iterator:
        started, self.done = time.perf_counter(), 0
        while self.done < 2 or time.perf_counter() - started < self.limit:
            yield from InMemory.epoch(dataclasses.replace(self, warm_up=0, steps=1), number)
            self.done += 1
        self.seconds = time.perf_counter() - started


def trainer(quick: bool) -> None:
    """A process of its own: for each line "seconds" on stdin it trains so long and prints its steps a second."""
    setup = dataclasses.replace(setups(quick)[0], device="cpu")
    one = setup.batches()
    batches = Timed(one.images, one.one, 0, 1)
    train = ours(setup, setup.networks(("head", "tail")), batches)
    train()
    print("ready", flush=True)
    for line in sys.stdin:
        batches.limit = float(line)
        train()
        print(batches.done / batches.seconds, flush=True)


@contextlib.contextmanager
def started(code: list[str], count: int = 1, **options) -> Iterator[list[subprocess.Popen]]:
    """So many processes, which end with the block."""
    processes = [subprocess.Popen([sys.executable, *code], **options) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def steps_per_second(process: subprocess.Popen, seconds: float) -> float:
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return float(process.stdout.readline() or math.nan)


def measure(quick: bool, rounds: int, seconds: float) -> pd.DataFrame:
    ways = {way: WAYS[way] for way in (BEFORE, OURS)} if quick else WAYS
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    idle, busy = ({way: [] for way in ways} for _ in range(2))
    with contextlib.ExitStack() as stack:
        processes = {}
        for way, variables in ways.items():
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": clean | variables}
            code = [__file__, "--trainer", *(["--quick"] if quick else [])]
            (processes[way],) = stack.enter_context(started(code, **pipes))
            if processes[way].stdout.readline() != "ready\n":
                raise SystemExit(f"{way}: the process that trains did not start")
        for _ in range(rounds):
            for way, process in processes.items():
                idle[way].append(steps_per_second(process, seconds))
            with started(["-c", ENDLESS], BESIDE):
                for way, process in processes.items():
                    busy[way].append(steps_per_second(process, seconds))
    rows = []
    for way in ways:
        of_idle = [a / b for a, b in zip(idle[way], idle[BEFORE])]
        slower = [a / b for a, b in zip(idle[way], busy[way])]
        spread = f"{min(of_idle):.2f} to {max(of_idle):.2f}, {min(slower):.1f} to {max(slower):.1f} in {rounds} rounds"
        rows.append((way, median(idle[way]), median(of_idle), median(busy[way]), median(slower), spread))
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict(table: pd.DataFrame) -> Iterator[str]:
    """A line for each bar."""
    row = table.set_index("threads_wait").loc[OURS]
    cost, times = 1 - row["idle_ratio"], row["busy_ratio"]
    yield f"idle it costs {cost:.1%}; at most {IDLE_COST:.0%}: {'met' if cost <= IDLE_COST else 'MISSED'}"
    said = "met" if times <= BUSY_TIMES else "MISSED"
    yield f"beside {BESIDE} busy processes {times:.2f} times the idle time; at most {BUSY_TIMES}: {said}"


def main() -> None:
    if "--trainer" in sys.argv:
        return trainer("--quick" in sys.argv)
    options = arguments(__doc__.splitlines()[0])
    print(machine(), flush=True)
    load = os.getloadavg()[0]
    print(f"load before: {load:.1f} processes over the last minute", flush=True)
    table = measure(options.quick, *((1, 0.2) if options.quick else (5, 4.0)))
    show(f"Stage 1 of the digits, alone and beside {BESIDE} busy processes", table)
    print(*verdict(table), sep="\n", flush=True)
    if load > MOST_LOAD:
        print("these figures decide nothing: other processes were running", flush=True)
    write(table, options.out, "busy.csv")


if __name__ == "__main__":
    main()
