"""What the notebooks need not wait for, made meanwhile by one process beside them.

Networks as small as the digits' are trained by one thread (stages/run.py), so that a second core has nothing to do. On it a
process makes what stands on less than all that comes before it in the notebooks: the simulation on nothing, the methods
compared on the start alone. A notebook finds it done, waits for what is being made (stages/pipeline.py), or makes by itself what
is not. Whatever goes wrong here is met, and said, there.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from ..config.schema import Config
from ..stages import CONTENTS, execute
from ..stages.run import Run
from .kernels import forked

STAGES = ("simulation", "baselines", "label_dependence")
LOOK = 1.0  # seconds between two looks whether what a stage needs is there


@contextlib.contextmanager
def beside(run: Run, books: list[str]) -> Iterator[None]:
    """While inside, a process makes those STAGES that belong to these notebooks, where there is a core for it."""
    stages = [stage for stage in STAGES if CONTENTS[stage].notebook in books]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}
    process = forked(_make_all, (run.config, stages), one_core) if stages and _has_room(run) else None
    try:
        yield
    finally:
        if process:
            process.kill()  # unless a notebook failed it has nothing left to do
            process.join()


def _has_room(run: Run) -> bool:
    alone = run.workers == 1 and not run.config.reproducible
    return alone and run.by_one_thread and torch.get_num_threads() > 1 and _locks(run.folder)


def _locks(folder: Path) -> bool:
    """Whether folders have locks here, by which a notebook sees that something is being made."""
    there = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(there, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(there)
    return True


def _make_all(config: Config, stages: list[str]) -> None:
    with contextlib.suppress(Exception):
        run = Run(config)
        for name in [name for stage in stages for name in run.artifacts_of(stage)]:
            while not all(_done(run, need) for need in run.needs_of(name)):
                time.sleep(LOOK)
            if run.artifact(name).why_not_done():
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    execute(run, name)
                print(f"  beside: {said.getvalue().splitlines()[-1]}", flush=True)


def _done(run: Run, stage: str) -> bool:
    return not any(run.artifact(name).why_not_done() for name in run.artifacts_of(stage))
