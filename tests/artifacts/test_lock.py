"""One process at a time makes a run's results: who is second is told who is first, and waits only where asked to."""

import contextlib
import json
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest
from ended_processes import still_alive
from reliability.trials import fork, wait

from osdtw_lib.__main__ import main
from osdtw_lib.artifacts import lock
from osdtw_lib.artifacts.lock import TOKEN, held
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.errors import UserError
from osdtw_lib.stages import execute
from osdtw_lib.stages.selection import choose, selection

IMPORTS = "import subprocess, sys, time; from pathlib import Path; from osdtw_lib.artifacts.lock import held"
FORK = multiprocessing.get_context("fork")  # a process that need not import anything


def hold(folder, pipe):
    with held(folder):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """holder(folder) -> a process that holds the lock until it is told to end, or killed."""
    with contextlib.ExitStack() as stack:

        def start(folder):
            mine, theirs = FORK.Pipe()
            process = FORK.Process(target=hold, args=(folder, theirs))
            process.start()
            stack.callback(lambda: (process.kill(), process.join()))
            assert mine.recv() == "held"
            process.let_go = lambda: mine.send("end")
            return process

        yield start


def test_the_second_is_told_who_holds_it_in_one_line_and_works_after_a_kill(params, holder, refused, command):
    path = params()
    folder = load_config(path).folder
    first = holder(folder)
    for arguments in (("split", path), ("run", path)):
        line = refused(*arguments)
        since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
        assert re.search(rf"{folder} is in use by process {first.pid} on \S+ {since} \(\S*python", line)
    assert os.listdir(folder) == [".lock"]
    first.kill()
    first.join()
    status, out, err = command("split", path)
    assert status == 0 and "split: done" in out, err
    assert os.listdir(folder) == ["split"]


@pytest.fixture
def waiting(tmp_path):
    """waiting(parameter file) -> (process id, log) of `split --wait`, which has begun to wait."""

    def start(path):
        log = tmp_path / "waiting.txt"
        pid = fork(lambda: main(["split", "--wait", str(path)]), log)
        deadline = time.monotonic() + 60
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return pid, log

    return start


def test_wait_waits_until_the_first_has_ended(params, holder, waiting):
    path = params()
    first = holder(load_config(path).folder)
    pid, log = waiting(path)
    assert f"in use by process {first.pid}" in (line := log.read_text()) and line.endswith("waits\n") and line.count("\n") == 1
    assert wait(pid, 0) is None
    first.let_go()
    assert wait(pid, 60) == 0 and "split: done" in log.read_text()


@pytest.mark.journey
def test_what_is_done_is_read_while_another_process_works_and_nothing_is_made(finished_copy, holder, capsys):
    run = finished_copy()
    holder(run.folder)
    execute(run, "stage1")
    assert "stage1: up to date" in capsys.readouterr().out and selection(run)["shared_depth"] == 2
    with pytest.raises(UserError, match="in use by process"):
        choose(run, 1, 0.43, "damped", 1e-3)
    with pytest.raises(UserError, match="in use by process"):
        execute(finished_copy({"stage0.epochs": 1}), "start")


def test_other_runs_are_free(tmp_path, holder):
    holder(tmp_path / "one")
    with held(tmp_path / "two"):
        assert (tmp_path / "two" / ".lock").exists()
    assert not (tmp_path / "two").exists()


@pytest.mark.journey
def test_the_holder_and_what_it_starts_are_let_in_and_nobody_else(tmp_path, python):
    enter = f"{IMPORTS}\nwith held(Path(sys.argv[1])): print('in')"
    before = os.environ.get(TOKEN)
    with held(tmp_path / "one"):
        with held(tmp_path / "one"):
            assert python("-c", enter, tmp_path / "one").stdout == "in\n"
        assert (tmp_path / "one" / ".lock").exists()
        stranger = python("-c", enter, tmp_path / "one", env={k: v for k, v in os.environ.items() if k != TOKEN})
        assert "UserError" in stranger.stderr and f"process {os.getpid()}" in stranger.stderr
    assert os.environ.get(TOKEN) == before


def test_an_error_inside_frees_it(tmp_path):
    with pytest.raises(ZeroDivisionError), held(tmp_path / "one"):
        raise ZeroDivisionError
    with held(tmp_path / "one"):
        pass


