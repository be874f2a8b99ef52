"""Fisher values gathered on a logarithmic scale: sums over parameters in the time of a few hundred numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

BINS_PER_OCTAVE = 8
LOWEST, HIGHEST = -120, 60  # octaves: Fishers from 1e-36 to 1e18; what is smaller counts as nought
N_BINS = (HIGHEST - LOWEST) * BINS_PER_OCTAVE + 1
CHUNK = 1 << 20


def octave_bin(values: Tensor) -> Tensor:
    """int64, 0 for nought, else 1 + the bin of log2."""
    bins = ((values.double().log2() - LOWEST) * BINS_PER_OCTAVE).floor().clamp(-1, N_BINS - 2)
    return (bins + 1).long()


def spectrum(fishers: Iterable[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """(count, mean value) of every bin that is not empty."""
    count, total = torch.zeros(2, N_BINS, dtype=torch.float64)
    for whole in fishers:
        for values in whole.reshape(-1).split(CHUNK):
            place = octave_bin(values)
            count += torch.bincount(place, minlength=N_BINS)
            total += torch.bincount(place, values.double(), N_BINS)
    filled = count > 0
    return count[filled].numpy(), (total[filled] / count[filled]).numpy()
