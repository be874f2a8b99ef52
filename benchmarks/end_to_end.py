"""Where the time of the default job goes: stage by stage from its manifests, of which some are made beside others, and the wall.

    python benchmarks/end_to_end.py [--quick] [--out FOLDER]

Runs `python -m osdtw_lib run params/mnist_lt.yaml` into a folder that is removed afterwards, twice: the second time
everything is found done. With --quick a tiny one, and its first stages alone. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import pandas as pd
from common import arguments, machine, show, write
from steps import SMALL

from osdtw_lib.__main__ import main as command_line
from osdtw_lib.artifacts.manifest import MANIFEST
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages import CONTENTS

COLUMNS = ["part", "seconds", "share", "gflops"]
FILE = str(PROJECT / "params" / "mnist_lt.yaml")
TINY = (  # the job of --quick
    *SMALL,
    "model.patch_size=14",
    "stage0.decoder_heads=2",
    "data.largest=20",
    "data.imbalance_ratio=5",
    "data.test_per_class=5",
    *(f"stage{i}.epochs=1" for i in (0, 1)),
    *(f"stage{i}.warmup_epochs=0" for i in (0, 1)),
)


def job(outputs: Path, quick: bool) -> float:
    """Seconds of the whole job."""
    changes = [word for change in (f"outputs={outputs}", *(TINY if quick else ())) for word in ("--set", change)]
    started = time.perf_counter()
    if quick:
        for stage in ("split", "start", "stage1", "fisher"):
            with contextlib.redirect_stdout(io.StringIO()):
                status = command_line([stage, FILE, *changes])
            if status:
                raise SystemExit(f"{stage} ended with status {status}")
    else:
        command = [sys.executable, "-m", "osdtw_lib", "run", FILE, *changes]
        subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def stages(folder: Path) -> list[tuple[str, float, float, float]]:
    """(stage, its seconds, the FLOPs its notes say, when it was done) of every manifest, in the order of the way."""
    made = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob(MANIFEST)]
    order = list(CONTENTS)
    made.sort(key=lambda one: (order.index(one["stage"].split("/")[0]), one["stage"]))
    done = [datetime.fromisoformat(one["finished"]).timestamp() for one in made]
    return [(one["stage"], one["seconds"], one["notes"].get("flops", math.nan), at) for one, at in zip(made, done)]


def at_work(found: list[tuple[str, float, float, float]]) -> float:
    """Seconds in which one stage was at work, or several."""
    total, until = 0.0, -math.inf
    for start, end in sorted((done - seconds, done) for _, seconds, _, done in found):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def table_of(found: list[tuple[str, float, float, float]], wall: float, again: float) -> pd.DataFrame:
    rows = [(name, seconds, seconds / wall, flops / seconds / 1e9 if seconds else math.nan) for name, seconds, flops, _ in found]
    sums = {"sum of the stages": sum(seconds for _, seconds, *_ in found), "no stage at work": max(0.0, wall - at_work(found))}
    sums |= {"wall": wall, "wall, everything found done": again}
    return pd.DataFrame(rows + [(name, value, value / wall, math.nan) for name, value in sums.items()], columns=COLUMNS)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        outputs = Path(name) / "outputs"
        wall = job(outputs, options.quick)
        found = stages(outputs)
        table = table_of(found, wall, job(outputs, options.quick))
    show("The default job, stage by stage", table)
    write(table, options.out, "end_to_end.csv")


if __name__ == "__main__":
    main()
