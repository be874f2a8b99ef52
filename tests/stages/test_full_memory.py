"""A GPU whose memory is full, made up: one line that says what to lower, nothing half written, and with room the same end."""

import shutil

import weakref

import pytest
import torch

from osdtw_lib.backend import gpus
from osdtw_lib.errors import UserError
from osdtw_lib.evaluation import scores
from osdtw_lib.fisher import diagonal
from osdtw_lib.proxy import measured_bias
from osdtw_lib.stages import side_by_side
from osdtw_lib.stages.run import remedy
from osdtw_lib.training import loop

PLACES = {  # what runs out of memory, at which call, and what the line names
    "stage1": (loop, "backward", 8, "lower recipe.micro_batch (now null: a batch's 32 at once, "),
    "fisher": (diagonal._Pass, "batch", 2, "lower fisher.batch_size (now 64); the same command then begins this pass anew"),
    "direct": (measured_bias, "losses_at", 2, "lower direct.batch_size (now 64); the same command then goes on"),
    "baselines": (loop, "backward", 3, "lower recipe.micro_batch (now null"),
    "scores": (scores, "autocast", 3, "end what else runs on the GPU"),
}


@pytest.mark.parametrize(
    "said", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "CUDA error: out of memory"]
)
def test_a_library_that_finds_no_memory_says_so_in_its_own_words(said):
    with pytest.raises(UserError, match="a stage: the GPU's memory is full; do less"), gpus.memory_suffices("a stage", "do less"):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="other"), gpus.memory_suffices("a stage", "do less"):
        raise RuntimeError("CUDA error: other")


@pytest.mark.parametrize("stage", PLACES)
def test_a_full_memory_is_one_line_and_the_next_run_ends_the_same(
    stage, finished, finished_copy, params, refused, monkeypatch, command
):
    where, name, at, words = PLACES[stage]
    folder = finished_copy().folder / stage
    shutil.rmtree(folder)
    call, left = getattr(where, name), [at]

    def full(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return call(*arguments, **options)

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(where, name, full)
    said = refused(stage, params())
    assert f"the GPU's memory is full; {words}" in said
    assert said.startswith(f"error: {stage}")
    left_there = [path.name for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in left_there if name == "manifest.json" or name.endswith((".part", ".new"))]
    monkeypatch.setattr(where, name, call)
    assert command(stage, params())[0] == 0
    for path in finished.folder.joinpath(stage).rglob("*.safetensors"):
        assert path.read_bytes() == folder.parent.joinpath(path.relative_to(finished.folder)).read_bytes(), path.name


def test_a_line_names_the_jobs_a_gpu_too_where_there_are_several(finished_copy):
    run = finished_copy({"recipe.micro_batch": 16, "jobs_per_gpu": 3})
    assert remedy(run.config, "stage2").startswith("lower recipe.micro_batch (now 16), or jobs_per_gpu (now 3); ")


def test_what_filled_the_memory_is_let_go_of():
    held = []

    def fill():
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError("no room")

    with (
        pytest.raises(UserError, match="^a stage: the GPU's memory is full; lower it$"),
        gpus.memory_suffices("a stage", "lower it"),
    ):
        fill()
    assert held[0]() is None
    with gpus.memory_suffices("a stage", "lower it"):
        pass


def test_a_job_of_several_says_so_too(monkeypatch):
    sent = []

    class Pipe:
        def recv(self, asked=[(out_of_memory, (None,))]):  # noqa: B006
            if not asked:
                raise EOFError
            return asked.pop()

        def send(self, error):
            sent.append(error)

    monkeypatch.setattr(side_by_side, "end_with", lambda parent: None)
    monkeypatch.setenv("OSDTW_AT_ONCE", "1")
    monkeypatch.setattr(side_by_side.signal, "signal", lambda *_: None)
    side_by_side._serve(0, Pipe(), lambda *_: None, None, 1, 1)
    assert isinstance(sent[0][0], UserError) and "lower recipe.micro_batch or jobs_per_gpu" in str(sent[0][0])


def out_of_memory(config):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_fisher_that_was_stopped_begins_anew_with_another_batch_size(finished_copy, monkeypatch, command, params, stop_after):
    """A checkpoint counts batches: with smaller ones it would count images twice."""
    monkeypatch.setattr(diagonal, "CHECK_EVERY", 1), monkeypatch.setattr(diagonal, "CHECKPOINT_SECONDS", 0)
    run = finished_copy({"fisher.batch_size": 16})
    shutil.rmtree(run.folder / "fisher")
    stop_after(2)
    assert command("fisher", params({"fisher.batch_size": 16}))[0] == 130
    monkeypatch.undo()
    status, out, _ = command("fisher", params({"fisher.batch_size": 8}))
    assert status == 0 and "resumes" not in out and not list((run.folder / "fisher").glob("*checkpoint*"))
    again = {task: run.read("fisher", task) for task in ("head", "tail")}
    shutil.rmtree(run.folder / "fisher")
    command("fisher", params({"fisher.batch_size": 8}))
    assert all(torch.equal(tensor, again[task][name]) for task in again for name, tensor in run.read("fisher", task).items())