@pytest.mark.journey
def test_a_process_ends_with_the_holder_that_started_it(tmp_path):
    """As a notebook's kernel does when the run is killed."""
    child = f"{IMPORTS}\nwith held(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    parent = f"""{IMPORTS}
with held(Path(sys.argv[1])):
    process = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], stdout=subprocess.PIPE)
    process.stdout.readline()
    print(process.pid, flush=True)
    process.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "one"), child], cwd=PROJECT, stdout=subprocess.PIPE)
    inner = int(process.stdout.readline())
    process.kill()
    process.communicate()
    assert not still_alive([inner], seconds=2)
    with held(tmp_path / "one"):
        pass


@pytest.mark.parametrize("left", ["", "[]", "{", '{"token": "x"}', "\xff"])
def test_what_a_dead_holder_left_is_no_obstacle(tmp_path, left):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".lock").write_text(left, encoding="latin-1")
    with held(tmp_path / "one"):
        assert json.loads((tmp_path / "one" / ".lock").read_text())["pid"] == os.getpid()


def test_a_folder_in_its_place_is_one_line(tmp_path):
    (tmp_path / "one" / ".lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"\.lock: cannot be written"), held(tmp_path / "one"):
        pass


def test_where_nothing_can_be_written_none_is_taken(finished_copy, params, command, monkeypatch):
    run = finished_copy()
    monkeypatch.setattr(lock.os, "access", lambda path, mode, dir_fd=None: not mode & os.W_OK)  # a superuser may write everywhere
    mode = stat.S_IMODE(run.folder.stat().st_mode)
    status, out, err = command("stage1", params())
    assert status == 0 and "stage1: up to date" in out and not err
    assert not (run.folder / ".lock").exists() and stat.S_IMODE(run.folder.stat().st_mode) == mode


@pytest.fixture
def no_locks(monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", none)


@pytest.mark.parametrize("job, again, free", [("7", "1", True), ("7", "0", False), ("8", "1", False), ("", "", False)])
def test_without_locks_a_job_that_is_queued_again_waits_for_no_earlier_turn_of_its_own(
    tmp_path, monkeypatch, no_locks, job, again, free
):
    """Slurm has ended that one, on whatever machine it was; its record stayed."""
    monkeypatch.setenv("SLURM_JOB_ID", job), monkeypatch.setenv("SLURM_RESTART_COUNT", again)
    record = {"token": "x", "pid": 1, "host": "another", "command": "run", "since": "now", "job": "7", "turn": 0}
    (tmp_path / ".lock").write_text(json.dumps(record))
    outcome = contextlib.nullcontext() if free else pytest.raises(UserError, match="is in use by process 1 on another")
    with outcome, held(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["turn"] == 1


def test_a_file_system_without_locks_goes_by_the_record(tmp_path, no_locks):
    with held(tmp_path / "one"):
        record = (tmp_path / "one" / ".lock").read_text()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / ".lock").write_text(record)  # of this process, which lives
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"), held(tmp_path / "one"):
        pass
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "one" / ".lock").write_text(json.dumps(json.loads(record) | {"pid": dead.pid}))
    with held(tmp_path / "one"):
        pass


def add(folder):
    """One to a number that it reads, waits, and writes, twenty times."""
    lock.LOOK = 0.001
    for _ in range(20):
        with held(folder / "one", wait=True):
            n = int((folder / "number").read_text())
            time.sleep(0.002)
            (folder / "number").write_text(str(n + 1))


def test_many_at_once_are_never_two(tmp_path):
    """Each adds one to a number that it reads, waits, and writes: none is lost."""
    (tmp_path / "number").write_text("0")
    started = [FORK.Process(target=add, args=(tmp_path,)) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0] * 4
    assert (tmp_path / "number").read_text() == "80"


def test_interrupted_while_it_waits(params, holder, waiting):
    path = params()
    holder(load_config(path).folder)
    pid, log = waiting(path)
    os.kill(pid, signal.SIGINT)
    assert wait(pid, 60) == 130
    said = log.read_text().splitlines()
    assert len(said) == 2 and said[1].startswith("interrupted")
