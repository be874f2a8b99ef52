"""The proxy's arithmetic: the encoder's two sums over parameters, for many head weights in one reading.

With s = a + b both terms are free of scale but for lam / s. Undamped, with u = (a - b) / s, v = 1 - u^2 = 4 a b / s^2
and t = 2 w_A - 1, a term of the variance is

    (a + b) (w_A^2 a + w_B^2 b) / H^2  =  [(1 - t^2)^2 + t^2 (3 - t^2) v - 2 t^3 u v] m^2,    m = 1 / (1 - t^2 + t^2 v),

so that one reciprocal serves the weights t and -t, nothing cancels, and every sum wanted is a small matrix product
of m^2 with 1, v, u v. Damped, 1 / h with h = w_A r + w_B (1 - r) + lam / s, r = a / s, does the
same for each weight. Chunks stay in a core's cache, are summed in the tensors' own precision and added up in
float64. A chunk that holds a dead parameter goes the slow way, `careful_sums`, which spells out every limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

CHUNK = 1 << 15  # parameters at a time

Triple = tuple[Tensor, Tensor, Tensor]


def encoder_sums(entries: Iterable[Triple], weights: np.ndarray, lam: float, form: str) -> list[np.ndarray]:
    """(2, W), variance and bias, of each entry: a, b (P,) the two Fishers, d (P,) the mismatch.

    Not yet divided by 2N and by 2. NaN in the variance says that an entry holds a value that is negative or NaN.
    Entries are shared out over torch's threads: each works through its own chunks, without waiting for the other.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        sums = list(pool.map(lambda entry: _one(*entry, weights, lam, form), entries))
    torch.set_num_threads(threads)
    return sums


@torch.no_grad()
def _one(a: Tensor, b: Tensor, d: Tensor, weights: np.ndarray, lam: float, form: str) -> np.ndarray:
    total = np.zeros((2, len(weights)))
    if not a.dtype == b.dtype == d.dtype:
        a, b, d = a.double(), b.double(), d.double()
    if form == "paper":
        quick = UndampedSums(weights, a.dtype, min(CHUNK, len(a)))
    else:
        quick = partial(damped_sums, weights=weights, lam=lam)
    for chunk in zip(a.split(CHUNK), b.split(CHUNK), d.split(CHUNK)):
        sums = quick(*chunk)
        total += careful_sums(*chunk, weights, lam, form) if sums is None else sums
    return total


class UndampedSums:
    """(2, W) of one chunk for Eq. (18); None where a value is dead, negative or not a number.

    Works in memory of its own: what is allocated anew for every chunk costs more than the arithmetic.
    """

    def __init__(self, weights: np.ndarray, dtype: torch.dtype, size: int):
        self.weights = weights
        t = 2 * weights - 1
        self.inside = np.abs(t) < 1
        self.t = t[self.inside]
        levels, self.place = np.unique(self.t**2, return_inverse=True)
        self.square = torch.as_tensor(levels, dtype=dtype)[:, None]  # (pairs, 1)
        self.basis = torch.ones(3, size, dtype=dtype)  # 1, v, u v
        self.m2 = torch.empty(len(levels), size, dtype=dtype)
        self.one, self.two = torch.empty(2, size, dtype=dtype)

    def __call__(self, a: Tensor, b: Tensor, d: Tensor) -> np.ndarray | None:
        n, weights, t, mul = len(a), self.weights, self.t, torch.mul
        basis, m2, one, two = self.basis[:, :n], self.m2[:, :n], self.one[:n], self.two[:n]
        torch.add(a, b, out=one).reciprocal_()
        mul(b, one, out=two)  # the shares of b and of a
        mul(a, one, out=one)
        v = mul(one, two, out=basis[1]).mul_(4)
        mul(one.sub_(two), v, out=basis[2])
        if not float(v.min()) >= 0:
            return None
        mul(self.square, v, out=m2).add_(1 - self.square).reciprocal_()
        alone, with_v, with_uv = (basis @ mul(m2, m2, out=m2).T).double().numpy()[:, self.place]
        result = np.empty((2, len(weights)))
        result[0, self.inside] = (1 - t**2) ** 2 * alone + t**2 * (3 - t**2) * with_v - 2 * t**3 * with_uv
        for end, fisher, other in ((1.0, a, b), (0.0, b, a)):  # one task has all the weight: 1 + other / fisher
            if (weights == end).any():
                result[0, weights == end] = n + float(torch.reciprocal(fisher, out=one) @ other)
        mul(d, d, out=one)
        bias_a, bias_b = float(one @ a), float(one @ b)
        if not math.isfinite(bias_a + bias_b):
            return None
        result[1] = (1 - weights) ** 2 * bias_a + weights**2 * bias_b
        return result


def damped_sums(a: Tensor, b: Tensor, d: Tensor, weights: np.ndarray, lam: float) -> np.ndarray | None:
    """(2, W) of one chunk for the damped form; None where a value is dead, negative or not a number."""
    s = a + b
    inverse_s = s.reciprocal()
    shares = torch.stack([a, b]) * inverse_s  # (2, P): r and 1 - r
    if not (float(shares.min()) >= 0 and (lam > 0 or float(shares.min()) > 1e-15)):
        return None
    head = torch.as_tensor(weights, dtype=a.dtype)
    inner = shares + lam * inverse_s
    inverse = (torch.stack([head, 1 - head], dim=1) @ inner).reciprocal_()  # (W, P): 1 / h
    pull = d * d * s
    part_a = ((inverse * inner[1]).square_() @ (pull * shares[0])).double().numpy()  # positive: nothing cancels
    part_b = ((inverse * inner[0]).square_() @ (pull * shares[1])).double().numpy()
    spread = (inverse.square_() @ shares.T).double().numpy()  # (W, 2)
    head_square, tail_square = weights**2, (1 - weights) ** 2
    return np.stack([head_square * spread[:, 0] + tail_square * spread[:, 1], tail_square * part_a + head_square * part_b])


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
        if form == "damped":
            p = torch.where(h > 0, w * (a + lam) / h, w)
            result[1, j] = float((d2 * (a * (1 - p).square() + b * p.square())).sum())
        else:
            result[1, j] = float((d2 * (v * v * a + w * w * b)).sum())
    return result
