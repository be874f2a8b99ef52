"""How an epoch's images are drawn: every one once, or the classes with another share than they have."""

from __future__ import annotations

import numpy as np

# the power of the class counts that a class's share goes with (Kang et al. 2020, Eq. 1): 1 would be `images`;
# "reversed" is BBN's (Zhou et al. 2020, section 4.1)
POWERS = {"classes": 0.0, "root": 0.5, "reversed": -1.0}
SAMPLINGS = ("images", *POWERS)


def order(sampling: str | tuple[float, ...], labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Which images an epoch sees, in order (N,): it depends on the seed and the epoch alone.

    "images": each once. "classes": each class as often; "root": by the root of its count; "reversed": by one over its count;
    or a share a class (K,), of any sum. In all but the first a class's images come round one after the other, shuffled each
    round, so that none comes twice before all have come. Raises ValueError for another name.
    """
    random = np.random.default_rng((seed, epoch))
    if sampling == "images":
        return random.permutation(len(labels))
    if isinstance(sampling, str) and sampling not in POWERS:
        raise ValueError(f"sampling is one of {', '.join(SAMPLINGS)}, got '{sampling}'")
    classes, counts = np.unique(labels, return_counts=True)
    share = counts ** POWERS[sampling] if isinstance(sampling, str) else np.asarray(sampling, dtype=float)[classes]
    drawn = random.choice(len(classes), len(labels), p=share / share.sum())
    chosen = np.empty(len(labels), dtype=np.int64)
    for k, label in enumerate(classes):
        places, members = np.flatnonzero(drawn == k), np.flatnonzero(labels == label)
        rounds = [random.permutation(members) for _ in range(-(-len(places) // len(members)))]
        chosen[places] = np.concatenate([*rounds, members[:0]])[: len(places)]
    return chosen
