"""A disk that is full at some moment: one line and status 2, or on without a checkpoint; with room made, the identical end."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from osdtw_lib.config.paths import PROJECT
from osdtw_lib.fisher import diagonal
from osdtw_lib.training import loop

from . import mounts
from .kills import CHAIN
from .runs import STAGES, Finished, ends_the_same, finish, same, sound
from .trials import Failed, Place, Trial

ROOM = 256 * 2**20
HALF_WRITTEN = (".part", ".new", ".write-test")


def trials(long: bool, run: Finished) -> list[Trial]:
    files = [p.stat().st_size for p in run.folder.rglob("*") if p.is_file()]
    whole = sum(-(-size // 4096) * 4096 for size in files)
    found = [
        Trial(
            "disk full: stages",
            f"disk/stages/{n}",
            lambda place, share=(n + 0.5) / moments: _stages(place, run, share * whole),
            6,
        )
        for moments in (8 if long else 1,)
        for n in range(moments)
    ]
    if long:  # two moments among the pages, which are larger than all else
        found += [
            Trial(
                "disk full: the job through the notebooks",
                f"disk/notebooks/{n}",
                lambda place, size=size: _notebooks(place, run, size),
                120,
                1,
                900,
            )
            for n, size in enumerate((3 * 2**20, 9 * 2**20))
        ]
    found.append(
        Trial(
            "no file larger than a size: stages",
            "disk/limit",
            lambda place: _limited(place, run, place.random.choice(sorted(files)[-12:])),
            6,
        )
    )
    return found


def _stages(place: Place, run: Finished, size: float) -> str | None:
    params, outputs = _on_a_small_disk(place, run, int(size))
    if place.random.random() < 0.5:
        loop.CHECKPOINT_SECONDS, diagonal.CHECKPOINT_SECONDS, diagonal.CHECK_EVERY = 0, 0, 1
    complete = sound(finish(params, CHAIN), "on the small disk")
    if not complete:
        _nothing_half_written(outputs)
    mounts.larger_disk(outputs, ROOM)
    for stage in set(STAGES) - set(CHAIN):
        shutil.copytree(run.folder / stage, outputs / "small" / stage)
    if ends_the_same(params, run, CHAIN) == "refused":
        raise Failed("with room made, the same command does not go on")
    return None if complete else "refused"


def _on_a_small_disk(place: Place, run: Finished, size: int) -> tuple[Path, Path]:
    """(the parameter file, its outputs, which are an empty disk of so many bytes)"""
    params = run.copy(place.folder)
    mounts.alone()
    mounts.small_disk(place.folder / "outputs", size)
    return params, place.folder / "outputs"


def _nothing_half_written(outputs: Path) -> None:
    left = [p.name for p in outputs.rglob("*") if any(mark in p.name for mark in HALF_WRITTEN)]
    if left:
        raise Failed(f"left half written: {', '.join(left[:3])}")


def _limited(place: Place, run: Finished, size: int) -> str | None:
    """What needs no rights: a limit on the size of a file, which the largest ones pass."""
    params = run.copy(place.folder, *CHAIN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    complete = sound(finish(params, CHAIN), "with a limit on files")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    _nothing_half_written(params.parent / "outputs")
    if ends_the_same(params, run, CHAIN) == "refused":
        raise Failed("without the limit, the same command does not go on")
    return None if complete else "refused"


def _notebooks(place: Place, run: Finished, size: int) -> str | None:
    params, outputs = _on_a_small_disk(place, run, size)
    environment = dict(os.environ) | {"PYTHONPATH": str(PROJECT), "HOME": str(place.folder)}
    for room in (None, ROOM):
        if room:
            mounts.larger_disk(outputs, room)
        done = subprocess.run(
            [sys.executable, "-m", "osdtw_lib", "run", str(params)],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if "Traceback" in done.stdout + done.stderr or (done.returncode and done.stderr.count("error: ") != 1):
            raise Failed(f"on {size / 1e6:.1f} MB: status {done.returncode}: {done.stderr[-300:]}")
        if not room:
            refused = done.returncode != 0
    if done.returncode:
        raise Failed(f"with room made: status {done.returncode}: {done.stderr[-300:]}")
    same(outputs / "small", run.digests)
    return "refused" if refused else None
