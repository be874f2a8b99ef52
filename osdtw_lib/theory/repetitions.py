"""Repetitions of a simulation in blocks that stay in a core's cache, a thread a core.

A repetition depends on no other, so the numbers are the same; at once they would be hundreds of megabytes, and every operation
would wait for memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy import ndarray

from ..backend.threads import allowed

BLOCK = 256  # repetitions: of the largest model some 1 MB an array


def in_blocks(function: Callable[..., tuple[ndarray, ...]], *arrays: ndarray) -> tuple[ndarray, ...]:
    """function(*arrays) of arrays (R, ...), whose results, (R, ...) each, have a row a repetition: block after block."""
    blocks = [[array[i : i + BLOCK] for array in arrays] for i in range(0, len(arrays[0]), BLOCK)]
    with ThreadPoolExecutor(allowed()) as threads:
        found = list(threads.map(lambda block: function(*block), blocks))
    return tuple(np.concatenate(parts) for parts in zip(*found))
