"""The spectrum of bins.py, compiled: the bin of a value from the bits of its exponent and mantissa, without a logarithm."""

from __future__ import annotations

import numpy as np

from .bins import BINS_PER_OCTAVE, LOWEST, N_BINS
from ..backend.compiled import compiled

FRACTION = 52  # bits of a float64's mantissa
_edges = [round((2 ** (k / BINS_PER_OCTAVE) - 1) * 2**FRACTION) for k in range(BINS_PER_OCTAVE)]
EDGES = np.array([*_edges, 2**FRACTION], dtype=np.int64)  # of the bins within an octave
FIRST = np.array([max(k for k in range(BINS_PER_OCTAVE) if _edges[k] <= i << FRACTION - 8) for i in range(256)])  # by 8 bits
_SIGNATURE = "void(float{}[::1], float64[::1], float64[::1])"


@compiled(_SIGNATURE.format(32), _SIGNATURE.format(64))
def add_spectrum(values, count, total):
    """count and total (N_BINS,) += how many values each bin has and their sum."""
    for i in range(len(values)):
        value = np.float64(values[i])
        bits = value.view(np.int64)
        place = 0
        if value > 0:
            fraction = bits & ((1 << FRACTION) - 1)
            k = FIRST[fraction >> (FRACTION - 8)]
            if fraction >= EDGES[k + 1]:
                k += 1
            place = (((bits >> FRACTION) - 1023 - LOWEST) * BINS_PER_OCTAVE + k) + 1
            place = max(0, min(place, N_BINS - 1))
        count[place] += 1
        total[place] += value
