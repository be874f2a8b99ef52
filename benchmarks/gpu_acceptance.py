"""The first hour on a GPU: does it compute what a CPU does, how fast, in what memory; in steps, against bars.

    benchmarks/gpu_acceptance.sh [STEP...] [--device cuda|cpu] [--quick] [--out FOLDER]

Steps run one after the other, each in a process of its own that is given ten minutes; what fails is a row, and the rest
goes on. Rows go to outputs/benchmarks/gpu.csv; a step that is run again replaces its own. Nothing is fetched: an installed
torch and timm (2.6 and 1.0.15 or newer) and the project's folder are enough. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import argparse
import importlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from common import machine, parser, show
from gpu import rows
from gpu.rows import Step

LIMIT = 600  # seconds a step may take
STEPS = {  # name: (where its function is, what it asks)
    "correct": ("gpu.correct", "is it what float64 on the CPU gives: steps, Fisher, kernel, parts, a resumed training; tests"),
    "waits": ("gpu.waits", "where does the processor wait for the GPU in a training step"),
    "mfu": ("gpu.speed", "share of the peak, eager and compiled, synthetic and from decoded JPEGs; what compiling costs"),
    "memory": ("gpu.memory", "peak of Stages 0 to 3 in parts of 128 against the plan, and within 23 GB"),
    "way": ("gpu.way", "every stage from split to tables on 4,096 JPEGs of 1,000 classes, and the time it waits for data"),
    "several": ("gpu.several", "two processes on one GPU: the training of one, killed and resumed"),
    "fisher": ("gpu.speed", "the Fisher's images a second, by a plain pass, its memory, its kernel"),
    "search": ("gpu.speed", "search over the proxy and the explorer's answers at 86 M parameters"),
}


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0, 1 where a bar was missed or a step failed, 2 where it cannot be run here."""
    words = "\n".join(f"  {name:10}{what}" for name, (_, what) in STEPS.items())
    options = parser(__doc__.splitlines()[0], f"steps (default: all)\n{words}")
    options.add_argument("steps", nargs="*", metavar="STEP", help="which steps, of those below")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu, with --quick: shows that it runs")
    options.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # of a step's own process: the folder it may fill
    chosen = options.parse_args(arguments)
    unknown = [name for name in chosen.steps if name not in STEPS]
    if unknown:
        return refuse(f"no step '{unknown[0]}'; there are {', '.join(STEPS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return refuse(f"torch {torch.__version__}, {build}, sees no GPU; --device cpu --quick shows that the steps run")
    if chosen.device == "cpu" and not chosen.quick:
        return refuse("--device cpu is for --quick alone: at full size a CPU would take hours")
    names = chosen.steps or list(STEPS)
    if chosen.inside:
        return one_step(names[0], chosen, chosen.inside)
    print(machine(), flush=True)
    rows.write(chosen.out, [row for row in rows.read(chosen.out) if row["step"] not in names], anew=True)
    with tempfile.TemporaryDirectory(prefix="osdtw-gpu-") as work:
        for name in names:
            print(f"\n== {name}: {STEPS[name][1]}", flush=True)
            if chosen.quick and chosen.device == "cpu":
                one_step(name, chosen, Path(work))
            else:
                own_process(name, chosen, Path(work))
    return verdict(chosen.out, names)


def refuse(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)
    return 2


def one_step(name: str, chosen: argparse.Namespace, work: Path) -> int:
    step = Step(name, torch.device(chosen.device), chosen.quick, chosen.out.resolve(), work)
    with rows.warned() as said, step.attempt("the step"):
        getattr(importlib.import_module(STEPS[name][0]), name)(step)
    step.add("warnings", len(said), most=0, on="", note="; ".join(sorted(said)))
    return 0


def own_process(name: str, chosen: argparse.Namespace, work: Path) -> None:
    """The step in a process group of its own: a crash, an endless wait or a full memory is a row."""
    command = [sys.executable, __file__, name, "--device", chosen.device, "--out", str(chosen.out), "--inside", str(work)]
    one_gpu = os.environ | ({} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_VISIBLE_DEVICES": "0"})
    process = subprocess.Popen(command + ["--quick"] * chosen.quick, env=one_gpu, start_new_session=True)
    ended = ""
    try:
        status = process.wait(LIMIT)
        ended = f"ended with status {status}" if status else ""
    except subprocess.TimeoutExpired:
        ended = f"did not end in {LIMIT} s"
    finally:
        if process.poll() is None or ended:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    if ended:
        Step(name, torch.device(chosen.device), chosen.quick, chosen.out, work).add("the step", math.nan, most=0, note=ended)


def verdict(out: Path, names: list[str]) -> int:
    """Prints the rows and what was missed."""
    found = pd.DataFrame([row for row in rows.read(out) if row["step"] in names], columns=rows.COLUMNS)
    shown = found.assign(value=pd.to_numeric(found["value"], errors="coerce"))
    for name, part in shown.groupby("step", sort=False):
        show(f"GPU acceptance: {name}", part[["quantity", "value", "unit", "bar", "passed", "note"]])
    missed = found[found["passed"] == "False"]
    met, silent = (found["passed"] == "True").sum(), sorted(set(names) - set(found["step"]))
    print(f"{met} bars met, {len(missed)} missed; rows: {out / rows.FILE}")
    for row in missed.itertuples():
        print(f"missed: {row.step}: {row.quantity} {row.value} {row.unit}, {row.bar} {row.note}".rstrip())
    for name in silent:
        print(f"missed: {name}: it wrote no row")
    return 1 if len(missed) or silent else 0


if __name__ == "__main__":
    sys.exit(main())
