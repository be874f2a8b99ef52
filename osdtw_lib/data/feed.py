"""How long images are waited for, and one line where that holds up a GPU: by how much, and what to do.

What is measured is the reading alone: when a batch is asked for and not there yet. A GPU works on while the next is fetched,
so that the time until its results are there says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..backend import distributed

WINDOW = 60.0  # seconds of a training that are looked at together
MUCH = 0.2  # of them


class Feed:
    """waited: seconds in which the next images were not there yet, since the beginning.

    source, remedy: for the line, who reads and what would help.
    """

    def __init__(self, device: torch.device, source: str, remedy: str):
        self.waited, self.source, self.remedy = 0.0, source, remedy
        self.watches = device.type != "cpu" and distributed.rank() == 0
        self._window: tuple[float, float] | None = None  # when it began, and what had been waited by then
        self._images = 0  # that came in it

    def timed(self, items: Iterable[Tensor | str], training: bool = False) -> Iterator[Tensor | str]:
        """The same items; the time they are waited for is counted, and looked at while something trains."""
        started = time.monotonic()
        items = iter(items)  # starts the readers
        while True:
            item = next(items, None)
            now = time.monotonic()
            self.waited += now - started
            if item is None:
                return
            if training and self.watches:
                self._look(now, len(item))
            yield item
            started = time.monotonic()

    def _look(self, now: float, images: int) -> None:
        """At the end of a window; before the first one comes what is done once, such as compiling."""
        began, before = self._window or (now, self.waited)
        seconds, waited, self._images = now - began, self.waited - before, self._images + images
        if self._window and seconds < WINDOW:
            return
        if waited > MUCH * seconds:
            possible = self._images / max(seconds - waited, 1e-9)
            print(
                f"data: {100 * waited / seconds:.0f} % of the time the GPU waits for images: {self._images / seconds:,.0f} a "
                f"second are read by {self.source}, it could take {possible:,.0f}; {self.remedy}",
                flush=True,
            )
            self.watches = False
        self._window, self._images = (now, self.waited), 0
