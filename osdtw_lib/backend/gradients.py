"""Gradients summed over all processes: bucket by bucket, while the backward pass of a step's last part still runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from . import distributed

BUCKET = 1 << 22  # numbers that are sent at a time
P = TypeVar("P")


class Gradients:
    """A context around a training of these parameters; alone, nothing is summed.

    In every process buckets go out in the same order, the one in which the gradients of the first process's first step came,
    whatever part of a batch a process has, and whether it has one.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)
        self.together = distributed.world_size() > 1
        self.came: dict[int, None] = {}  # the parameters whose gradient is complete in this step, in order
        self.buckets: list[list[int]] = []  # none in the first step
        self.complete, self.sums = False, []
        self.hooks = []

    def __enter__(self) -> Gradients:
        for i, p in enumerate(self.parameters if self.together else ()):
            self.hooks.append(p.register_post_accumulate_grad_hook(lambda _, i=i: self._comes(i)))
        return self

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()

    def parts(self, parts: Iterable[P]) -> Iterator[P]:
        """This process's parts of a step, as they are: with the last one the gradients become complete."""
        if not self.together:
            yield from parts
            return
        parts = iter(parts)
        part, following = next(parts, None), None
        while part is not None:
            following = next(parts, None)
            self.complete = following is None
            yield part
            part = following

    def sum(self) -> None:
        """At a step's end: every gradient is the sum over all processes. One that had no part of the batch adds nought, and so
        does a parameter that was not used: with one process or several, the optimizer steps on all."""
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if not self.together:
            return
        if not self.buckets:
            self.buckets = list(_cut(distributed.from_first(self._in_order()), self.parameters))
        for bucket in self.buckets[len(self.sums) :]:
            self._start(bucket)
        for gradients, flat, sent in self.sums:
            sent.wait()
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
                gradient.copy_(part.view_as(gradient))
        self.came.clear(), self.sums.clear()
        self.complete = False

    def _comes(self, i: int) -> None:
        if not self.complete:
            return
        if i in self.came:
            raise RuntimeError("losses that are taken one after the other train a parameter together; give them as one")
        self.came[i] = None
        for bucket in self.buckets[len(self.sums) :]:
            if not all(one in self.came for one in bucket):
                break
            self._start(bucket)

    def _start(self, bucket: list[int]) -> None:
        gradients = [self.parameters[i].grad for i in bucket]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        self.sums.append((gradients, flat, distributed.start_sum(flat)))

    def _in_order(self) -> list[int]:
        return [*self.came] + [i for i in range(len(self.parameters)) if i not in self.came]


def _cut(order: list[int], parameters: list[Tensor]) -> Iterator[list[int]]:
    bucket, size = [], 0
    for i in order:
        bucket.append(i)
        size += parameters[i].numel()
        if size >= BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
