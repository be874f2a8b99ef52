"""Jobs that do not depend on each other, several at once: a process a core on a CPU, one thread each; one or several a GPU.

A job that is tried again finds what it has made and goes on from its checkpoint, so a process that dies costs little: another
one takes its place and its job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

import torch

from ..backend import distributed, gpus
from ..backend.threads import AT_ONCE, cores
from ..backend.threads import at_once as already_at_once
from ..backend.worker import end_with
from ..config.schema import Config
from ..errors import UserError
from ..legible import speak_legibly
from .run import Run

SPAWN = multiprocessing.get_context("spawn")
DEATHS = 3  # processes that may die with no job done in between
LEAVING = 10.0  # seconds
GO_ON = "if memory ran out lower `workers` or `jobs_per_gpu`; the same command goes on from the last checkpoints"

_runs: dict[str, Run] = {}


def everywhere(run: Run, function: Callable, jobs: list[tuple], settle: Callable | None = None) -> None:
    """function(config, *job) for every job. A network as small as the digits' gains little from a second thread.

    `workers`, where it is a number, is the most at once. The first job that fails ends all, with its error, and so does an
    interruption. settle(GPU or None, threads) is called once in each process, before its first job.
    """
    places = places_of(run, len(jobs))
    if len(places) < 2:
        for job in jobs:
            function(run.config, *job)
        return
    config, on_cpu = run.config, run.device.type == "cpu"
    share = cores() // len(places)
    if config.loader_workers == "auto":  # each would take all cores to read images with
        config = config.model_copy(update={"loader_workers": max(share - on_cpu, 0)})
    settled = (settle or _settle, 1 if on_cpu else max(1, share), len(places))
    idle, busy, waiting, deaths = [_Worker(place, *settled) for place in places], {}, deque(jobs), 0
    try:
        while waiting or busy:
            while waiting and idle:
                worker, job = idle.pop(0), waiting.popleft()
                busy[worker.pipe] = worker, job
                worker.ask(function, (config, *job))
            for pipe in wait(list(busy)):
                worker, job = busy[pipe]
                try:
                    error = worker.pipe.recv()
                except (EOFError, OSError):
                    error, deaths = None, deaths + 1
                    if deaths > DEATHS:
                        raise RuntimeError(
                            f"{worker.death()}, and {DEATHS} before it with no job done in between; {GO_ON}"
                        ) from None
                    print(f"{worker.death()}; another one takes its job", flush=True)
                    waiting.appendleft(job)
                    worker = _Worker(worker.place, *settled)
                else:
                    deaths = 0
                if error:
                    raise error[0] from RuntimeError(error[1])
                del busy[pipe]
                idle.append(worker)
    finally:
        for worker, _ in busy.values():
            worker.process.kill()
        for worker in [*idle, *(worker for worker, _ in busy.values())]:
            worker.end()


def places_of(run: Run, jobs: int) -> list[int | None]:
    """Where a process works, one entry a process: the number of its GPU, each as often as `jobs_per_gpu` says, or None."""
    if run.device.type == "cpu":
        places = [None] * torch.get_num_threads()
    else:
        places = [*range(torch.cuda.device_count())] * run.config.jobs_per_gpu
    most = run.config.workers
    return places[: min(jobs, len(places) if most == "auto" else most)]


def by_itself(stage: str) -> None:
    """Raises UserError in a process that torchrun has started: which jobs are left each would read off the disk by itself."""
    if distributed.world_size() > 1:
        raise UserError(f"{stage}: it trains several cells at once by itself; start it without torchrun")


class _Worker:
    """A process that works through what it is asked, one job after the other."""

    def __init__(self, place: int | None, settle: Callable, threads: int, at_once: int):
        self.place = place
        self.pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(os.getpid(), theirs, settle, place, threads, at_once))
        self.process.start()
        theirs.close()

    def ask(self, function: Callable, arguments: tuple) -> None:
        try:
            self.pipe.send((function, arguments))
        except OSError:
            pass  # it has died: it is seen where its answer is waited for

    def death(self) -> str:
        """What can be said of how it ended by itself."""
        self.process.join(LEAVING)
        code = self.process.exitcode
        return f"process {self.process.pid} has died" + (f" by {signal.Signals(-code).name}" if code and code < 0 else "")

    def end(self) -> None:
        """Where it waits for a job it leaves by itself."""
        self.pipe.close()
        self.process.join(LEAVING)
        self.process.kill()
        self.process.join()


def _serve(parent: int, pipe: Connection, settle: Callable, place: int | None, threads: int, at_once: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal it reaches all, and the one that started this ends it
    end_with(parent)
    multiprocessing.set_start_method(None, force=True)  # else each reader of images would import everything, as this did
    os.environ[AT_ONCE] = str(already_at_once() * at_once)  # of several runs, each with jobs of its own
    settle(place, threads)
    speak_legibly()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        error = None
        try:
            with gpus.memory_suffices("a job", "lower recipe.micro_batch or jobs_per_gpu"):
                function(*arguments)
        except UserError as raised:
            error = raised, traceback.format_exc()
        except Exception as raised:  # it may be of a kind that cannot be sent
            error = RuntimeError(f"{type(raised).__name__}: {raised}"), traceback.format_exc()
        pipe.send(error)


def _settle(place: int | None, threads: int) -> None:
    torch.set_num_threads(threads)
    if place is not None:
        torch.cuda.set_device(place)


def opened(config: Config) -> Run:
    """The run, opened once a process: its images need not be read again for every job."""
    key = config.model_dump_json()
    if key not in _runs:
        _runs.clear()
        _runs[key] = Run(config)
    return _runs[key]
