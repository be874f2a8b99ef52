"""The proxy's loops, compiled: the encoder's two sums over parameters, each read once whatever the number of head weights,
and the spectrum of bins.py, the bin of a value from the bits of its exponent and mantissa, without a logarithm.

A block of parameters is read into what its terms are made of, in float64, and stays in the cache while the weights go
by, two at a time: 1 / h and 1 / h' cost one division, of 1 by h h'. In these products float32 values cannot overflow or
vanish, nor float64 ones between 1e-80 and 1e80. What has no plain term (a negative value, NaN, infinity, h = 0) makes
the sums NaN or infinite, which tells the caller to look closely; a dead parameter (a = b = 0) adds nothing.
"""

from __future__ import annotations

import numpy as np

from ..backend.compiled import compiled
from .bins import BINS_PER_OCTAVE, LOWEST, N_BINS

BLOCK = 512  # six rows of so many float64 fit into a core's first cache
_SIGNATURE = "void(float{0}[::1], float{0}[::1], float{0}[::1], float64[::1], float64, boolean, float64[:, ::1], float64[::1])"


@compiled(_SIGNATURE.format(32), _SIGNATURE.format(64), fastmath={"reassoc", "contract", "nsz"})
def add_terms(a, b, d, weights, lam, damped, sums, ends):
    """What the parameters a, b, d (P,) add to sums (2, W), variance and bias for an even number of weights inside 0..1,
    and to ends (5,): variance at w_A = 1 and 0, bias at 1 and 0, both Fishers' sum of (J / (J + lam)) ** 2.
    """
    rows = np.empty((6, BLOCK))
    slope, offset, for_a, for_b, pull_a, pull_b = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    ridge = lam if damped else 0.0
    for start in range(0, len(a), BLOCK):
        n = min(BLOCK, len(a) - start)
        some_a, some_b, some_d = a[start : start + n], b[start : start + n], d[start : start + n]
        plain_a = plain_b = end_a = end_b = shares = 0.0
        for i in range(n):
            x, y, z = np.float64(some_a[i]), np.float64(some_b[i]), np.float64(some_d[i])
            both = x + y + (0.0 if x >= 0 else np.nan) + (0.0 if y >= 0 else np.nan)
            slope[i] = x - y  # h = w slope + offset
            offset[i] = y + ridge + (0.0 if both != 0 else 1.0)
            for_a[i] = both * x
            for_b[i] = both * y
            ridged_a, ridged_b = x + ridge, y + ridge
            x *= z * z
            y *= z * z
            pull_a[i] = x * ridged_b * ridged_b
            pull_b[i] = y * ridged_a * ridged_a
            plain_a += x
            plain_b += y
        for i in range(n):
            x, y = np.float64(some_a[i]), np.float64(some_b[i])
            instead = 0.0 if x + y != 0 else 1.0
            h1, h2 = x + ridge + instead, y + ridge + instead  # slope + offset would lose a small a beside a large b
            inverse = 1 / (h1 * h2)
            q1, q2 = inverse * h2, inverse * h1
            q1 *= q1
            q2 *= q2
            end_a += for_a[i] * q1
            end_b += for_b[i] * q2
            shares += x * x * q1 + y * y * q2
        ends[0] += end_a
        ends[1] += end_b
        ends[2] += plain_b
        ends[3] += plain_a
        ends[4] += shares
        for j in range(0, len(weights), 2):
            w1, w2 = weights[j], weights[j + 1]
            v1, v2 = 1 - w1, 1 - w2
            a1 = b1 = a2 = b2 = c1 = d1 = c2 = d2 = 0.0
            if damped:
                for i in range(n):
                    h1, h2 = w1 * slope[i] + offset[i], w2 * slope[i] + offset[i]
                    inverse = 1 / (h1 * h2)
                    q1, q2 = (inverse * h2) ** 2, (inverse * h1) ** 2
                    a1 += for_a[i] * q1
                    b1 += for_b[i] * q1
                    a2 += for_a[i] * q2
                    b2 += for_b[i] * q2
                    c1 += pull_a[i] * q1
                    d1 += pull_b[i] * q1
                    c2 += pull_a[i] * q2
                    d2 += pull_b[i] * q2
            else:
                for i in range(n):
                    h1, h2 = w1 * slope[i] + offset[i], w2 * slope[i] + offset[i]
                    inverse = 1 / (h1 * h2)
                    q1, q2 = (inverse * h2) ** 2, (inverse * h1) ** 2
                    a1 += for_a[i] * q1
                    b1 += for_b[i] * q1
                    a2 += for_a[i] * q2
                    b2 += for_b[i] * q2
                c1 = c2 = plain_a
                d1 = d2 = plain_b
            sums[0, j] += w1 * w1 * a1 + v1 * v1 * b1
            sums[1, j] += v1 * v1 * c1 + w1 * w1 * d1
            sums[0, j + 1] += w2 * w2 * a2 + v2 * v2 * b2
            sums[1, j + 1] += v2 * v2 * c2 + w2 * w2 * d2


FRACTION = 52  # bits of a float64's mantissa
_edges = [round((2 ** (k / BINS_PER_OCTAVE) - 1) * 2**FRACTION) for k in range(BINS_PER_OCTAVE)]
EDGES = np.array([*_edges, 2**FRACTION], dtype=np.int64)  # of the bins within an octave
FIRST = np.array([max(k for k in range(BINS_PER_OCTAVE) if _edges[k] <= i << FRACTION - 8) for i in range(256)])  # by 8 bits
_SPECTRUM = "void(float{}[::1], float64[::1], float64[::1])"


@compiled(_SPECTRUM.format(32), _SPECTRUM.format(64))
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
