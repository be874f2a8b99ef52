"""The whole way: every stage by the command line over thousands of JPEGs, and how long each waits for data."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from statistics import mean

from osdtw_lib.__main__ import main
from osdtw_lib.config.paths import PROJECT

from .pictures import parameters
from .rows import Step, nvidia_smi

FILE = str(PROJECT / "params" / "imagenet_lt.yaml")
STAGES = ("split", "start", "stage1", "fisher", "direct", "proxy", "stage2", "stage3", "baselines", "tables")
FIRST = ("split", "start", "stage1")
EPOCHS = {"stage0": 3, "stage1": 3, "stage2": 12, "stage3": 3}  # Stage 2, whose rate has a bar, past its first seconds
RATE = 2000  # images/s of Stage 2 from the cache, on an H100
LARGE = """
import sys
from osdtw_lib.__main__ import main
from osdtw_lib.data import readers
readers.ON_DEVICE_BYTES = min(0, readers.ON_DEVICE_BYTES)  # as of a data set that is too large to lie on the device
sys.exit(main(sys.argv[1:]))
"""
SUMMARY = re.compile(r": (\d+) images/s, (\d+) % of the time waiting for data(?:, MFU (\d+) %)?")


def way(step: Step) -> None:
    """All stages from the cache; from the files the first."""
    for where, stages, changes in (
        ("cache", STAGES, ("data.cache=true",)),
        ("files", FIRST, ("data.cache=false", "name=from_files")),
    ):
        for stage in stages:
            with step.attempt(f"{stage} from {where}"):
                one_stage(step, where, stage, *changes)


def one_stage(step: Step, where: str, stage: str, *changes: str) -> None:
    epochs = [f"{name}.epochs={1 if step.quick else count}" for name, count in EPOCHS.items()]
    short = [f"{name}.warmup_epochs=0" for name in ("stage0", "stage1", "stage2")]
    asked = parameters(step, "baselines=[balanced_bce]", "direct.images=500", *epochs, *short, *changes)
    arguments = [stage, FILE, *(word for change in asked for word in ("--set", change))]
    started = time.perf_counter()
    with busy_shares() as busy:
        status, said = command(step, arguments)
    seconds = time.perf_counter() - started
    what = f"{stage} from {where}"
    step.add(f"{what}: exit status", status, most=0, note="" if status == 0 else " / ".join(said.splitlines()[-2:])[:200])
    step.add(f"{what}: the whole command", seconds, "s")
    if found := SUMMARY.search(said):
        least = RATE if stage == "stage2" and where == "cache" else None
        step.add(f"{what}: rate", int(found[1]), "images/s", least=least, on="H100")
        step.add(f"{what}: waiting for data", int(found[2]), "% of the time")
        if found[3]:
            step.add(f"{what}: MFU", int(found[3]) / 100, "of the peak")
    if busy:
        step.add(f"{what}: GPU at work, by nvidia-smi, starting included", mean(busy), "% of the time")


def command(step: Step, arguments: list[str]) -> tuple[int, str]:
    """(exit status, what it says) of `python -m osdtw_lib`, its cache read part by part; with --quick in this process."""
    if step.quick:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return main(arguments), said.getvalue()
    whole = [sys.executable, "-c", LARGE, *arguments]
    done = subprocess.run(whole, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


@contextlib.contextmanager
def busy_shares() -> Iterator[list[float]]:
    """While inside, percent of the time in which the first GPU has worked, every second; nothing without nvidia-smi."""
    shares, ended = [], threading.Event()

    def look() -> None:
        while not ended.wait(1.0) and (found := nvidia_smi("utilization.gpu")):
            if found[0].strip().isdigit():  # a part of a GPU does not say
                shares.append(float(found[0]))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield shares
    finally:
        ended.set()
        looking.join()
