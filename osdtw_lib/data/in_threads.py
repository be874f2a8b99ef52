"""Many images, one function each, computed in threads, with a line of progress every few seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ..backend.progress import LINE_SECONDS, clock
from ..backend.threads import cores


def over_images(function: Callable[[int], object], count: int, label: str) -> Iterator:
    """function(0), function(1), ... in order, computed in threads (Pillow decodes outside the interpreter's lock)."""
    threads = 2 * cores() + 4  # more than cores: some wait for the disk
    started = printed = time.monotonic()
    pending: deque[Future] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for index in range(count):
            pending.append(pool.submit(function, index))
            if len(pending) < 8 * threads:  # in flight at most, so that memory does not grow
                continue
            yield pending.popleft().result()
            now = time.monotonic()
            if now - printed >= LINE_SECONDS:
                done, printed = index + 1 - len(pending), now
                rate = done / (now - started)
                left = clock((count - done) / rate)
                print(f"{label}: {done:,} of {count:,} images  {rate:.0f} images/s  {left} left", flush=True)
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
