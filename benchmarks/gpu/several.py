"""Two processes on one GPU: the training of one; killed, they leave nothing behind and the rest is done by one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from osdtw_lib.artifacts.files import read_tensors
from osdtw_lib.config.paths import PROJECT

from .correct import LOSS, losses_apart
from .pictures import parameters
from .rows import Step
from .way import FILE, command

WORKER = Path(__file__).with_name("one_of_several.py")
PATIENCE, GONE = 180.0, 20.0  # seconds until a stage has ended, and until what was killed has gone
SETTINGS = (
    "data.cache=true",
    "model.init=scratch",
    "recipe.precision=fp32",
    "stage1.epochs=3",
    "stage1.warmup_epochs=0",
    "workers=1",
    "name=several",
)


def several(step: Step) -> None:
    before = place(step, "before")
    for stage in ("split", "start"):
        must(*command(step, arguments(step, before, stage)))
    one = copied(before, place(step, "one"))
    must(*command(step, arguments(step, one, "stage1")))
    if not step.quick:  # else what is killed says as much
        with step.attempt("one process again"):
            again = copied(before, place(step, "again"))
            must(*command(step, arguments(step, again, "stage1")))
            compare(step, one, again, "one process again = one")  # how far a GPU repeats itself
        with step.attempt("two processes"):
            two = copied(before, place(step, "two"))
            with two_processes(step, two) as process:
                must(status_of(process), "two processes")
            compare(step, one, two, "two processes = one")
    for name in ("SIGKILL",) if step.quick else ("SIGKILL", "SIGTERM"):
        with step.attempt(name):
            cut = copied(before, place(step, name))
            killed(step, cut, name)
            must(*command(step, arguments(step, cut, "stage1")))
            compare(step, one, cut, f"two processes, {name}, the rest by one = one")
    if not step.quick:
        with step.attempt("a process that sees no checkpoint"):
            cut = copied(before, place(step, "deaf"))
            killed(step, cut, "SIGKILL")
            with two_processes(step, cut, "--deaf") as process:
                status = status_of(process)
            if status == 0:  # they agreed on where to go on
                compare(step, one, cut, "one of two sees no checkpoint = one")
            else:
                step.add("one of two sees no checkpoint: it ends at once", 0, most=0, note=f"status {status}")


def place(step: Step, name: str) -> Path:
    return step.work / "several" / name


def copied(source: Path, target: Path) -> Path:
    return shutil.copytree(source, target)


def arguments(step: Step, outputs: Path, stage: str) -> list[str]:
    # two processes share the card; of six trainings in fp32 twelve blocks would take an A100 more than ten minutes
    size = () if step.quick else ("recipe.batch_size=256", "recipe.micro_batch=32", "model.depth=4")
    asked = parameters(step, *SETTINGS, *size, f"outputs={outputs}")
    return [stage, FILE, *(word for change in asked for word in ("--set", change))]


def must(status: int, said: str) -> None:
    if status:
        raise RuntimeError(f"ended with status {status}: {' / '.join(said.splitlines()[-2:])}")


@contextlib.contextmanager
def two_processes(step: Step, outputs: Path, *words: str) -> Iterator[subprocess.Popen]:
    """Stage 1 in two processes, which end with the block."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(WORKER), *words, *arguments(step, outputs, "stage1")]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def status_of(process: subprocess.Popen) -> int:
    """The exit status. Raises RuntimeError where it does not end."""
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"did not end in {PATIENCE:.0f} s") from None


def killed(step: Step, outputs: Path, name: str) -> None:
    """Both run until there is a checkpoint; then the process that started them is killed, and what is left is counted."""
    with two_processes(step, outputs) as process:
        ended = time.monotonic() + PATIENCE
        while not list(outputs.glob("several/stage1/*.checkpoint")):
            if time.monotonic() > ended or process.poll() is not None:
                raise RuntimeError(f"no checkpoint within {PATIENCE:.0f} s")
            time.sleep(0.02)
        process.send_signal(getattr(signal, name))
        status_of(process)
        ended = time.monotonic() + GONE
        while (left := working_on(outputs)) and time.monotonic() < ended:
            time.sleep(0.1)
    step.add(f"{name}: processes left after {GONE:.0f} s", len(left), "processes", most=0)


def working_on(outputs: Path) -> list[str]:
    """Processes of this machine, this one aside, whose command names these outputs."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().decode("utf-8", "replace").split("\0")
            if f"outputs={outputs}" in words and file.parent.name != str(os.getpid()):
                found.append(file.parent.name)
    return found


def compare(step: Step, expected: Path, found: Path, what: str) -> None:
    curves = [pd.read_csv(outputs / "several" / "stage1" / "curves.csv") for outputs in (found, expected)]
    step.add(f"{what}: losses", losses_apart(*curves), "relative", most=LOSS)
    trained = [read_tensors(outputs / "several" / "stage1" / "head.safetensors") for outputs in (found, expected)]
    a, b = (torch.cat([t.double().reshape(-1) for t in tensors.values()]) for tensors in trained)
    step.add(f"{what}: weights", float((a - b).norm() / b.norm()), "L2")
