"""Monte Carlo of the three stages where the theorem is at home: two linear tasks with Gaussian noise.

Inputs are standard normal; task t sees z_t = sum_i sqrt(J^t_i) x_i phi_i + x^t' psi^t + e_t with Var e_t = 1 and
Corr(e_A, e_B) = rho, so its Fisher is diag(J^t, 1): block-diagonal by construction, and the errors are exactly quadratic.
The cross term between the scores is rho sqrt(a b). The label-dependence constant of Lemma 1 is -1/2 log(1 - rho^2).

Only X'X and X'e enter least squares, and both can be drawn without X: X'X = L L' by Bartlett's decomposition of the
Wishart distribution, and X'e = L g with g standard normal. A repetition costs the same for any N.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy import ndarray

from .expansion import Information, Linearised
from .repetitions import in_blocks


@dataclass(frozen=True, eq=False)
class GaussianTasks:
    """head, tail (d,): J^A and J^B of the shared parameters; n_decoder: parameters of each decoder; correlation: rho."""

    head: ndarray
    tail: ndarray
    n_decoder: int = 4
    correlation: float = 0.0

    def information(self, mismatch: ndarray | None = None) -> Information:
        """Fishers and cross term; the mismatch changes nothing here."""
        own = np.ones(self.n_decoder)
        cross = np.zeros((len(self.head) + self.n_decoder,) * 2)
        d = len(self.head)
        cross[:d, :d] = np.diag(self.correlation * np.sqrt(self.head * self.tail))
        return Information(np.diag(np.r_[self.head, own]), np.diag(np.r_[self.tail, own]), cross, d)

    @property
    def _fishers(self) -> ndarray:
        return np.stack([self.head, self.tail])

    def moments(self, n: int, repetitions: int, rng: np.random.Generator) -> tuple[ndarray, ndarray, ndarray]:
        """X'X / n (R, m, m), X'e_A / n and X'e_B / n (R, m) of n samples, m = d + 2 n_decoder inputs."""
        lower, noise = draws(n, len(self.head) + 2 * self.n_decoder, 2, repetitions, rng)
        noise[1] = self.correlation * noise[0] + np.sqrt(1 - self.correlation**2) * noise[1]
        scores = (lower @ noise)[..., 0] / n
        return lower @ lower.transpose(0, 2, 1) / n, scores[0], scores[1]

    def simulate(self, mismatch: ndarray, head_weight: float, n: int, repetitions: int, rng: np.random.Generator):
        """The exact divergence of Eq. (13) of each repetition and its first-order version, (R,) each, in nats."""
        square, *noise = self.moments(n, repetitions, rng)
        errors, _ = self._errors(square, noise, mismatch, head_weight)
        seen = features(self._fishers, self.n_decoder)
        scores = np.concatenate([r[:, place] * scale for r, (place, scale) in zip(noise, seen)], axis=1)
        return errors, Linearised.of(self.information(), mismatch, head_weight).errors(scores)

    def simulate_ridge(self, mismatch, start, ridge: float, head_weight: float, n: int, repetitions: int, rng):
        """With every training pulled to a common start, phi_0 = phi^A + start, by a ridge of `ridge` a sample.

        Returns the errors (R,) counted from the truth and from each task's own regularised optimum.
        """
        square, *noise = self.moments(n, repetitions, rng)
        return self._errors(square, noise, mismatch, head_weight, ridge, start)

    def _errors(self, square, noise, mismatch, head_weight, ridge=0.0, start=0.0):
        optima = np.stack([np.zeros(len(self.head)), mismatch])  # counted from phi^A
        shares = head_weight, 1 - head_weight
        return three_stages(self._fishers, self.n_decoder, square, noise, optima, shares, ridge, start)

    def regularised_mismatch(self, mismatch: ndarray, start: ndarray, ridge: float) -> ndarray:
        """phi^B - phi^A between both tasks' optima under a ridge: what Stage 1 sees, (d,)."""
        return (self.tail * mismatch + ridge * start) / (self.tail + ridge) - ridge * start / (self.head + ridge)


def features(fishers: ndarray, n_decoder: int) -> list[tuple[ndarray, ndarray]]:
    """Which inputs each task sees and by what factor: those of the shared parameters, and its own decoder's. fishers (k, d)."""
    d = fishers.shape[1]
    own = (np.arange(d + t * n_decoder, d + (t + 1) * n_decoder) for t in range(len(fishers)))
    return [(np.r_[np.arange(d), place], np.r_[np.sqrt(j), np.ones(n_decoder)]) for place, j in zip(own, fishers)]


