"""Lemma 1 on finite distributions: the joint divergence is the task-wise ones plus I(Z_A; Z_B | Y).

A joint distribution of input and labels is an array (inputs, values of Z_A, values of Z_B); value 0 of a label
vector is the all-zero one. For labels that exclude each other, exactly one of both being non-zero, Z_A tells which
group the image belongs to and so does Z_B, and neither tells anything else about the other: the constant is the
entropy of "head or tail" given the image, between 0 and log 2.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray


def random_joint(rng: np.random.Generator, inputs: int, n_head: int, n_tail: int, exclusive: bool = False) -> ndarray:
    """A random Q over (Y, Z_A, Z_B), (inputs, n_head + 1, n_tail + 1); exclusive: single labels, as in section 4."""
    q = rng.gamma(0.5, size=(inputs, n_head + 1, n_tail + 1))
    if exclusive:
        q[:, 1:, 1:] = 0
        q[:, 0, 0] = 0
    return q / q.sum()


def random_predictor(rng: np.random.Generator, inputs: int, values: int) -> ndarray:
    """A random P(z | y), (inputs, values)."""
    return rng.dirichlet(np.ones(values), size=inputs)


def joint_divergence(q: ndarray, head: ndarray, tail: ndarray) -> float:
    """D(Q_W || P_W), the left side of Eq. (12), in nats; P_W = Q_Y P_A P_B (Eqs. 10 and 11)."""
    prior = q.sum((1, 2))
    return _divergence(q, prior[:, None, None] * head[:, :, None] * tail[:, None, :])


def task_divergence(q: ndarray, predictor: ndarray) -> float:
    """D(Q_X_t || P_X_t), in nats; q (inputs, values): the joint of the input and one task's label."""
    return _divergence(q, q.sum(1, keepdims=True) * predictor)


def conditional_information(q: ndarray) -> float:
    """I(Z_A; Z_B | Y) by Eq. (7), in nats."""
    prior = q.sum((1, 2), keepdims=True)
    return _divergence(q, q.sum(2, keepdims=True) * q.sum(1, keepdims=True) / prior)


def group_entropy(head_probability: ndarray) -> ndarray:
    """What I(Z_A; Z_B | Y = y) is for exclusive labels: the entropy of "head or tail", in nats, of P(head | y)."""
    q = np.clip(np.asarray(head_probability, dtype=float), 0, 1)
    return -(_xlogy(q) + _xlogy(1 - q))


def class_posterior(probabilities: ndarray) -> ndarray:
    """Bernoulli probabilities of all classes (n, K), conditioned on exactly one label being set."""
    odds = np.log(probabilities) - np.log1p(-probabilities)
    odds = np.exp(odds - odds.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def single_label_mass(probabilities: ndarray) -> ndarray:
    """How much of a Bernoulli model's probability lies on label vectors that can occur: exactly one label (n,)."""
    none = np.log1p(-probabilities).sum(1)
    odds = np.log(probabilities) - np.log1p(-probabilities)
    top = odds.max(1, keepdims=True)
    return np.exp(none + top[:, 0] + np.log(np.exp(odds - top).sum(1)))


def _divergence(q: ndarray, p: ndarray) -> float:
    there = q > 0
    return float((q[there] * (np.log(q[there]) - np.log(p[there]))).sum())


def _xlogy(q: ndarray) -> ndarray:
    return q * np.log(np.where(q > 0, q, 1))
