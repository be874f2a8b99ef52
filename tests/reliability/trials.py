"""A trial in a process of its own: forked from one that has imported everything, watched, cleared up after, counted.

A fork is sound here as the parent has one thread (OMP_NUM_THREADS=1, and no pool is left open). Whatever is random in a
trial follows from the campaign's seed and the trial's name.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

MARK = "OSDTW_TRIAL"  # holds the id of the trial's process: its programs are found by it, whoever their parent is by now


class Failed(Exception):
    """What was expected and what came instead, in one line."""


class NotTried(Exception):
    """Why this machine cannot try it."""


@dataclass(frozen=True)
class Place:
    """A trial's empty folder, and where all that is random in it comes from."""

    folder: Path
    random: random.Random


@dataclass(frozen=True)
class Trial:
    """work(place) returns a word for the table ("refused") or None; raises Failed or NotTried. It may be several tries."""

    kind: str
    name: str
    work: Callable[[Place], str | None]
    seconds: float = 1.0  # expected, on an idle core
    tries: int = 1
    limit: float = 120.0


@dataclass
class Outcome:
    kind: str
    name: str
    tries: int
    state: str = "failed"  # passed, failed, not tried
    said: str = ""
    seconds: float = 0.0
    log: str = field(default="", repr=False)


def run_trials(trials: list[Trial], seed: int, folder: Path, lanes: int, said: Callable[[Outcome], None]) -> list[Outcome]:
    """Every trial, so many at a time; said(outcome) after each. A failed one's folder is kept, the others' are not."""
    waiting, running, outcomes = list(reversed(trials)), {}, []
    while waiting or running:
        while waiting and len(running) < lanes:
            trial = waiting.pop()
            place = Place(folder / trial.name.replace("/", "-"), random.Random(f"{seed}/{trial.name}"))
            shutil.rmtree(place.folder, ignore_errors=True)
            (place.folder / "tmp").mkdir(parents=True)
            running[fork(lambda t=trial, p=place: _try(t, p), place.folder / "log.txt")] = trial, place, time.monotonic()
        for pid, (trial, place, started) in list(running.items()):
            late = time.monotonic() - started > trial.limit
            if late:
                os.kill(pid, signal.SIGKILL)
            status = wait(pid, 10.0 if late else 0.0)
            if status is None:
                continue
            del running[pid]
            outcomes.append(_outcome(trial, place, time.monotonic() - started, late, pid))
            said(outcomes[-1])
        time.sleep(0.004)
    return outcomes


def _try(trial: Trial, place: Place) -> int:
    os.environ[MARK], os.environ["TMPDIR"] = str(os.getpid()), str(place.folder / "tmp")
    outcome = Outcome(trial.kind, trial.name, trial.tries)
    try:
        outcome.said = trial.work(place) or ""
        outcome.state = "passed"
    except NotTried as reason:
        outcome.state, outcome.said = "not tried", str(reason)
    except Failed as failure:
        outcome.said = " ".join(str(failure).split())
    except BaseException as error:  # a fault of the trial's own, or of what it calls in this process
        outcome.said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        traceback.print_exc()
    (place.folder / "outcome.json").write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    return 0


def _outcome(trial: Trial, place: Place, seconds: float, late: bool, pid: int) -> Outcome:
    try:
        outcome = Outcome(**json.loads((place.folder / "outcome.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        why = f"no answer within {trial.limit:.0f} s" if late else "its process died"
        outcome = Outcome(trial.kind, trial.name, trial.tries, said=why)
    outcome.seconds = round(seconds, 2)
    outcome.log = (place.folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-3000:]
    end(alive(pid, pid))
    if outcome.state != "failed":
        shutil.rmtree(place.folder, ignore_errors=True)
    return outcome


def fork(function: Callable[[], int], log: Path) -> int:
    """function() in a forked process, leader of a session of its own; both its streams go to `log`. Returns its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with who watches it
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            signal.signal(number, handler)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, encoding="utf-8", closefd=False) for n in (1, 2))
        status = function()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def wait(pid: int, seconds: float) -> int | None:
    """The exit status (minus the signal that ended it), or None where it has not ended within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def alive(trial: int, *sessions: int) -> dict[int, str]:
    """{id: command} of living processes in one of the sessions, or that were started below a trial's process."""
    return dict(_alive(f"{MARK}={trial}".encode(), sessions))


def _alive(mark: bytes, sessions: tuple[int, ...]) -> Iterator[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state, _, _, session = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
            marked = mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            if state not in "ZX" and (marked or int(session) in sessions):
                yield int(entry), Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]


def nothing_left(session: int, seconds: float) -> None:
    """Raises Failed where a process of this trial's victim still lives after so many seconds; it is ended then."""
    deadline = time.monotonic() + seconds
    while left := alive(os.getpid(), session):
        if time.monotonic() > deadline:
            end(left)
            raise Failed(f"{len(left)} processes are still there after {seconds:.0f} s: {'; '.join(left.values())[:200]}")
        time.sleep(0.05)


def end(processes: dict[int, str]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