def draws(n: int, inputs: int, tasks: int, repetitions: int, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """L (R, m, m) with X'X = L L' of n samples of m inputs, and for each task g (k, R, m, 1) with X'e = L g."""
    if n < inputs:
        raise ValueError(f"least squares over {inputs} inputs needs at least {inputs} samples, got {n}")
    lower = np.tril(rng.normal(size=(repetitions, inputs, inputs)), -1)
    lower[:, np.arange(inputs), np.arange(inputs)] = np.sqrt(rng.chisquare(n - np.arange(inputs), size=(repetitions, inputs)))
    return lower, rng.normal(size=(tasks, repetitions, inputs, 1))


def three_stages(fishers, n_decoder: int, square, noise, optima, shares, ridge=0.0, start=0.0) -> tuple[ndarray, ndarray]:
    """Each task alone, all jointly with these shares, the shared encoder under the decoders of the first: the divergence of
    Eq. (13), (R,), from the truth and from each task's own regularised optimum.

    fishers, optima (k, d): of the shared parameters; square (R, m, m): X'X / n; noise: of each task X'e / n (R, m); ridge a
    sample, towards `start`.
    """
    some = partial(_some_repetitions, fishers, n_decoder, optima, shares, ridge, start)
    return in_blocks(some, square, *noise)


def _some_repetitions(fishers, n_decoder, optima, shares, ridge, start, square, *noise) -> tuple[ndarray, ndarray]:
    d, seen = fishers.shape[1], features(fishers, n_decoder)
    inputs = d + len(fishers) * n_decoder
    origin = np.zeros(inputs)
    origin[:d] = start
    joint, right = np.tile(ridge * np.eye(inputs), (len(square), 1, 1)), np.tile(ridge * origin, (len(square), 1))
    decoders = []
    for (place, scale), r, optimum, share in zip(seen, noise, optima, shares):
        gram = square[:, place[:, None], place] * np.outer(scale, scale)
        pull = r[:, place] * scale + gram @ np.r_[optimum, np.zeros(n_decoder)]
        stage1 = _solve(gram + ridge * np.eye(len(place)), pull + ridge * origin[place])
        decoders.append(stage1[:, d:])
        joint[:, place[:, None], place] += share * gram
        right[:, place] += share * pull
    shared = _solve(joint, right)[:, :d]
    from_truth, from_optimum = np.zeros(len(square)), np.zeros(len(square))
    for j, truth, decoder in zip(fishers, optima, decoders):
        optimum = (j * truth + ridge * origin[:d]) / (j + ridge)
        own = (decoder**2).sum(1)
        from_truth += ((shared - truth) ** 2 @ j + own) / 2
        from_optimum += ((shared - optimum) ** 2 @ j + own) / 2
    return from_truth, from_optimum


def evidence_study(spectrum: ndarray, n: int, spread: float, repetitions: int, rng: np.random.Generator) -> dict[str, float]:
    """Does the evidence rule find the ridge that helps? One linear task, its parameters drawn N(start, spread^2).

    spectrum (P,): Fisher; the best ridge a sample is 1 / (n spread^2). The design is taken as fixed at its mean, so that
    each parameter is on its own. Returns ridges (`best`, `evidence_refitted`: MacKay's iteration with a new fit in every
    round, `evidence_once`: the project's, on one solution trained with the best ridge, and `evidence_undamped`: the same on
    a solution trained with none), medians over repetitions, and the mean error in nats with each, error_*.
    """
    theta = spread * rng.normal(size=(repetitions, len(spectrum)))
    unregularised = theta + rng.normal(size=theta.shape) / np.sqrt(n * spectrum)
    best = 1 / (n * spread**2)

    def fit(lam):
        return spectrum / (spectrum + lam) * unregularised

    def fixed_point(lam, solution, refit):
        for _ in range(300):
            solution = fit(lam) if refit else solution
            gamma = (spectrum / (spectrum + lam)).sum(1, keepdims=True)
            lam = gamma / (n * (solution**2).sum(1, keepdims=True))
        return lam

    first = np.full((repetitions, 1), best)
    found = {
        "best": first,
        "evidence_refitted": fixed_point(first, None, True),
        "evidence_once": fixed_point(first, fit(best), False),
        "evidence_undamped": fixed_point(first, unregularised, False),
        "none": 0 * first,
    }
    medians = {name: float(np.median(lam)) for name, lam in found.items()}
    return medians | {f"error_{n_}": float(((fit(lam) - theta) ** 2 @ spectrum).mean() / 2) for n_, lam in found.items()}


def _solve(left: ndarray, right: ndarray) -> ndarray:
    return np.linalg.solve(left, right[..., None])[..., 0]
