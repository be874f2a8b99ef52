"""Small compiled loops (numba), for what plain PyTorch would spend on dispatch and on writing out what it reads again.

Where numba is missing or cannot compile, plain PyTorch does the same, slower. The threads are the callers' own: numba's
are not safe to use from several threads at once.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import numpy as np

PACKAGE = __package__.rpartition(".")[0]


@functools.cache
def kernels(module: str) -> ModuleType | None:
    """A module of osdtw_lib ("fisher.kernels_cpu") that compiles at import; None, said once, where that fails."""
    name = f"{PACKAGE}.{module}"
    if find_spec(name) is None:  # a module that was moved must not pass for a machine without a compiler
        raise ModuleNotFoundError(f"no module {name}")
    try:
        return import_module(name)
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
        return _kept(numba.njit, list(signatures), function, options)

    return decorate


def compiled_region(function: Callable) -> Callable:
    """Decorator: a compiled function of one address, which any thread may call without the interpreter."""
    import numba

    return _kept(numba.cfunc, "void(voidptr)", function, {}).ctypes


def _kept(compiler: Callable, signatures, function: Callable, options: dict):
    try:
        return compiler(signatures, cache=True, **options)(function)
    except (RuntimeError, OSError):  # no folder for it can be written
        return compiler(signatures, **options)(function)


def in_team(region: Callable, data: np.ndarray, threads: int) -> None:
    """region(address of data) in several threads at once: those that PyTorch's own operations keep ready, if it can be.

    Other threads have to be woken each time, and PyTorch's stand in their way while they wait for work.
    """
    address = ctypes.c_void_p(data.ctypes.data)
    if parallel := _openmp():
        return parallel(region, address, ctypes.c_uint(threads), ctypes.c_uint(0))
    others = [threading.Thread(target=region, args=(address,)) for _ in range(threads - 1)]
    for other in others:
        other.start()
    region(address)
    for other in others:
        other.join()


@functools.cache
def _openmp() -> Callable | None:
    """OpenMP's entry into a parallel region, from the library that PyTorch has loaded; None where it has another."""
    try:
        parallel = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    parallel.restype = None
    return parallel


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
