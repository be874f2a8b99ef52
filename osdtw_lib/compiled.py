"""Small compiled loops (numba), for what plain PyTorch would spend on dispatch and on writing out what it reads again.

Where numba is missing or cannot compile, plain PyTorch does the same, slower. The threads are the callers' own: numba's
are not safe to use from several threads at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import ModuleType


@functools.cache
def kernels(module: str) -> ModuleType | None:
    """A module of this package that compiles at import; None, said once, where that fails."""
    try:
        return import_module(f".{module}", __package__)
    except Exception as error:  # whatever a compiler may raise on a machine nobody has seen
        reason = str(error).strip().splitlines()[:1]
        print(f"numba cannot be used here, plain PyTorch is, slower: {type(error).__name__} {' '.join(reason)}", flush=True)
        return None


def compiled(*signatures: str, fastmath: bool | set = False) -> Callable:
    """Decorator: compile now, without the interpreter's lock, and keep the result for the next process where that can be."""
    import numba

    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set")
    options = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}

    def decorate(function):
        try:
            return numba.njit(list(signatures), cache=True, **options)(function)
        except (RuntimeError, OSError):  # no folder for it can be written
            return numba.njit(list(signatures), **options)(function)

    return decorate


def run_together(tasks: Iterable[tuple], pool: ThreadPoolExecutor, threads: int) -> None:
    """Every (function, *arguments), in any order, by this thread and threads - 1 of the pool's."""
    waiting = iter(list(tasks))

    def work():
        for function, *arguments in waiting:  # a list's iterator hands each out once, whoever asks
            function(*arguments)

    others = [pool.submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()
