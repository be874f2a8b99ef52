"""Checkpoints written by a thread: from copies, one at a time, no more often than they may cost; errors and kills as before."""

import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from osdtw_lib.artifacts import background, checkpoint as files
from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.background import SHARE, Background
from osdtw_lib.errors import UserError


@pytest.fixture
def kept(tmp_path):
    return Artifact("one", tmp_path / "one", {}).making().__enter__().checkpoint("training")


class Slow:
    """A checkpoint that waits to be let go on."""

    def __init__(self):
        self.go, self.saved = threading.Event(), []

    def save(self, tensors, state):
        assert self.go.wait(60)
        self.saved.append((tensors, state))


def test_what_is_written_is_as_it_was_when_it_was_asked_for_and_nobody_waits():
    slow, weights = Slow(), torch.ones(3, requires_grad=True)
    with Background(slow) as saved:
        saved.save({"weights": weights, "step": torch.tensor(4.0)}, {"epoch": 1})
        with torch.no_grad():
            weights.mul_(7)
        assert not slow.saved and not saved.due(1e-9)
        slow.go.set()
    ((tensors, state),) = slow.saved
    assert torch.equal(tensors["weights"], torch.ones(3)) and not tensors["weights"].requires_grad and state == {"epoch": 1}


def test_at_the_end_it_is_on_the_disk_and_a_second_one_waits_for_the_first(kept):
    with Background(kept) as saved:
        for epoch in range(3):
            saved.save({"a": torch.full((2,), float(epoch))}, {"epoch": epoch})
    assert kept.load()[1] == {"epoch": 2} and kept._read(kept.before)[1] == {"epoch": 1}


def test_so_much_of_the_time_and_no_more(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def save(tensors, state):
        now[0] += 3.0  # seconds a checkpoint takes

    started, saves, epochs = now[0], 0, 1000
    with Background(SimpleNamespace(save=save)) as saved:
        for _ in range(epochs):
            now[0] += 1.0
            if saved.due(2.0):
                saved.save({}, {})
                saved.writing.result()
                saves += 1
        assert saved.due(0) and not saved.due(2.0)
    share = 3.0 * saves / (now[0] - started)
    assert 0.8 * SHARE < share < 1.1 * SHARE and saves > 10  # before the first one its cost is not known


def test_a_cheap_one_comes_every_few_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with Background(SimpleNamespace(save=lambda tensors, state: None)) as saved:
        due = []
        for _ in range(9):
            now[0] += 1.0
            due.append(saved.due(2.0))
            if due[-1]:
                saved.save({}, {})
                saved.writing.result()
    assert due == [False, True] * 4 + [False]


def test_one_that_cannot_be_written_is_said_and_done_without(kept, monkeypatch, capsys):
    def full(path, tensors, about):
        raise UserError(f"{path}: cannot be written (no space left)")

    monkeypatch.setattr(files, "write_tensors", full)
    with Background(kept) as saved:
        saved.save({"a": torch.ones(2)}, {})
        saved.save({"a": torch.ones(2)}, {})
    assert capsys.readouterr().out.count("no checkpoint this time") == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_another_error_is_raised_by_the_next_one_or_at_the_end(error):
    def save(tensors, state):
        raise error

    with pytest.raises(error), Background(SimpleNamespace(save=save)) as saved:
        saved.save({}, {})
        with pytest.raises(error):
            saved.save({}, {})
        saved.save({}, {})


def test_an_error_of_the_work_is_raised_when_the_last_one_is_written():
    slow = Slow()
    with pytest.raises(ZeroDivisionError), Background(slow) as saved:
        saved.save({"a": torch.ones(1)}, {})
        threading.Timer(0.2, slow.go.set).start()
        raise ZeroDivisionError
    assert len(slow.saved) == 1


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from osdtw_lib.artifacts import files
from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.background import Background

kept = Artifact("one", Path(sys.argv[1]), {}).making().__enter__().checkpoint("training")
with Background(kept) as saved:
    saved.save({"a": torch.ones(1000)}, {"epoch": 1})
    saved.writing.result()
    fsync = os.fsync
    os.fsync = lambda number: (print("writing", flush=True), time.sleep(60))
    saved.save({"a": torch.zeros(1000)}, {"epoch": 2})
    time.sleep(60)
"""


def test_a_kill_while_one_is_written_leaves_the_one_before(tmp_path, project):
    folder = tmp_path / "one"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], cwd=project, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(folder.glob(".*.part"))  # it was in the middle
    tensors, state = Artifact("one", folder, {}).making().__enter__().checkpoint("training").load()
    assert state == {"epoch": 1} and torch.equal(tensors["a"], torch.ones(1000))
