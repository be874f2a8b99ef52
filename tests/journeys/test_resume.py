"""kill -9 during every long stage: the same command goes on, and ends where an uninterrupted run does."""

import shutil
import signal

import pytest

from osdtw_lib.fisher import diagonal as fisher
from osdtw_lib.training import loop as training

KILLED = """
import os, signal, sys
from osdtw_lib import __main__
from osdtw_lib.artifacts.checkpoint import Checkpoint
from osdtw_lib.fisher import diagonal as fisher
from osdtw_lib.training import loop as training

training.CHECKPOINT_SECONDS, fisher.CHECKPOINT_SECONDS, fisher.CHECK_EVERY = 0, 0, 1
save, left = Checkpoint.save, int(sys.argv[1])

def save_and_die(self, tensors, state):
    global left
    save(self, tensors, state)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
sys.exit(__main__.main(sys.argv[2:]))
"""

STAGES = {
    "start": (1, "start: resumes after epoch 1 of 2"),
    "stage1": (1, "stage1: resumes after epoch 1 of 2"),
    "fisher": (2, "fisher: resumes after batch 2"),
    "direct": (2, "direct bias: resumes after epoch 2 of 11"),
    "stage2": (1, "stage2: resumes after epoch 1 of 2"),
    "stage3": (1, "refinement: resumes after epoch 1 of 2"),
    "baselines": (2, "baselines/logit_adjusted_ce: resumes after epoch 1 of 2"),
}


def results(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"}


@pytest.fixture(autouse=True)
def checkpoint_always(monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(fisher, "CHECK_EVERY", 1)
    monkeypatch.setattr(fisher, "CHECKPOINT_SECONDS", 0)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_goes_on_and_ends_bit_for_bit_the_same(stage, finished, finished_copy, params, python, command):
    saves, resumes = STAGES[stage]
    run, path = finished_copy(), params()
    shutil.rmtree(run.folder / stage)
    killed = python("-c", KILLED, saves, stage, path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = run.folder / stage
    assert list(folder.rglob("*.checkpoint")) and "resumes" not in killed.stdout
    status, out, err = command(stage, path)
    assert status == 0 and resumes in out, out + err
    assert results(folder) == results(finished.folder / stage)


def test_a_stage_killed_before_its_manifest_is_not_believed(finished, finished_copy, params, command):
    run, path = finished_copy(), params()
    (run.folder / "stage3" / "manifest.json").unlink()
    status, out, _ = command("stage3", path)
    assert status == 0 and "stage3: runs, no result yet" in out
    assert results(run.folder / "stage3") == results(finished.folder / "stage3")


def test_a_checkpoint_of_other_parameters_is_not_gone_on_from(finished_copy, params, python, command):
    run, path = finished_copy(), params()
    shutil.rmtree(run.folder / "stage2")
    assert python("-c", KILLED, 1, "stage2", path).returncode == -signal.SIGKILL
    status, out, _ = command("stage2", path, "--set", "recipe.weight_decay=0.1")
    assert status == 2 or "resumes" not in out  # the start depends on the recipe too
    status, out, _ = command("stage2", path, "--set", "stage2.learning_rate=1e-4")
    assert status == 0 and "resumes" not in out
