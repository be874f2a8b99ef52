"""Theorem 1 for k groups of classes instead of two: the same three stages, one encoder under k decoders.

With J^t the Fisher of task t in the shared parameters, w_t its weight, H = sum w_t J^t and J = sum J^t, the shared encoder is
to first order sum_t s_t phi^t with the shares s_t = w_t J^t / H, and

    variance  1/(2N) sum over parameters of J (sum_t w_t^2 J^t) / H^2
    bias      1/2 sum_t J^t (sum_r s_r phi^r - phi^t)^2
            = 1/2 sum over pairs r < t of (phi^r - phi^t)^2 [s_r J^t + s_t J^r - s_r s_t J]

since sum_r s_r = 1: a sum over the pairs, each with its own squared mismatch, and so known from the k networks of Stage 1.
Two groups give Eq. (18)'s bias with w_t in place of s_t, and the exact one with s_t. With three or more a pair's factor can
be negative: two optima that lie apart on both sides of a third are, for it, better than two that lie together on one.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from numpy import ndarray

from .gaussian_tasks import draws, three_stages


def shares(fishers: ndarray, weights: ndarray) -> ndarray:
    """s_t (k, d): by how much each task's optimum counts in the shared one. fishers (k, d) > 0; weights (k,), which sum to 1."""
    weighted = np.asarray(weights)[:, None] * fishers
    return weighted / weighted.sum(0)


def variance(fishers: ndarray, weights: ndarray, n: int, damping: float = 0.0) -> float:
    """Of the shared encoder, in nats, block-diagonal; damping: a ridge under H, which `shares` of fishers + damping go with."""
    w = np.asarray(weights)[:, None]
    ridged = (w * fishers).sum(0) + damping * w.sum()
    return float((fishers.sum(0) * (w * w * fishers).sum(0) / ridged**2).sum() / (2 * n))


def bias(fishers: ndarray, optima: ndarray, counted: ndarray) -> float:
    """In nats, as a sum over the pairs; optima (k, d); counted (k, d) or (k, 1): `shares`, or the weights, as Eq. (18) has it."""
    total = 0.0
    for r, t in itertools.combinations(range(len(fishers)), 2):
        factor = counted[r] * fishers[t] + counted[t] * fishers[r] - counted[r] * counted[t] * fishers.sum(0)
        total += float(((optima[r] - optima[t]) ** 2 * factor).sum() / 2)
    return total


def constant(groups: ndarray) -> ndarray:
    """Lemma 1's constant for single labels, in nats: sum_t h(p_t) - H(p), h the binary entropy; groups (..., k): p_t, the
    probability that an image's class is of group t. With two groups it is h(p)."""
    p = np.asarray(groups, dtype=float)
    minus = lambda q: -q * np.log(np.where(q > 0, q, 1.0))  # noqa: E731
    return (minus(p) + minus(1 - p)).sum(-1) - minus(p).sum(-1)


def study(spectrum: ndarray, ratios, weights, n: int, repetitions: int, rng: np.random.Generator, mismatch=2.0) -> pd.DataFrame:
    """The Gaussian model with len(ratios) tasks, J^t = ratio_t times the spectrum (d,): a row a vector of weights.

    The optima lie `mismatch` standard errors of a parameter apart, in turn above and below. Columns: weights, simulated,
    standard_error, eq18 (the weights in the bias, as it is printed for two), exact_bias, separate (k networks), in nats.
    """
    fishers = np.outer(ratios, spectrum)
    k, d = fishers.shape
    places = np.arange(k)[:, None] * np.where(np.arange(d) % 2, -1.0, 1.0)
    optima = mismatch * places / np.sqrt(n * fishers.mean(0))
    decoder = 4
    rows = []
    for w in weights:
        lower, noise = draws(n, d + k * decoder, k, repetitions, rng)
        errors, _ = three_stages(fishers, decoder, lower @ lower.transpose(0, 2, 1) / n, (lower @ noise)[..., 0] / n, optima, w)
        rest = variance(fishers, w, n) + k * decoder / (2 * n)
        rows.append(
            {"weights": " : ".join(f"{one:.2f}" for one in w)}
            | {"simulated": errors.mean(), "standard_error": errors.std(ddof=1) / repetitions**0.5}
            | {"eq18": rest + bias(fishers, optima, np.asarray(w)[:, None])}
            | {"exact_bias": rest + bias(fishers, optima, shares(fishers, w)), "separate": k * (d + decoder) / (2 * n)}
        )
    return pd.DataFrame(rows)
