"""The proxy's arithmetic: the encoder's two sums over parameters, for many head weights in one reading.

A compiled loop (kernels_cpu.py) takes the parameters a chunk at a time, in float64. Where it says that a chunk holds
something without a plain term, and where nothing can be compiled, the chunk goes the slow way, `careful_sums`, which
spells out every limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..backend.compiled import kernels, run_together

CHUNK = 1 << 18  # parameters at a time
CAREFUL_CHUNK = 1 << 15  # of the slow way, so that what is between stays in a core's cache

Triple = tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def encoder_sums(entries: Iterable[Triple], weights: np.ndarray, lam: float, form: str) -> list[tuple[np.ndarray, float]]:
    """Of each entry, a, b (P,) the two Fishers and d (P,) the mismatch, all flat as Proxy has them: (2, W), variance and
    bias, and `squared_shares`.

    Not yet divided by 2N and by 2. NaN in the variance says that an entry holds a value that is negative or NaN.
    The chunks of all entries are shared out over as many threads as torch has, and added up in their order.
    """
    threads, tasks, found = torch.get_num_threads(), [], []
    for entry in entries:
        chunks = list(zip(*(tensor.split(CHUNK) for tensor in _alike(*entry))))
        found.append((np.zeros((len(chunks), 2, len(weights))), np.zeros(len(chunks))))
        tasks += [(_add_chunk, chunk, weights, lam, form, *found[-1], i) for i, chunk in enumerate(chunks) if len(chunk[0])]
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        run_together(tasks, pool, threads)
    return [(sums.sum(0), float(shares.sum())) for sums, shares in found]


def _alike(*tensors: Tensor) -> list[Tensor]:
    """As they are, where all are float32 or all float64; in float64 else."""
    kept = len({t.dtype for t in tensors}) == 1 and tensors[0].dtype in (torch.float32, torch.float64)
    return [t if kept else t.double() for t in tensors]


def _add_chunk(chunk: Triple, weights: np.ndarray, lam: float, form: str, sums: np.ndarray, shares: np.ndarray, i: int) -> None:
    if compiled := kernels("proxy.kernels_cpu"):
        inside, ends = (weights > 0) & (weights < 1), np.zeros(5)
        even = np.append(weights[inside], [0.5] * (inside.sum() % 2))
        between = np.zeros((2, len(even)))
        compiled.add_terms(*(tensor.numpy() for tensor in chunk), even, lam, form != "paper", between, ends)
        result = np.empty((2, len(weights)))
        result[:, inside] = between[:, : inside.sum()]
        result[:, weights == 1] = ends[[0, 2], None]
        result[:, weights == 0] = ends[[1, 3], None]
        if np.isfinite(result).all() and np.isfinite(ends[2:4]).all():
            sums[i], shares[i] = result, len(chunk[0]) * 2 if lam == 0 else ends[4]
            return
    for a, b, d in zip(*(tensor.split(CAREFUL_CHUNK) for tensor in chunk)):
        sums[i] += careful_sums(a, b, d, weights, lam, form)
        shares[i] += squared_shares(a, lam) + squared_shares(b, lam)


def squared_shares(fisher: Tensor, lam: float) -> float:
    """Sum of (J / (J + lam)) ** 2; with lam = 0 a dead parameter still counts as the degree of freedom it is in Eq. (18)."""
    if lam == 0:
        return float(fisher.numel())
    return sum(float((part.double() / (part.double() + lam)).square().sum()) for part in fisher.split(CAREFUL_CHUNK))


def careful_sums(a: Tensor, b: Tensor, d: Tensor, weights: np.ndarray, lam: float, form: str) -> np.ndarray:
    """(2, W) in float64 and in the formula's own terms; dead parameters (a = b = 0) add nothing."""
    a, b, d2 = a.double(), b.double(), d.double().square()
    if not (float(a.min()) >= 0 and float(b.min()) >= 0):
        return np.full((2, len(weights)), math.nan)
    alive = (a + b) > 0
    a, b, d2 = a[alive], b[alive], d2[alive]
    result = np.zeros((2, len(weights)))
    for j, w in enumerate(weights):
        v = 1 - w
        h = w * a + v * b + lam
        # h = 0: one Fisher is nought and has all the weight; the variance is infinite, the bias has its limit
        ratio = torch.where(h > 0, (a + b) / h, math.inf)
        spread = torch.where(h > 0, (w * w * a + v * v * b) / h, 1.0)
        result[0, j] = float((ratio * spread).sum())
        if form != "paper":
            p, q = (torch.where(h > 0, mine * (fisher + lam) / h, mine) for mine, fisher in ((w, a), (v, b)))  # p + q = 1
            result[1, j] = float((d2 * (a * q.square() + b * p.square())).sum())
        else:
            result[1, j] = float((d2 * (v * v * a + w * w * b)).sum())
    return result
