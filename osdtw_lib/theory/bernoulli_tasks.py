"""Monte Carlo of the three stages with the paper's likelihood: two tasks with a Bernoulli label each.

Inputs are the points of a small grid, all alike probable, so every expectation is a finite sum and a training set of any
N is a table of counts. A task's logit is linear in its parameters (`linear_tasks`) or a tanh network with a shared hidden
layer (`network_tasks`). Labels are independent given the input or exclude each other (then "neither" is an outcome too, so
that both Bernoulli models stay true). Stage 1 and Stage 2 are fitted to convergence, all repetitions at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .expansion import Information, Linearised
from .repetitions import in_blocks

Logit = Callable[[ndarray], tuple[ndarray, Callable[[], ndarray]]]  # theta (R, P) -> logits (R, S); () -> Jacobian (R, S, P)


@dataclass(frozen=True, eq=False)
class BernoulliTasks:
    """logits: each task's function; head, tail (P_t,): true (phi, psi^t), where `simulate` adds the mismatch to the tail's
    phi; n_encoder: d; exclusive: whether both labels are never 1 together."""

    logits: tuple[Logit, Logit]
    head: ndarray
    tail: ndarray
    n_encoder: int
    exclusive: bool = False

    def _truth(self, mismatch: ndarray) -> list[ndarray]:
        return [self.head, np.r_[self.tail[: self.n_encoder] + mismatch, self.tail[self.n_encoder :]]]

    def _at(self, mismatch: ndarray):
        """Probabilities (S,) and Jacobians (S, P_t) of both tasks at their optima."""
        logits, jacobians = zip(*(f(theta[None]) for f, theta in zip(self.logits, self._truth(mismatch))))
        return [_sigmoid(z[0]) for z in logits], [jacobian()[0] for jacobian in jacobians]

    def information(self, mismatch: ndarray) -> Information:
        """Fishers at each task's own optimum, and E[s_A s_B']: nought unless labels depend on each other given the input."""
        (p, q), (j, k) = self._at(mismatch)
        fishers = [jacobian.T * (prob * (1 - prob)) @ jacobian / len(prob) for prob, jacobian in ((p, j), (q, k))]
        covariance = -p * q if self.exclusive else np.zeros_like(p)  # of both labels, given the input
        return Information(*fishers, j.T * covariance @ k / len(p), self.n_encoder)

    def constant(self, mismatch: ndarray) -> float:
        """I(Z_A; Z_B | Y) of Lemma 1, in nats."""
        joint = self._joint(*self._at(mismatch)[0])
        both = joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True)
        return float(np.where(joint > 0, joint * np.log(np.where(joint > 0, joint, 1) / both), 0).sum() / len(joint))

    def _joint(self, p: ndarray, q: ndarray) -> ndarray:
        """P(z_A, z_B | y), (S, 2, 2)."""
        together = np.zeros_like(p) if self.exclusive else p * q
        table = np.stack([1 - p - q + together, q - together, p - together, together], axis=1)
        if (table < 0).any():
            raise ValueError("labels cannot exclude each other where their probabilities add up to more than 1")
        return table.reshape(-1, 2, 2)

    def simulate(
        self, mismatch: ndarray, head_weight: float, n: int, repetitions: int, rng: np.random.Generator, refined: bool = False
    ) -> tuple[ndarray, ndarray]:
        """The exact divergence of Eq. (13) of each repetition and its first-order version, (R,) each, in nats.

        refined: the decoders are fitted again under the shared encoder (section 6.2).
        """
        probabilities = self._at(mismatch)[0]
        counts = rng.multinomial(n, self._joint(*probabilities).ravel() / len(probabilities[0]), size=repetitions)
        counts = counts.reshape(repetitions, -1, 2, 2)
        return in_blocks(lambda some: self._three_stages(some / n, mismatch, head_weight, refined), counts)

    def _three_stages(self, counts: ndarray, mismatch: ndarray, head_weight: float, refined: bool) -> tuple[ndarray, ndarray]:
        """counts (R, S, 2, 2): the share of the samples with each input and labels."""
        truth, repetitions = self._truth(mismatch), len(counts)
        probabilities, jacobians = self._at(mismatch)
        share = counts.sum((2, 3))  # (R, S)
        ones = [counts[:, :, 1].sum(2), counts[:, :, :, 1].sum(2)]
        stage1 = [
            _fit([(f, slice(None), 1.0, y)], share, np.tile(theta, (repetitions, 1)))
            for f, y, theta in zip(self.logits, ones, truth)
        ]
        d, p_head = self.n_encoder, len(self.head)
        own = np.r_[np.arange(d), np.arange(p_head, p_head + len(self.tail) - d)]  # the tail's places in (phi, psi^A, psi^B)
        parts = [(self.logits[0], slice(0, p_head), head_weight, ones[0]), (self.logits[1], own, 1 - head_weight, ones[1])]
        start = np.r_[head_weight * truth[0][:d] + (1 - head_weight) * truth[1][:d], truth[0][d:], truth[1][d:]]
        shared = _fit(parts, share, np.tile(start, (repetitions, 1)))[:, :d]
        errors, scores = np.zeros(repetitions), []
        for f, theta, p, jacobian, y in zip(self.logits, stage1, probabilities, jacobians, ones):
            theta = np.concatenate([shared, theta[:, d:]], axis=1)
            z, _ = f(_fit([(f, slice(None), 1.0, y)], share, theta, first=d) if refined else theta)
            errors += (p * (np.log(p) + _softplus(-z)) + (1 - p) * (np.log1p(-p) + _softplus(z))).mean(1)
            scores.append((y - share * p) @ jacobian)
        linear = Linearised.of(self.information(mismatch), mismatch, head_weight, refined)
        return errors, linear.errors(np.concatenate(scores, axis=1))


def linear_tasks(ratio: float = 1.0, n_encoder: int = 4, intercepts=(-1.2, -1.2), exclusive: bool = False) -> BernoulliTasks:
    """Logistic regression on {-1, 1} inputs; J^A : J^B is about `ratio`. Each decoder: an intercept and an input of its own."""
    inputs = np.array(list(itertools.product((-1.0, 1.0), repeat=n_encoder + 2)))
    logits = []
    for task, scale in enumerate((ratio**0.25, ratio**-0.25)):
        columns = [scale * inputs[:, :n_encoder], np.ones((len(inputs), 1)), inputs[:, [n_encoder + task]]]
        features = np.concatenate(columns, axis=1)
        logits.append(lambda theta, f=features: (theta @ f.T, lambda: np.broadcast_to(f, (len(theta), *f.shape))))
    phi = np.array([0.2, -0.15, 0.1, 0.15] * n_encoder)[:n_encoder]
    head, tail = (np.r_[phi, intercept, 0.3] for intercept in intercepts)
    return BernoulliTasks(tuple(logits), head, tail, n_encoder, exclusive)


def network_tasks(ratio: float = 1.0, exclusive: bool = False) -> BernoulliTasks:
    """Two inputs, a shared tanh layer of two units (phi: 6 numbers), a logit of three numbers a task (psi^t)."""
    inputs = np.array(list(itertools.product(np.linspace(-2, 2, 8), repeat=2)))

    def logit(theta):
        weight, offset, out, bias = theta[:, :4].reshape(-1, 2, 2), theta[:, 4:6], theta[:, 6:8], theta[:, 8:]
        hidden = np.tanh(inputs @ weight.transpose(0, 2, 1) + offset[:, None])  # (R, S, 2)

        def jacobian():
            inner = out[:, None] * (1 - hidden**2)
            by_weight = (inner[..., None] * inputs[:, None]).reshape(len(theta), len(inputs), 4)
            return np.concatenate([by_weight, inner, hidden, np.ones((*hidden.shape[:2], 1))], axis=2)

        return (hidden @ out[..., None])[..., 0] + bias, jacobian

    phi = np.array([1.0, 0.2, -0.3, 0.8, 0.3, -0.2])
    head, tail = (np.r_[phi, scale * np.array([1.0, -0.9]), -2.0] for scale in (ratio**0.25, ratio**-0.25))
    return BernoulliTasks((logit, logit), head, tail, 6, exclusive)


def _fit(parts, share: ndarray, theta: ndarray, first: int = 0, tolerance: float = 1e-9, rounds: int = 200) -> ndarray:
    """Maximum likelihood by Fisher scoring with Levenberg and Marquardt's damping, all repetitions at once.

    parts: (logit, places in theta, weight, frequency of ones (R, S)); share (R, S): frequency of each input; the
    parameters before `first` are frozen.
    Raises ValueError where a repetition does not converge: its labels can be separated, or N is far too small.
    """
    theta, ridge = theta.copy(), np.full(len(theta), 1e-6)
    active = np.arange(len(theta))
    value = _objective(parts, share, theta, active)
    for _ in range(rounds):
        gradient, curvature = np.zeros((len(active), theta.shape[1])), np.zeros((len(active), *theta.shape[1:] * 2))
        for f, places, weight, ones in parts:
            index = np.arange(theta.shape[1])[places]
            z, jacobian_of = f(theta[active][:, index])
            p, jacobian = _sigmoid(z), jacobian_of()
            gradient[:, index] += weight * ((ones[active] - share[active] * p)[:, None] @ jacobian)[:, 0]
            spread = jacobian * (weight * share[active] * p * (1 - p))[..., None]
            curvature[:, index[:, None], index] += spread.transpose(0, 2, 1) @ jacobian
        gradient, curvature = gradient[:, first:], curvature[:, first:, first:]
        left = np.abs(gradient).max(1) > tolerance
        active, gradient, curvature, value = active[left], gradient[left], curvature[left], value[left]
        if not len(active):
            return theta
        step = np.linalg.solve(curvature + ridge[active, None, None] * np.eye(gradient.shape[1]), gradient[..., None])[..., 0]
        tried = theta.copy()
        tried[active, first:] += step
        new = _objective(parts, share, tried, active)
        better = new >= value - 1e-14
        theta[active[better]] = tried[active[better]]
        value = np.where(better, new, value)
        ridge[active] = np.where(better, np.maximum(ridge[active] / 10, 1e-12), ridge[active] * 10)
    raise ValueError(f"{len(active)} of {len(theta)} repetitions did not converge; take more samples each")


def _objective(parts, share: ndarray, theta: ndarray, active: ndarray) -> ndarray:
    """Weighted mean log-likelihood of the active repetitions."""
    total = np.zeros(len(active))
    for f, places, weight, ones in parts:
        z, _ = f(theta[active][:, np.arange(theta.shape[1])[places]])
        total += weight * (ones[active] * z - share[active] * _softplus(z)).sum(1)
    return total


def _sigmoid(z: ndarray) -> ndarray:
    return 1 / (1 + np.exp(-z))


def _softplus(z: ndarray) -> ndarray:
    return np.logaddexp(0, z)
