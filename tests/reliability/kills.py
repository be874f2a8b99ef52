"""Killed at random moments: the same command goes on, ends in the identical files, and nothing is left running or lying."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from small_run import write_small

from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages import NOTEBOOKS

from .runs import CHANGES, STAGES, Finished, ends_the_same, kept, same, swept, victim
from .trials import Failed, Place, Trial, alive, fork, nothing_left, wait

CHAIN = tuple(s for s in STAGES if s not in ("simulation", "label_dependence"))  # each needs what stands before it
SHARED = ("start", "stage1", "fisher", "direct", "stage2", "stage3", "baselines")  # what several processes do together
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
ENDS = {"kill -9": (-9,), "SIGTERM": (-15, 143, 130), "SIGINT": (130,)}
BOOK_SECONDS = 13.0  # about what a notebook takes on an idle core
# kills of the stage functions in one process, in two, and of the job through the notebooks (how many in a chain)
LONG = {"kill -9": (70, 10, (5, 5, 5, 5)), "SIGTERM": (14, 4, (2,)), "SIGINT": (14, 4, (2,))}
SHORT = {"kill -9": (4, 0, ()), "SIGTERM": (1, 0, ()), "SIGINT": (1, 0, ())}


def trials(long: bool, alone: Finished, together: Finished | None) -> list[Trial]:
    found = []
    for name, (one, two, chains) in (LONG if long else SHORT).items():
        slug = name.replace(" -", "")
        found += [
            Trial(
                f"{name}: stages, one process",
                f"kills/{slug}/one/{n}",
                lambda place, name=name, n=n: _one(place, name, alone, list(STAGES)[(5 * n + 1) % len(STAGES)]),
                3,
            )
            for n in range(one)
        ]
        found += [
            Trial(
                f"{name}: stages, two processes",
                f"kills/{slug}/two/{n}",
                lambda place, name=name, n=n: _two(place, name, together, SHARED[n % len(SHARED)]),
                30,
            )
            for n in range(two)
        ]
        found += [
            Trial(
                f"{name}: the job through the notebooks",
                f"kills/{slug}/notebooks/{n}",
                lambda place, name=name, kills=kills: _notebooks(place, name, kills, alone),
                90 * (1 + 0.57 * kills),
                kills,
                1800,
            )
            for n, kills in enumerate(chains)
        ]
    return found


def _one(place: Place, name: str, run: Finished, stage: str) -> None:
    stages = CHAIN[CHAIN.index(stage) :] if stage in CHAIN else (stage,)
    eager, moment = place.random.random() < 0.7, place.random.uniform(0, 1.1 * run.seconds[stage])
    params = write_small(place.folder, run.changes)
    pid = _struck(place, name, moment, run, stages, lambda: victim(params, stages, eager))
    _ended_well(place, name, pid, 2.0)
    _goes_on(params, run, stages)


def _two(place: Place, name: str, run: Finished, stage: str) -> None:
    moment = place.random.uniform(0, run.seconds[stage])
    params = write_small(place.folder, run.changes)
    pid = _struck(place, name, moment, run, (stage,), lambda: victim(params, (stage,), False))
    _ended_well(place, name, pid, 5.0)
    _goes_on(params, run, (stage,))


def _goes_on(params: Path, run: Finished, stages) -> None:
    if ends_the_same(params, run, stages) == "refused":
        raise Failed("the same command does not go on")


def _struck(place: Place, name: str, moment: float, run: Finished, stages, work) -> int:
    """work() in a process that gets the signal after so many seconds, on a copy of the run without the stages; its id.

    One that was done by then was not struck: again, earlier. Raises Failed for an end that a signal should not have.
    """
    for _ in range(6):
        run.copy(place.folder, *stages)
        log = place.folder / "victim.txt"
        log.unlink(missing_ok=True)
        pid = fork(work, log)
        status = wait(pid, moment)
        if status is None:
            os.kill(pid, SIGNALS[name])
            status = wait(pid, 30)
        if status == 0:
            moment /= 2
            continue
        if status not in ENDS[name]:
            said = log.read_text(errors="replace").strip()[-300:]
            raise Failed(f"ended with {status} {moment:.2f} s after its start: {said or 'nothing said'}")
        return pid
    raise Failed("was done before any signal reached it")


def _ended_well(place: Place, name: str, session: int, seconds: float) -> None:
    nothing_left(session, seconds)
    if name == "kill -9":
        return  # nobody was there to clear up
    said = (place.folder / "victim.txt").read_text(errors="replace")
    if "Traceback" in said:
        raise Failed(f"a traceback: {said[-300:]}")
    if left := list((place.folder / "tmp").iterdir()):
        raise Failed(f"left lying in the folder for temporary files: {', '.join(p.name for p in left[:3])}")


def _notebooks(place: Place, name: str, kills: int, run: Finished) -> None:
    """The job killed in one notebook after another, gone on with after each, then let to its end."""
    params = run.copy(place.folder, *(p.name for p in run.folder.iterdir()))
    books = sorted(place.random.sample(list(NOTEBOOKS), kills))
    for book in books:
        # the job, or the kernel in which the notebook runs; one that waits takes no SIGINT
        whole = name == "SIGINT" or place.random.random() < 0.6
        _kill_in(place, name, params, book, place.random.uniform(0, BOOK_SECONDS), whole)
        done = [p.parent for p in params.parent.glob("outputs/small/**/manifest.json") if _whole(p)]
        within = tuple(f"{folder.relative_to(params.parent / 'outputs' / 'small')}/" for folder in done)
        if within:
            same(params.parent / "outputs" / "small", run.digests, within)
    process = _job(place, params)
    status, out = process.wait(600), _said(place)
    if status or "Traceback" in out:
        raise Failed(f"killed in {', '.join(books)}: the same command ends with {status}: {out[-300:]}")
    same(params.parent / "outputs" / "small", run.digests)
    swept(params.parent / "outputs" / "small")
    nothing_left(process.pid, 10)
    if not (params.parent / "outputs" / "small" / "index.html").is_file():
        raise Failed("no report")


def _whole(manifest: Path) -> bool:
    try:
        return "key" in json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Failed(f"{manifest.parent.name}: half a manifest ({error})") from None


def make_through_notebooks(place: Place, folder: Path) -> Finished:
    """The job through the notebooks, uninterrupted."""
    status = _job(place, write_small(folder, CHANGES)).wait(800)
    if status:
        raise Failed(_said(place)[-500:])
    return kept(folder, CHANGES, {})


def _job(place: Place, params: Path) -> subprocess.Popen:
    environment = dict(os.environ) | {"PYTHONPATH": str(PROJECT), "HOME": str(place.folder)}
    with (place.folder / "job.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "osdtw_lib", "run", str(params)],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _said(place: Place) -> str:
    return (place.folder / "job.txt").read_text(encoding="utf-8", errors="replace")


def _kill_in(place: Place, name: str, params: Path, book: str, moment: float, whole: bool) -> None:
    process = _job(place, params)
    while f"notebook {book} " not in _said(place) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(moment)
    kernels = [pid for pid, command in alive(os.getpid()).items() if "ipykernel_launcher" in command]
    target = kernels[0] if kernels and not whole else process.pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, SIGNALS[name])
    where = f"{name} {'of the job' if target == process.pid else 'of the kernel'} {moment:.1f} s into {book}"
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{where}: still there after 60 s") from None
    print(f"--- {where}: {status}\n{_said(place)}")
    if "Traceback" in _said(place):
        raise Failed(f"{where}: a traceback: {_said(place)[-300:]}")
    if target == process.pid and status not in (*ENDS[name], 0):
        raise Failed(f"{where}: ended with {status}: {_said(place)[-300:]}")
    nothing_left(process.pid, 10)
