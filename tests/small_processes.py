"""What processes started together do in tests that train nothing: a module that imports little, as each of them has to."""

import os
import signal
import time
from types import SimpleNamespace

import torch


from osdtw_lib.backend import distributed
from osdtw_lib.errors import UserError


def refuse(rank):
    if distributed.rank() == rank:
        raise UserError("no such thing; make one")
    time.sleep(60)


def stumble(rank):
    if distributed.rank() == rank:
        raise ValueError("a stone in the way")
    time.sleep(60)


def vanish(rank):
    if distributed.rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def exchange(folder):
    rank = distributed.rank()
    sent = distributed.tensors_from_first({"a": torch.arange(3.0), "b": torch.tensor(7)} if rank == 0 else {"c": torch.ones(1)})
    assert list(sent) == ["a", "b"] and torch.equal(sent["a"], torch.arange(3.0)) and sent["b"] == 7
    assert distributed.tensors_from_first(None if rank == 0 else {"c": torch.ones(1)}) is None
    own = torch.full((2, 3), float(rank), requires_grad=True)
    distributed.copy_from_first([own, transposed := torch.full((2, 3), rank).T])
    assert not own.any() and not transposed.any()
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    distributed.require_alike("training", [weights, torch.ones(5, dtype=torch.bfloat16)])
    weights[17] = torch.nextafter(weights[17], torch.tensor(9.0)) if rank else weights[17]
    try:
        distributed.require_alike("training, epoch 3", [weights])
    except UserError as error:
        assert str(error).startswith("training, epoch 3: the processes' weights are no longer alike")
    else:
        raise AssertionError("a last bit is seen")
    with distributed.alone():
        assert (distributed.world_size(), distributed.rank(), distributed.sum_over_processes([own], 3)) == (1, 0, 3)
    assert distributed.world_size() == 3
    share_features(folder)
    assert distributed.same_everywhere("a key") and not distributed.same_everywhere("other" if rank == 2 else "a key")
    see_the_selection_late(folder)
    looked = []
    distributed.by_first(lambda: looked.append(rank))
    assert looked == ([0] if rank == 0 else [])
    distributed.by_first(lambda: refused_by(rank))


def share_features(folder):
    """Two parts a view, of which the third process has none; then the lock's token, which all know inside."""
    from osdtw_lib.artifacts.lock import TOKEN, held
    from osdtw_lib.data.batches import is_own
    from osdtw_lib.training.frozen_features import Views

    images = torch.arange(12.0).reshape(6, 2)
    parts = [SimpleNamespace(images=images[3 * i : 3 * i + 3], indices=torch.arange(3 * i, 3 * i + 3), number=i) for i in (0, 1)]
    shown = SimpleNamespace(epoch=lambda number: [[part for part in parts if is_own(part.number)]], device=torch.device("cpu"))
    drawn = SimpleNamespace(labels=torch.zeros(6, dtype=torch.int64), batch_size=3)
    views = Views(shown, drawn, lambda images: 2 * images, 1, "fp32")
    assert torch.equal(views.view(0), 2 * images) and torch.equal(views.view(0), 2 * images)
    before = os.environ.get(TOKEN)
    with held(folder):
        token = os.environ[TOKEN]
        assert token == distributed.from_first(token)
    assert os.environ.get(TOKEN) == before


def see_the_selection_late(folder):
    """A machine that sees the first one's selection after a while waits for it; one that never sees it says so."""
    from osdtw_lib.stages import pipeline

    rank, started, pipeline.VISIBLE_SECONDS = distributed.rank(), time.monotonic(), 3

    def artifact(name, seconds={0: 0.0, 1: 0.5, 2: 1.5}):  # noqa: B006
        if time.monotonic() - started < seconds[rank]:
            if rank == 1:
                raise UserError("selection: no result yet")
            return SimpleNamespace(key="of an older selection")
        return SimpleNamespace(key="of the selection")

    run = SimpleNamespace(artifact=artifact, needs_of=lambda name: ["selection", "start"])
    assert pipeline._as_first_sees_it(run, "stage2").key == "of the selection"
    if rank:
        run.artifact = lambda name: SimpleNamespace(key="of another parameter file")
    assert (pipeline._as_first_sees_it(run, "stage2").key == "of the selection") == (rank == 0)


def refused_by(rank):
    raise UserError(f"process {rank} says no")
