"""Fisher values gathered on a logarithmic scale: sums over parameters in the time of a few hundred numbers."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..backend.compiled import kernels, run_together

BINS_PER_OCTAVE = 8
LOWEST, HIGHEST = -120, 60  # octaves: Fishers from 1e-36 to 1e18; what is smaller counts as nought
N_BINS = (HIGHEST - LOWEST) * BINS_PER_OCTAVE + 1
CHUNK = 1 << 20


def octave_bin(values: Tensor) -> Tensor:
    """int64, 0 for nought, else 1 + the bin of log2."""
    bins = ((values.double().log2() - LOWEST) * BINS_PER_OCTAVE).floor().clamp(-1, N_BINS - 2)
    return (bins + 1).long()


def spectrum(fishers: Iterable[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """(count, mean value) of every bin that is not empty, from flat Fishers (P,) as Proxy has them."""
    threads, tables, tasks = torch.get_num_threads(), [], []
    for whole in fishers:
        for values in whole.split(CHUNK):
            tables.append(np.zeros((2, N_BINS)))
            tasks.append((_add_spectrum, values, *tables[-1]))
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        run_together(tasks, pool, threads)
    count, total = np.sum(tables, axis=0) if tables else np.zeros((2, N_BINS))
    filled = count > 0
    return count[filled], total[filled] / count[filled]


def _add_spectrum(values: Tensor, count: np.ndarray, total: np.ndarray) -> None:
    if compiled := kernels("proxy.kernels_cpu"):
        exact = values if values.dtype in (torch.float32, torch.float64) else values.double()
        return compiled.add_spectrum(exact.numpy(), count, total)
    place = octave_bin(values)
    count += torch.bincount(place, minlength=N_BINS).numpy()
    total += torch.bincount(place, values.double(), N_BINS).numpy()
