"""Processes that could drift apart: what the first reads and holds is what all have, or they stop and say so."""

import pandas as pd
import pytest
import torch
from several_processes import together
from small_processes import exchange, refused_by
from small_run import write_small

from osdtw_lib.artifacts.checkpoint import Checkpoint
from osdtw_lib.backend import distributed
from osdtw_lib.backend.progress import clock
from osdtw_lib.config.load import load_config
from osdtw_lib.errors import UserError
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run
from osdtw_lib.training import loop

pytestmark = pytest.mark.journey


def test_the_first_process_speaks_for_all_and_a_last_bit_is_seen(tmp_path):
    with pytest.raises(UserError, match="^process 0 says no$"):
        together(exchange, (tmp_path,), 3)


def test_an_error_on_a_gpu_does_not_wait_for_the_others(monkeypatch):
    """NCCL's group is taken down by all together: who has failed must not begin with it."""
    ended = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True), monkeypatch.setattr(torch.cuda, "set_device", lambda n: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *a, **k: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: ended.append("taken down"))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1"), monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="full"), distributed.group("auto"):
        raise UserError("full")
    assert not ended
    with distributed.group("auto"):
        pass
    assert ended == ["taken down"]
    monkeypatch.setenv("LOCAL_RANK", "2"), monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="^process 3 of 3 on this machine has no GPU: it sees 2"), distributed.group("auto"):
        pass


def test_variables_of_several_processes_without_torchruns_are_one_line(monkeypatch):
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="^RANK and WORLD_SIZE are set.*torchrun, which sets them"), distributed.group("cpu"):
        pass


def test_alone_nothing_changes():
    tensors = {"a": torch.ones(2)}
    assert distributed.tensors_from_first(tensors) is tensors
    distributed.copy_from_first(tensors.values())
    distributed.require_alike("training", tensors.values())
    with pytest.raises(UserError, match="process 0"):
        distributed.by_first(lambda: refused_by(0))


def one_epoch_more(path):
    """An epoch of Stage 0, then the first process ends; the others see no checkpoint, and draw other weights to start from."""
    run, save = Run(load_config(path)), Checkpoint.save
    loop.CHECKPOINT_SECONDS = 0
    if distributed.rank() > 0:
        Checkpoint._newest = lambda self: None

        def vit(self, n_outputs, vit=Run.vit):
            network = vit(self, n_outputs)
            with torch.no_grad():
                [p.mul_(1.001) for p in network.parameters()]
            return network

        Run.vit = vit

    def save_and_end(self, *arguments):
        save(self, *arguments)
        raise UserError("an epoch more")

    Checkpoint.save = save_and_end
    execute(run, "start")


def test_a_training_goes_on_with_another_number_of_processes(tmp_path):
    settings = {"stage0.epochs": 5, "recipe.batch_size": 32, "recipe.micro_batch": 8}
    for name in ("alone", "together"):
        (tmp_path / name).mkdir()
    path = write_small(tmp_path / "together", settings)
    expected, run = Run(load_config(write_small(tmp_path / "alone", settings))), Run(load_config(path))
    for opened, stage in ((expected, "split"), (expected, "start"), (run, "split")):
        execute(opened, stage)
    for processes in (2, 3, 4, 1):
        with pytest.raises(UserError, match="an epoch more"):
            together(one_epoch_more, (path,), processes)
    assert execute(run, "start").key == expected.artifact("start").key
    one, two = (r.artifact("start") for r in (expected, run))
    pd.testing.assert_frame_equal(one.table("curves"), two.table("curves"), rtol=1e-4, atol=1e-7)
    name = next(path.stem for path in one.folder.glob("*.safetensors"))
    for key, tensor in one.tensors(name).items():
        assert torch.allclose(two.tensors(name)[key], tensor, rtol=1e-3, atol=1e-3 * float(tensor.abs().max()) + 1e-12), key


def test_a_time_that_is_not_known_is_no_error():
    assert (clock(float("nan")), clock(185)) == ("?", "3m05s")
