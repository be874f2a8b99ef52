"""Scores moved from one class mix to another, and the mix of unlabelled images estimated from their scores.

A row's softmax is p(class | image) where the classes come with certain shares, its prior. By Bayes' rule the same scores
answer for other shares q: log p_q(k | x) = s_k + log q_k - log prior_k + constant. This holds as far as the row's
probabilities are calibrated and an image of a class looks as it did in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calibration import probabilities

ENOUGH = 10  # images a class, below which an estimate is said to rest on few
RATIOS = (50, 25, 10, 5, 2)  # of the largest class to the smallest, as LADE and SADE test them
MOST_CLASSES = 2000  # of which the standard errors are computed: a matrix of them is inverted


def moved(scores, from_prior, to_prior) -> np.ndarray:
    """scores (N, K) under the shares from_prior (K,) -> under to_prior (K,); a class with a share of 0 gets -inf."""
    with np.errstate(divide="ignore"):
        return np.asarray(scores, np.float64) + np.log(np.asarray(to_prior, float)) - np.log(np.asarray(from_prior, float))


@dataclass(frozen=True)
class Estimate:
    """shares (K,); standard_error (K,), NaN for a class whose share came out as 0; warnings, a sentence each."""

    shares: np.ndarray
    standard_error: np.ndarray
    warnings: tuple[str, ...]


def estimate_mix(scores, prior, names=None, weights=None, steps: int = 500, tolerance: float = 1e-7) -> Estimate:
    """The class mix of unlabelled images, by maximum likelihood (EM of Saerens, Latinne and Decaestecker 2002).

    scores (N, K): a row's, N at least 1; prior (K,): the shares that its softmax stands for; names (K,): of the classes, for
    the warnings; weights (N,): how often each image counts. The likelihood is concave in the shares, so EM finds its
    maximum. The standard error is that of the observed information along mixes that sum to one. Warnings: fewer than ten
    images a class; a class whose images look so much like others' that its share is known three times worse than by
    counting labels. Raises ValueError for scores that are not finite, or no image.
    """
    scores = np.asarray(scores, np.float64)
    n, n_classes = scores.shape
    if not n or not np.isfinite(scores).all():
        raise ValueError("a mix is estimated from at least one image with finite scores")
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    odds = probabilities(scores) / np.asarray(prior, float)  # proportional to p(x | k)
    odds /= odds.max(1, keepdims=True)
    shares = _maximised(odds, weights / weights.sum(), steps, tolerance)
    shares = np.where(shares < 1e-6, 0.0, shares) / shares[shares >= 1e-6].sum()
    errors = _standard_errors(odds, shares, weights)
    return Estimate(shares, errors, tuple(_warnings(shares, errors, n, names)))


def _maximised(odds: np.ndarray, weights: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    """EM's fixed point (K,); two of its steps are drawn out to a longer one where that is likelier (SQUAREM, Varadhan and
    Roland 2008). odds (N, K), weights (N,) that sum to one."""

    def step(shares):
        """EM's next shares, and the mean log-likelihood of these."""
        total = odds @ shares
        return shares * (odds.T @ (weights / total)), float(weights @ np.log(total))

    shares = np.full(odds.shape[1], 1 / odds.shape[1])
    for _ in range(steps):
        first, _ = step(shares)
        second, likelihood = step(first)
        if np.abs(second - shares).max() < tolerance:
            return second
        change, bend = first - shares, (second - first) - (first - shares)
        length = max(1.0, np.linalg.norm(change) / max(np.linalg.norm(bend), 1e-300))
        far = np.maximum(shares + 2 * length * change + length**2 * bend, 1e-3 * second)
        after, reached = step(far / far.sum())
        shares = after if reached >= likelihood else second
    return shares


def _standard_errors(odds: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(K,): root of the diagonal of the inverse information, of the classes with a share and along mixes that sum to one."""
    errors, there = np.full(len(shares), np.nan), np.flatnonzero(shares)
    if not 1 < len(there) <= MOST_CLASSES:
        return errors
    ratios = odds[:, there] / (odds[:, there] @ shares[there])[:, None]
    information = ratios.T @ (weights[:, None] * ratios)
    basis = np.linalg.qr(np.hstack([np.ones((len(there), 1)), np.eye(len(there))[:, 1:]]))[0][:, 1:]  # orthogonal to (1, ..., 1)
    values, vectors = np.linalg.eigh(basis.T @ information @ basis)
    values = np.maximum(values, 1e-12 * max(values[-1], 1e-300))  # what the images do not tell apart
    errors[there] = np.sqrt(((basis @ vectors) ** 2 / values).sum(1))
    return errors


def _warnings(shares, errors, n: int, names):
    if n < ENOUGH * len(shares):
        yield f"the mix is estimated from {n:,} images of {len(shares):,} classes: at least {ENOUGH} a class would be wanted"
    if len(np.flatnonzero(shares)) > MOST_CLASSES:
        yield f"standard errors are computed up to {MOST_CLASSES:,} classes; there are {len(shares):,}"
    by_counting = np.sqrt(np.maximum(shares * (1 - shares), 1 / n) / n)
    worse = np.nan_to_num(errors / by_counting)
    worst = int(worse.argmax())
    if worse[worst] > 3:
        name = names[worst] if names is not None else f"number {worst}"
        yield (
            f"class {name} is confused with others: its share, {100 * shares[worst]:.1f} %, has a standard error of "
            f"{100 * errors[worst]:.1f} points, {worse[worst]:.0f} times that of counting labels"
        )


def shifted_mixes(class_counts) -> dict[str, np.ndarray]:
    """{name: shares (K,)}: forward and backward long-tailed at RATIOS, and uniform, as LADE (Hong et al. 2021) and SADE (Zhang
    et al. 2022) test: an exponential profile over the classes by falling training count (K,), and its mirror image."""
    counts = np.asarray(class_counts)
    place = np.empty(len(counts))
    place[np.argsort(-counts, kind="stable")] = np.linspace(0, 1, len(counts))
    profiles = {f"forward {ratio}": ratio**-place for ratio in RATIOS} | {"uniform": np.ones(len(counts))}
    profiles |= {f"backward {ratio}": ratio ** (place - 1) for ratio in reversed(RATIOS)}
    return {name: profile / profile.sum() for name, profile in profiles.items()}


def accuracies_under(scores, labels, prior, mix) -> dict[str, float]:
    """{"none": uncorrected, "true": corrected with the mix, "estimated": with the mix that EM finds}: % right under `mix` (K,).

    scores (N, K) of test images with labels (N,), under the row's prior (K,). The images of a class share its weight, so this
    is the expectation over test sets of that mix drawn from these images. A class without images is left out of the mix.
    """
    labels = np.asarray(labels)
    sizes = np.bincount(labels, minlength=len(mix))
    mix = np.where(sizes > 0, mix, 0.0)
    mix = mix / mix.sum()
    weights = (mix / np.maximum(sizes, 1))[labels]
    estimated = estimate_mix(scores, prior, weights=len(labels) * weights).shares
    answers = {"none": scores, "true": moved(scores, prior, mix), "estimated": moved(scores, prior, estimated)}
    return {name: float(100 * (weights * (own.argmax(1) == labels)).sum()) for name, own in answers.items()}
