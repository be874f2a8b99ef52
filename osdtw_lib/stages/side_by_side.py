"""Jobs that do not depend on each other, several at once: a process a core on a CPU, one thread each; a process a GPU."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from ..backend import worker
from ..backend.threads import cores
from ..config.schema import Config
from ..legible import speak_legibly
from .run import Run

_runs: dict[str, Run] = {}


def everywhere(run: Run, function: Callable, jobs: list[tuple]) -> None:
    """function(config, *job) for every job. A network as small as the digits' gains little from a second thread.

    `workers`, where it is a number, is the most at once. The first job that fails ends all, with its error.
    """
    on_cpu, most = run.device.type == "cpu", run.config.workers
    workers = min(len(jobs), torch.get_num_threads() if on_cpu else torch.cuda.device_count())
    workers = workers if most == "auto" else min(workers, most)
    if workers < 2:
        for job in jobs:
            function(run.config, *job)
        return
    config = run.config
    if config.loader_workers == "auto":  # each would take all cores to read images with
        config = config.model_copy(update={"loader_workers": max(cores() // workers - on_cpu, 0)})
    spawn = multiprocessing.get_context("spawn")
    gpus = spawn.SimpleQueue()
    for gpu in range(workers):
        gpus.put(None if on_cpu else gpu)
    with ProcessPoolExecutor(workers, spawn, _alone, (os.getpid(), gpus)) as pool:
        try:
            for done in [pool.submit(function, config, *job) for job in jobs]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone(parent: int, gpus) -> None:
    worker.end_with(parent)
    gpu = gpus.get()
    if gpu is None:
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(gpu)
    speak_legibly()


def opened(config: Config) -> Run:
    """The run, opened once a process: its images need not be read again for every job."""
    key = config.model_dump_json()
    if key not in _runs:
        _runs.clear()
        _runs[key] = Run(config)
    return _runs[key]
