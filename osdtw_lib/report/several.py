"""Several parameter files at once on a machine of several GPUs: a process a file, each on a group of GPUs and cores of its own.

One file a GPU is more work an hour than all GPUs a file: nothing is summed over processes, and no GPU waits while one process
searches or writes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from ..artifacts.files import make_folder
from ..backend.worker import end_with
from ..backend.threads import AT_ONCE, cores
from ..errors import UserError

GRACE = 20.0  # seconds that a file's process has to end in after an interruption


@dataclass(frozen=True)
class Job:
    """A parameter file's run: what stands before its lines, its outputs/NAME, and the command that makes it."""

    label: str
    folder: Path
    command: tuple[str, ...]

    @property
    def log(self) -> Path:
        return self.folder / "run.log"


def groups_of(gpus: list[str], jobs: int, size: int | None = None) -> list[list[str]]:
    """The GPUs in groups of `size`, or in as many groups as there are jobs, of sizes that differ by one at most.

    Raises UserError where there are fewer GPUs than one group needs.
    """
    if size is None:
        number = max(1, min(jobs, len(gpus)))
        bounds = [len(gpus) * i // number for i in range(number + 1)]
        return [gpus[a:b] for a, b in zip(bounds, bounds[1:])]
    if size > len(gpus):
        raise UserError(f"--gpus-per-run {size}: {len(gpus)} GPUs are visible")
    return [gpus[i : i + size] for i in range(0, len(gpus) - size + 1, size)]


def run_side_by_side(jobs: list[Job], groups: list[list[str]]) -> dict[Job, int]:
    """The exit status of every job. Each waits for a free group; one that fails keeps no other from running.

    What a job prints is printed here behind its label and kept in its log. On an interruption, or SIGTERM, all jobs have the
    same signal and GRACE seconds; what is left then is killed.
    """
    before = signal.signal(signal.SIGTERM, _ended)
    waiting, free, statuses = deque(jobs), deque(zip(groups, _shares(len(groups)))), {}
    running: list[_Running] = []
    width = max(len(job.label) for job in jobs)
    with selectors.DefaultSelector() as pipes:
        try:
            while waiting or running:
                while waiting and free:
                    job, place = waiting.popleft(), free.popleft()
                    try:
                        running.append(_Running(job, *place, width, len(groups)))
                    except (UserError, OSError) as error:  # its folder cannot be written
                        print(f"error: {job.label}: {error}", file=sys.stderr, flush=True)
                        statuses[job] = 2
                        free.append(place)
                        continue
                    pipes.register(running[-1].pipe, selectors.EVENT_READ, running[-1])
                for one in _ended_now(pipes):
                    running.remove(one)
                    free.append((one.gpus, one.share))
                    statuses[one.job] = one.process.returncode
        except (KeyboardInterrupt, _Terminated) as stop:
            number = signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT
            for one in running:
                one.process.send_signal(number)
            deadline = time.monotonic() + GRACE
            while pipes.get_map() and time.monotonic() < deadline:
                _ended_now(pipes)
            raise
        finally:
            for one in running:
                one.end()
            signal.signal(signal.SIGTERM, before)
    return statuses


class _Terminated(SystemExit):
    pass


def _ended(number, frame):
    raise _Terminated(128 + number)


def _ended_now(pipes: selectors.BaseSelector) -> list[_Running]:
    """Pass on what was printed, and give those that have ended since."""
    ended, ready = [], [key for key, _ in pipes.select(0.5)]
    for key in list(pipes.get_map().values()):
        # a process of its own may hold the pipe for longer than it lives
        if not (key.data.passes_on() if key in ready else key.data.process.poll() is None):
            pipes.unregister(key.fileobj)
            key.data.end()
            ended.append(key.data)
    return ended


class _Running:
    """A job at work: its process and log."""

    def __init__(self, job: Job, gpus: list[str], share: set[int] | None, width: int, at_once: int):
        self.job, self.gpus, self.share = job, gpus, share
        self.prefix, self.rest = f"{job.label:{width}} | ", b""
        number = len(share) if share else cores()
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus), "PYTHONIOENCODING": "utf-8", AT_ONCE: str(at_once)}
        threads = environment.get("OMP_NUM_THREADS", "")
        if threads.isdecimal() and int(threads) > number:
            environment["OMP_NUM_THREADS"] = str(number)
        make_folder(job.folder)
        self.log = job.log.open("a", buffering=1, encoding="utf-8")
        self._say(f"on GPU {','.join(gpus)} and {number} cores; log: {job.log}".encode())
        parent = os.getpid()

        def settle() -> None:
            end_with(parent)
            if share:
                os.sched_setaffinity(0, share)

        self.process = subprocess.Popen(
            job.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=settle,
            start_new_session=True,  # a terminal's interruption reaches it once, by way of this process
        )
        self.pipe, self.ended = self.process.stdout, False
        assert self.pipe is not None

    def passes_on(self) -> bool:
        """Print and keep the lines that have come; whether more may follow."""
        came = os.read(self.pipe.fileno(), 1 << 16)
        *lines, self.rest = (self.rest + came).split(b"\n")
        for line in lines:
            self._say(line)
        self.ended = not came
        return not self.ended

    def _say(self, line: bytes) -> None:
        if text := line.decode("utf-8", "replace").rstrip():
            with contextlib.suppress(OSError):  # a full disk is the job's own to say
                self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")
            print(self.prefix + text, flush=True)

    def end(self) -> None:
        """Wait for a process that has ended or closed its output; one that still has it open is killed."""
        if self.process.poll() is None and not self.ended:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._say(self.rest)
        with contextlib.suppress(OSError):
            self.log.close()


def _shares(number: int) -> list[set[int] | None]:
    """Cores for each of `number` processes, as many for each, neighbours together; None: all, where there are too few."""
    each = cores() // number
    if each < 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * number
    mine = sorted(os.sched_getaffinity(0))
    return [set(mine[len(mine) * i // number :][:each]) for i in range(number)]


def command_of(
    params_file: str, overrides: list[str], first: str | None, optional: tuple[str, ...], wait: bool, verify: bool
) -> tuple[str, ...]:
    """What runs this file alone, with the same options."""
    flags = {"--ablations": "08" in optional, "--verdict": "09" in optional, "--wait": wait, "--verify": verify}
    options = [word for override in overrides for word in ("--set", override)] + (["--from", first] if first else [])
    return (sys.executable, "-m", "osdtw_lib", "run", params_file, *options, *(flag for flag, on in flags.items() if on))
