"""Checkpoints written beside the work they are of: by a thread, from copies, and no more often than their cost allows."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from .checkpoint import Checkpoint

SHARE = 0.05  # of the time, at most, that checkpoints are copied and written in


class Background:
    """A context around a training or a pass: at its end the last checkpoint is on the disk, or what kept it from there is raised.

    One is written at a time. An exception of `Checkpoint.save` is raised by the next `save`, or at the end.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint, self.pool = checkpoint, ThreadPoolExecutor(1, "checkpoint")
        self.writing: Future | None = None
        self.began, self.cost = time.monotonic(), 0.0  # of the last one: when, and its seconds

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind, *_) -> None:
        self.pool.shutdown()
        if kind is None:
            self._finish()

    def due(self, seconds: float) -> bool:
        """Whether so many seconds have passed since the last one, it is written, and another keeps to its share of the time;
        always, where seconds is 0."""
        passed = time.monotonic() - self.began
        ready = self.writing is None or self.writing.done()
        return seconds == 0 or (ready and passed >= max(seconds, self.cost / SHARE))

    def save(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        """As `Checkpoint.save`; the tensors may change afterwards, state may not."""
        self._finish()
        self.began = time.monotonic()
        copies = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
        self.writing = self.pool.submit(self._write, copies, state)

    def _write(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        self.checkpoint.save(tensors, state)
        self.cost = time.monotonic() - self.began

    def _finish(self) -> None:
        if self.writing:
            writing, self.writing = self.writing, None
            writing.result()
