"""kill -9 during every long stage: the same command goes on, and ends where an uninterrupted run does."""

import os
import shutil
import signal

import pytest
from reliability.trials import fork, wait

from osdtw_lib.__main__ import main
from osdtw_lib.artifacts.checkpoint import Checkpoint
from osdtw_lib.fisher import diagonal as fisher
from osdtw_lib.training import loop as training


def killed(tmp_path, saves, *command):
    """What the command has said, in a process of its own, until it was killed after so many checkpoints."""

    def dies():
        save, left = Checkpoint.save, saves

        def save_and_die(self, tensors, state):
            nonlocal left
            save(self, tensors, state)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        Checkpoint.save = save_and_die
        return main([str(word) for word in command])

    log = tmp_path / "killed.txt"
    status = wait(fork(dies, log), 120)
    assert status == -signal.SIGKILL, log.read_text()
    return log.read_text()


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
def test_a_killed_stage_goes_on_and_ends_bit_for_bit_the_same(stage, finished, finished_copy, params, command, tmp_path):
    saves, resumes = STAGES[stage]
    run, path = finished_copy(), params()
    shutil.rmtree(run.folder / stage)
    said = killed(tmp_path, saves, stage, path)
    folder = run.folder / stage
    assert list(folder.rglob("*.checkpoint")) and stage in said and "resumes" not in said
    status, out, err = command(stage, path)
    assert status == 0 and resumes in out, out + err
    assert results(folder) == results(finished.folder / stage)


def test_a_stage_killed_before_its_manifest_is_not_believed(finished, finished_copy, params, command):
    run, path = finished_copy(), params()
    (run.folder / "stage3" / "manifest.json").unlink()
    status, out, _ = command("stage3", path)
    assert status == 0 and "stage3: runs, no result yet" in out
    assert results(run.folder / "stage3") == results(finished.folder / "stage3")


def test_a_checkpoint_of_other_parameters_is_not_gone_on_from(finished_copy, params, command, tmp_path):
    run, path = finished_copy(), params()
    shutil.rmtree(run.folder / "stage2")
    killed(tmp_path, 1, "stage2", path)
    status, out, _ = command("stage2", path, "--set", "recipe.weight_decay=0.1")
    assert status == 2 or "resumes" not in out  # the start depends on the recipe too
    status, out, _ = command("stage2", path, "--set", "stage2.learning_rate=1e-4")
    assert status == 0 and "resumes" not in out
