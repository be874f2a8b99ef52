"""Theorem 1 with whole matrices: Eq. (18) to the letter, and the second-order expansion it stands for.

With A = J^A_phiphi, B = J^B_phiphi, H = w_A A + w_B B, G = w_A^2 A + w_B^2 B, the mismatch D = phi^B - phi^A and
lam the ridge per sample, the estimate of the shared encoder is, to first order,

    phi_hat - phi_w = (H + lam)^-1 (w_A s_A + w_B s_B),    phi_w = (H + lam)^-1 (w_A (A + lam) phi^A + w_B (B + lam) phi^B)

where s_t is the mean over the N samples of task t's score. Hence

    bias      1/2 sum over t of (phi_w - phi^t)' J^t (phi_w - phi^t)
    variance  1/(2N) tr (A + B) (H + lam)^-1 [G + w_A w_B (X + X')] (H + lam)^-1,    X = E[s_A s_B'] of one sample.

Eq. (18) has the variance without X, and in the bias w_A phi^A + w_B phi^B for phi_w. Given the input, a true model's
scores have mean nought, so X is the expectation of their covariance given the input: labels that are independent
there have X = 0, labels that exclude each other do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Information:
    """Two tasks at their optima. head (P_A, P_A), tail (P_B, P_B): Fisher of (phi, psi^t); cross (P_A, P_B): the
    covariance of both scores of one sample; n_encoder: d, how many of the parameters, the first, are the encoder's."""

    head: ndarray
    tail: ndarray
    cross: ndarray
    n_encoder: int

    @property
    def encoder(self) -> tuple[ndarray, ndarray, ndarray]:
        """A, B and X, (d, d) each."""
        d = self.n_encoder
        return self.head[:d, :d], self.tail[:d, :d], self.cross[:d, :d]

    @property
    def decoders(self) -> tuple[ndarray, ndarray]:
        d = self.n_encoder
        return self.head[d:, d:], self.tail[d:, d:]


def eq18(info: Information, mismatch: ndarray, head_weight: float, n: int) -> float:
    """Eq. (18) as it is printed, in nats. mismatch (d,)."""
    a, b, _ = info.encoder
    w, v = head_weight, 1 - head_weight
    inverse = np.linalg.inv(w * a + v * b)
    variance = np.trace((a + b) @ inverse @ (w * w * a + v * v * b) @ inverse) / (2 * n)
    bias = mismatch @ (v * v * a + w * w * b) @ mismatch / 2
    return float(variance + bias + sum(len(j) for j in info.decoders) / (2 * n))


def expansion(info: Information, mismatch: ndarray, head_weight: float, n: int, damping=0.0, cross=False) -> float:
    """The block-diagonal second-order error in nats: exact bias, damped by `damping`, with or without X.

    With damping the error is counted from each task's own regularised optimum, and mismatch is the one between those.
    """
    a, b, x = info.encoder
    w, v, ridge = head_weight, 1 - head_weight, damping * np.eye(info.n_encoder)
    inverse = np.linalg.inv(w * a + v * b + ridge)
    spread = w * w * a + v * v * b + (w * v * (x + x.T) if cross else 0)
    from_head = inverse @ (v * (b + ridge) @ mismatch)  # phi_w - phi^A
    from_tail = from_head - mismatch
    bias = (from_head @ a @ from_head + from_tail @ b @ from_tail) / 2
    decoder = 0.0
    for j in info.decoders:
        ratio = np.linalg.solve(j + damping * np.eye(len(j)), j)
        decoder += np.trace(ratio @ ratio)
    return float((np.trace((a + b) @ inverse @ spread @ inverse) + decoder) / (2 * n) + bias)


