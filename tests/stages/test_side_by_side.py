"""Jobs over GPUs that are made up: which process works where, and what the death of one, a failure and an interruption leave."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace as Some

import pytest
import torch
from several_processes import forked, serve
from small_networks import fails, notes_where, settles, waits

from osdtw_lib.backend.threads import cores
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.errors import DivergedError, UserError
from osdtw_lib.stages import side_by_side
from osdtw_lib.stages.side_by_side import everywhere, places_of

pytestmark = pytest.mark.journey


@pytest.fixture
def gpus(monkeypatch):
    """gpus(3) opens a run on a machine that says it has three; its processes are copies of one that has imported torch."""
    monkeypatch.setattr(side_by_side, "SPAWN", forked())
    monkeypatch.setattr(side_by_side, "_serve", serve)

    def make(number, workers="auto", jobs_per_gpu=1, wait_for=0):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        config = Some(workers=workers, jobs_per_gpu=jobs_per_gpu, loader_workers=0, wait_for=wait_for)
        return Some(config=config, device=Some(type="cuda"))

    return make


def test_a_process_a_gpu_or_several_and_no_more_than_jobs_or_workers(gpus):
    assert places_of(gpus(8), 100) == list(range(8))
    assert places_of(gpus(8), 3) == [0, 1, 2]
    assert places_of(gpus(8, workers=2), 100) == [0, 1]
    assert places_of(gpus(2, jobs_per_gpu=3), 100) == [0, 1, 0, 1, 0, 1]
    assert places_of(gpus(1), 100) == [0]


def test_on_a_cpu_it_is_a_process_a_thread(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    run = Some(config=Some(workers="auto"), device=Some(type="cpu"))
    assert places_of(run, 100) == [None] * 4 and places_of(run, 3) == [None] * 3
    run.config.workers = 2
    assert places_of(run, 100) == [None] * 2


def test_every_gpu_has_a_process_of_its_own_and_every_job_is_done_once(gpus, tmp_path):
    everywhere(gpus(2, wait_for=2), notes_where, [(tmp_path, job) for job in range(5)], settles)
    done = [file.read_text().split() for file in sorted(tmp_path.glob("*.done"))]
    assert len(done) == 5 and len(list(tmp_path.glob("*.try*"))) == 5
    pids, starts, places, threads = map(set, zip(*done))
    assert places == {"0", "1"} and len(pids) == 2 and str(os.getpid()) not in pids
    assert starts == {"None"}, "readers of images start as in any other process"
    assert threads == {str(max(1, cores() // 2))}


def test_the_job_of_a_process_that_dies_is_taken_up_by_another(gpus, tmp_path, capsys):
    everywhere(gpus(2), notes_where, [(tmp_path, 0, 1), (tmp_path, 1), (tmp_path, 2)], settles)
    assert len(list(tmp_path.glob("*.done"))) == 3 and len(list(tmp_path.glob("0.try*"))) == 2
    said = capsys.readouterr().out
    assert said.count("has died by SIGKILL; another one takes its job") == said.count("\n") == 1


def test_a_job_that_kills_whoever_takes_it_ends_all_with_a_line_that_says_what_to_do(gpus, tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "DEATHS", 1)
    with pytest.raises(RuntimeError, match="died by SIGKILL, and 1 before it .* lower `workers` or `jobs_per_gpu`"):
        everywhere(gpus(2), notes_where, [(tmp_path, 0, 99), (tmp_path, 0, 99)], settles)


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (UserError("say what"), UserError, "^say what$"),
        (DivergedError("not finite"), DivergedError, "^not finite$"),
        (ZeroDivisionError("by zero"), RuntimeError, "^ZeroDivisionError: by zero$"),
    ],
)
def test_the_first_job_that_fails_ends_all_with_its_error(gpus, error, kind, words):
    started = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        everywhere(gpus(2), fails_or_waits, [(None,), (error,)], settles)
    assert type(caught.value) is kind and "in fails" in str(caught.value.__cause__)
    assert time.monotonic() - started < 120  # the other waits for 300 s


def fails_or_waits(config, error):
    fails(config, error) if error else waits(config)


INTERRUPTED = """
import os, signal, threading
from types import SimpleNamespace as Some
from small_networks import settles, waits
from osdtw_lib.stages import side_by_side
side_by_side.torch.cuda.device_count = lambda: 2
run = Some(config=Some(workers="auto", jobs_per_gpu=1, loader_workers=0), device=Some(type="cuda"))
signal.signal(signal.SIGINT, signal.default_int_handler)  # these tests may run where it is ignored
threading.Timer(8, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    side_by_side.everywhere(run, waits, [(), ()], settles)
except KeyboardInterrupt:
    print("interrupted", len(side_by_side.multiprocessing.active_children()))
"""


def test_an_interruption_ends_all_at_once_and_leaves_no_process():
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.removeprefix("waits\n" * done.stdout.count("waits")) == "interrupted 0\n" and done.stderr == ""


@pytest.mark.parametrize("stage", ["ablation", "verdict"])
def test_torchrun_is_refused(stage, finished_copy, monkeypatch, refused, params):
    finished_copy()
    monkeypatch.setattr(side_by_side.distributed, "world_size", lambda: 2)
    assert "without torchrun" in refused(stage, params())
