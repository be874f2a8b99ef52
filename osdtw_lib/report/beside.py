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
from ..stages import CONTENTS, NOTEBOOKS, execute
from ..stages.run import Run
from .kernels import forked

STAGES = ("simulation", "baselines", "label_dependence")
LOOK = 1.0  # seconds between two looks whether what a stage needs is there


@contextlib.contextmanager
def beside(run: Run, books: list[str]) -> Iterator[None]:
    """While inside, a process makes those STAGES that belong to these notebooks, where there is a core for it."""
    stages = [stage for stage in STAGES if CONTENTS[stage].notebook in books and stage != NOTEBOOKS[books[0]][0]]
    one_core = os.environ | {"OMP_NUM_THREADS": "1"}
    process = forked(_make_all, (run.config, stages), one_core) if stages and _has_room(run) else None
    try:
        yield
    finally:
        if process and process.is_alive():  # a notebook has failed
            process.kill()
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
    run = Run(config)
    for name in [name for stage in stages for name in _in_order(run, stage)]:
        with contextlib.suppress(Exception):
            while any(need.why_not_done() for need in run.artifact(name).inputs):
                time.sleep(LOOK)
            if run.artifact(name).why_not_done():
                with contextlib.redirect_stdout(io.StringIO()) as said:
                    execute(run, name)
                last = said.getvalue().splitlines()[-1]
                if ": done in" in last:  # else the notebook was faster
                    print(f"  beside: {last}", flush=True)


def _in_order(run: Run, stage: str) -> list[str]:
    """The last method first, as notebook 06 begins with the first; but those that stand on another one's network at the end."""
    names = run.artifacts_of(stage)[::-1]
    return sorted(names, key=lambda name: any(need.name in names for need in run.artifact(name).inputs))
