"""`reproducible: true`: the same rounding on every x86-64 processor that has AVX2, whatever else it has and however many cores.

Sums are rounded in the order in which a library adds, and libraries choose that by the processor: its maker, the width
of its vectors, its caches, its cores. Here each is told what to use. Most read it once, when they are loaded, so the
variables have to stand before torch is: the command line starts itself again with them, `run` gives them to its notebooks.
docs/reproducible.md says what it costs and what stays different.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator

from ..errors import UserError

SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own loops
    "MKL_CBWR": "COMPATIBLE",  # matrix products: the one branch of MKL that does not ask who made the processor
    "MKL_DYNAMIC": "FALSE",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",  # sums over a batch are cut into one piece a thread
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's matrix products
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+avx2,+fma",
}
START = "start it by `python -m osdtw_lib run`, a stage, or `lab --reproducible`: what is set has to stand before torch is loaded"


def active() -> bool:
    """Whether this process was started with the settings."""
    return all(os.environ.get(name) == value for name, value in SETTINGS.items())


@contextlib.contextmanager
def environment(wanted: bool) -> Iterator[None]:
    """While inside, processes that are started have the settings, where they are wanted."""
    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS if wanted else {})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def restart(arguments: list[str]) -> None:
    """This process becomes `python -m osdtw_lib ARGUMENTS` with the settings; it does not come back."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "osdtw_lib", *arguments], os.environ | SETTINGS)


def switch_off_blocked_products() -> None:
    """Convolutions and GELU without oneDNN and NNPACK, which cut their sums by the caches' sizes; no variable says so."""
    import torch

    torch.backends.mkldnn.set_flags(False)
    torch.backends.nnpack.set_flags(False)


def require() -> None:
    """Raises UserError, one line, where what this process computes could differ from another machine's."""
    import numpy as np
    import torch

    vectors = np.show_config(mode="dicts").get("SIMD Extensions", {})
    has = {*vectors.get("baseline", ()), *vectors.get("found", ())}
    if platform.machine() not in ("x86_64", "AMD64") or not has & {"X86_V3", "AVX2"}:
        raise UserError("reproducible: true needs an x86-64 processor with AVX2, which this is not; set reproducible: false")
    if not torch.backends.mkl.is_available():
        raise UserError("reproducible: true needs a PyTorch built with MKL, which this one is not; set reproducible: false")
    if not active():
        wrong = next(name for name, value in SETTINGS.items() if os.environ.get(name) != value)
        raise UserError(f"reproducible: true, but {wrong} is not {SETTINGS[wrong]} in this process; {START}")
    if torch.backends.cpu.get_cpu_capability() != "AVX2" or torch.get_num_threads() != 1:
        raise UserError(f"reproducible: true, but torch was loaded before the settings stood; {START}")
