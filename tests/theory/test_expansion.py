"""The formulas with matrices: against the diagonal proxy, against sums over samples, and the facts they state."""

import numpy as np
import pytest
import torch

from osdtw_lib.proxy.exact import Proxy
from osdtw_lib.theory.expansion import Information, Linearised, bias_ratio, cross_weights, eq18, expansion

N = 70


def random_information(seed=0, blocks=False, diagonal=False, d=3, decoders=(2, 4)):
    rng = np.random.default_rng(seed)
    p, q = d + decoders[0], d + decoders[1]
    scores = rng.normal(size=(200, p + q)) @ rng.normal(size=(p + q, p + q))
    whole = scores.T @ scores / 200
    head, tail, cross = whole[:p, :p], whole[p:, p:], whole[:p, p:]
    if diagonal:
        head, tail = np.diag(np.diag(head)), np.diag(np.diag(tail))
    if blocks or diagonal:
        for j in (head, tail):
            j[:d, d:] = j[d:, :d] = 0
        cross[d:] = 0
        cross[:, d:] = 0
    return Information(head, tail, cross, d), rng.normal(size=d)


def proxy_of(info, mismatch):
    d = info.n_encoder
    fishers = [{"phi": torch.tensor(np.diag(j)[:d]), "psi": torch.tensor(np.diag(j)[d:])} for j in (info.head, info.tail)]
    return Proxy(*fishers, {"phi": torch.tensor(mismatch)}, {"phi": 1, "psi": 2}, N)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 1.0])
def test_diagonal_fishers_give_what_the_proxy_gives(weight):
    info, mismatch = random_information(1, diagonal=True)
    proxy = proxy_of(info, mismatch)
    asked = {"depths": [1], "head_weights": [weight]}
    assert eq18(info, mismatch, weight, N) == pytest.approx(proxy.grid(**asked)["total"][0], rel=1e-9)
    for lam in (0.0, 0.3, 20.0):
        found = proxy.grid(**asked, form="damped", damping=lam)["total"][0]
        assert expansion(info, mismatch, weight, N, lam) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("cross", [False, True])
def test_without_coupling_between_blocks_the_whole_expansion_is_the_block_diagonal_one(cross):
    info, mismatch = random_information(2, blocks=True)
    for refined in (False, True):
        whole = Linearised.of(info, mismatch, 0.3, refined).expected(N, cross)
        assert whole == pytest.approx(expansion(info, mismatch, 0.3, N, cross=cross), rel=1e-9)


def test_with_coupling_they_differ():
    info, mismatch = random_information(2)
    found = [Linearised.of(info, mismatch, 0.3, refined).expected(N) for refined in (False, True)]
    assert abs(found[0] - found[1]) > 1e-3
    assert all(abs(f - expansion(info, mismatch, 0.3, N, cross=True)) > 1e-3 for f in found)


@pytest.mark.parametrize("refined", [False, True])
def test_the_first_order_errors_are_those_of_quadratic_losses_minimised_by_hand(refined):
    info, mismatch = random_information(3)
    d, p, q, w = 3, 5, 7, 0.3
    scores = np.random.default_rng(4).normal(size=(6, p + q)) / 5
    found = Linearised.of(info, mismatch, w, refined).errors(scores)
    head_at, tail_at = np.arange(p), np.r_[np.arange(d), np.arange(p, p + q - d)]
    for row, error in zip(scores, found):
        # losses 1/2 (x - x_t)' J (x - x_t) - s' (x - x_t), x = (phi, psi^t), counted from phi^A and the true decoders
        optima = [np.zeros(p), np.r_[mismatch, np.zeros(q - d)]]
        parts = list(zip((info.head, info.tail), (row[:p], row[p:]), optima, (head_at, tail_at), (w, 1 - w)))
        left, right = np.zeros((p + q - d,) * 2), np.zeros(p + q - d)
        for j, s, optimum, at, share in parts:
            left[np.ix_(at, at)] += share * j
            right[at] += share * (s + j @ optimum)
        shared, total = np.linalg.solve(left, right)[:d], 0.0
        for j, s, optimum, _, _ in parts:
            decoder = np.linalg.solve(j, s + j @ optimum)[d:]
            if refined:
                decoder = np.linalg.solve(j[d:, d:], s[d:] - j[d:, :d] @ (shared - optimum[:d]))
            e = np.r_[shared, decoder] - optimum
            total += e @ j @ e / 2
        assert error == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("cross", [False, True])