@dataclass(frozen=True, eq=False)
class Linearised:
    """The three stages to first order, without the block-diagonal assumption: error of task t = offset_t + map_t (s_A, s_B).

    A repetition's `errors` have the expectation `expected`: what a simulation leaves over is of higher order. Without
    blocks, a decoder of Stage 1 is made for Stage 1's encoder: both err together and make up for each other, and the
    assembly takes them apart. refined: the decoders are fitted again under the shared encoder (section 6.2).
    """

    info: Information
    maps: tuple[ndarray, ndarray]  # (P_t, P_A + P_B)
    offsets: tuple[ndarray, ndarray]  # (P_t,)

    @classmethod
    def of(cls, info: Information, mismatch: ndarray, head_weight: float, refined: bool = False) -> Linearised:
        d, p_head, p_tail = info.n_encoder, len(info.head), len(info.tail)
        size = p_head + p_tail - d  # phi, psi^A, psi^B
        place = {"head": np.arange(p_head), "tail": np.r_[np.arange(d), np.arange(p_head, size)]}
        joint, pull = np.zeros((size, size)), np.zeros((size, p_head + p_tail))
        columns = {"head": slice(0, p_head), "tail": slice(p_head, None)}
        share = {"head": head_weight, "tail": 1 - head_weight}
        for task in place:
            fisher = getattr(info, task)
            joint[np.ix_(place[task], place[task])] += share[task] * fisher
            pull[place[task], columns[task]] = share[task] * np.eye(len(fisher))
        solved = np.linalg.solve(joint, pull)[:d]  # (d, P_A + P_B): the shared encoder's response to both scores
        shift = solved[:, p_head:] @ info.tail[:, :d] @ mismatch  # phi_w - phi^A
        maps, offsets = [], []
        for task in place:
            fisher = getattr(info, task)
            own = np.zeros((len(fisher) - d, p_head + p_tail))
            own[:, columns[task]] = np.linalg.inv(fisher)[d:]  # Stage 1's decoder
            offset = shift - (mismatch if task == "tail" else 0)
            moved = np.zeros(len(own))
            if refined:
                follow = -np.linalg.solve(fisher[d:, d:], fisher[d:, :d])
                own[:, columns[task]] = np.linalg.solve(fisher[d:, d:], np.eye(len(fisher))[d:])
                own, moved = own + follow @ solved, follow @ offset
            maps.append(np.vstack([solved, own]))
            offsets.append(np.r_[offset, moved])
        return cls(info, tuple(maps), tuple(offsets))

    def errors(self, scores: ndarray) -> ndarray:
        """Second-order error of each repetition (R,), in nats; scores (R, P_A + P_B): mean scores of both tasks."""
        total = np.zeros(len(scores))
        for fisher, response, offset in zip((self.info.head, self.info.tail), self.maps, self.offsets):
            e = scores @ response.T + offset
            total += ((e @ fisher) * e).sum(1) / 2
        return total

    def expected(self, n: int, cross: bool = True) -> float:
        """The mean of `errors` over training sets of n samples, in nats; cross=False leaves X out."""
        info = self.info
        x = info.cross if cross else np.zeros_like(info.cross)
        covariance = np.block([[info.head, x], [x.T, info.tail]]) / n
        total = 0.0
        for fisher, response, offset in zip((info.head, info.tail), self.maps, self.offsets):
            total += (np.trace(fisher @ response @ covariance @ response.T) + offset @ fisher @ offset) / 2
        return float(total)


def bias_ratio(ratio: ndarray, head_weight: ndarray) -> ndarray:
    """Bias of Eq. (18) over the exact one, one parameter with a : b = ratio. 1 where a = b and where one task has all the
    weight; at any other weight but 1/2 also at one ratio on one side of a = b, and between the two it is below 1."""
    r, w = np.asarray(ratio, dtype=float), np.asarray(head_weight, dtype=float)
    v = 1 - w
    return (v * v * r + w * w) * (w * r + v) ** 2 / (r * (w * w * r + v * v))


def cross_weights(a, b, head_weight: float, n: int, damping: float = 0.0):
    """What one unit of a parameter's X adds to the encoder variance, in nats; a, b: diagonal Fishers, tensors or arrays."""
    h = head_weight * a + (1 - head_weight) * b + damping
    alive = h > 0
    h = h + ~alive
    return alive * head_weight * (1 - head_weight) / n * ((a + b) / h / h)  # h squared would vanish in float32
