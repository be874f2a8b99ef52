"""Fig. 1 of the paper as numbers: how far a boundary moves when a small training set is drawn again."""

from __future__ import annotations

import numpy as np

MEANS = {"head": np.array([0.0, 1.2]), "tail": np.array([0.0, -1.2])}


def boundary_under_resampling(n_head: int, n_tail: int, resamples: int = 200, seed: int = 0):
    """Two Gaussian classes, linear discriminant boundaries of `resamples` training sets drawn anew.

    Returns (points {"head": (n_head, 2), "tail": (n_tail, 2)} of the first set, x (41,), boundary heights
    (resamples, 41)). Linear discriminants with equal priors and the pooled covariance, shrunk a little towards
    the identity so that two points are enough.
    """
    rng = np.random.default_rng(seed)
    x = np.linspace(-4, 4, 41)
    heights, first = [], {}
    for _ in range(resamples):
        sets = {t: m + rng.standard_normal((n, 2)) for (t, m), n in zip(MEANS.items(), (n_head, n_tail))}
        first = first or sets
        pooled = sum((s - s.mean(0)).T @ (s - s.mean(0)) for s in sets.values()) + np.eye(2)
        direction = np.linalg.solve(pooled, sets["head"].mean(0) - sets["tail"].mean(0))
        middle = (sets["head"].mean(0) + sets["tail"].mean(0)) / 2
        height = direction[1] if abs(direction[1]) > 1e-9 else 1e-9
        heights.append(middle[1] - (x - middle[0]) * direction[0] / height)
    return first, x, np.array(heights)