def test_the_mean_of_the_first_order_errors_is_the_expected_one(cross):
    info, mismatch = random_information(5)
    x = info.cross if cross else 0 * info.cross
    covariance = np.block([[info.head, x], [x.T, info.tail]]) / N
    scores = np.random.default_rng(6).multivariate_normal(np.zeros(len(covariance)), covariance, size=100_000)
    line = Linearised.of(info, mismatch, 0.4)
    errors = line.errors(scores)
    assert abs(errors.mean() - line.expected(N, cross)) < 4 * errors.std() / len(errors) ** 0.5


def test_the_bias_of_eq18_is_exact_for_equal_fishers_and_at_both_ends():
    info, mismatch = random_information(7, blocks=True)
    same = Information(info.head[:3, :3], info.head[:3, :3], 0 * info.cross[:3, :3], 3)
    for weight in (0.1, 0.5, 0.8):
        assert eq18(same, mismatch, weight, N) == pytest.approx(expansion(same, mismatch, weight, N), rel=1e-9)
    for weight in (0.0, 1.0):
        assert eq18(info, mismatch, weight, N) == pytest.approx(expansion(info, mismatch, weight, N), rel=1e-9)
    assert abs(eq18(info, mismatch, 0.5, N) / expansion(info, mismatch, 0.5, N) - 1) > 0.01


@pytest.mark.parametrize("ratio, weight", [(0.1, 0.3), (5.0, 0.3), (5.0, 0.5), (2.0, 0.9)])
def test_the_ratio_of_both_biases_is_that_of_one_parameter(ratio, weight):
    one = Information(np.diag([ratio, 1.0]), np.diag([1.0, 1.0]), np.zeros((2, 2)), 1)
    far = np.array([1e6])  # the variance does not count
    assert bias_ratio(ratio, weight) == pytest.approx(eq18(one, far, weight, N) / expansion(one, far, weight, N), rel=1e-9)


def test_the_bias_of_eq18_is_below_the_exact_one_between_its_two_crossings():
    w = 0.3
    other = (2 * w - 1 + np.sqrt((1 - 2 * w) ** 2 + (w * (1 - w)) ** 2)) / (w * (1 - w))  # w_A w_B r^2 + (2 - 4 w_A) r = w_A w_B
    assert bias_ratio([1.0, other], w) == pytest.approx([1, 1])
    assert (bias_ratio(np.linspace(other, 1, 9)[1:-1], w) < 1).all()
    assert (bias_ratio([other / 2, other / 10, 2, 10], w) > 1).all()
    assert (bias_ratio([0.1, 0.5, 2, 10], 0.5) > 1).all()


@pytest.mark.parametrize("lam", [0.0, 0.2])
def test_the_weights_of_a_diagonal_cross_term_give_what_the_matrices_give(lam):
    rng = np.random.default_rng(8)
    a, b = rng.uniform(0.1, 2, size=(2, 5))
    x = rng.uniform(-1, 1, 5) * np.sqrt(a * b)
    info, none = Information(np.diag(a), np.diag(b), np.diag(x), 5), np.zeros(5)
    added = expansion(info, none, 0.3, N, lam, cross=True) - expansion(info, none, 0.3, N, lam)
    assert float(cross_weights(a, b, 0.3, N, lam) @ x) == pytest.approx(added, rel=1e-9)
    half = float(cross_weights(a, b, 0.5, N, lam) @ (a + b) / 2)
    assert half == pytest.approx(expansion(info, none, 0.5, N, lam), rel=1e-9)
    assert cross_weights(np.zeros(1), np.zeros(1), 0.5, N) == 0  # a dead parameter adds nothing
    assert cross_weights(torch.zeros(1), torch.zeros(1), 0.5, N) == 0
