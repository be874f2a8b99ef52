"""The batches of a Fisher: the same ones each time, every sample once, shared out over the processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from ..backend import distributed, gpus
from ..errors import UserError


def check_repeatable(batches) -> None:
    """Two looks at the first batch: what shuffles, augments or can be read once only does not pass."""
    advice = "pass batches in order, without augmentation, all of them (a list, or a loader with shuffle off)"
    if iter(batches) is batches:
        raise UserError(f"the Fisher needs batches that can be read twice, got a one-time iterator; {advice}")
    sampler = getattr(batches, "batch_sampler", None)  # which a loader may have been given whole
    if any(getattr(one, "drop_last", False) for one in (batches, sampler)):
        raise UserError(f"the Fisher needs every sample, and this loader drops the last batch; {advice}")
    if any(isinstance(getattr(one, "sampler", None), torch.utils.data.RandomSampler) for one in (batches, sampler)):
        raise UserError(f"the Fisher needs the same batches each time, and this loader shuffles; {advice}")
    with gpus.random_state_kept():
        first, again = next(iter(batches), None), next(iter(batches), None)
    if first is None:
        raise UserError("the Fisher needs at least one sample; the batches are empty")
    if not all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(first, again)):
        raise UserError(f"the first batch differs when read again; {advice}")


def own(batches, done: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """(number, batch) of this process's from number `done` on; where the batches can, the others are not even read."""
    every, first = distributed.world_size(), distributed.rank()
    first += -(-max(done - first, 0) // every) * every
    if hasattr(batches, "share"):
        return zip(itertools.count(first, every), batches.share(first, every))
    return ((n, batch) for n, batch in enumerate(batches) if n >= first and (n - first) % every == 0)
