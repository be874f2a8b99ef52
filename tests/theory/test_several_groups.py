"""The theorem for k groups: the sum over pairs is the whole, two groups are Eq. (18), and simulation agrees."""

import itertools

import numpy as np
import pytest

from osdtw_lib.theory import several_groups as groups
from osdtw_lib.theory.expansion import Information, eq18, expansion
from osdtw_lib.theory.lemma import group_entropy
from osdtw_lib.theory.simulation import SPECTRUM

N = 500


def random_groups(k, d=5, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(k))
    return rng.lognormal(size=(k, d)), rng.normal(size=(k, d)), weights


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_sum_over_pairs_is_what_every_task_loses_under_the_shared_optimum(k):
    fishers, optima, weights = random_groups(k)
    for counted in (groups.shares(fishers, weights), np.tile(weights[:, None], (1, fishers.shape[1]))):
        lost = (fishers * ((counted * optima).sum(0) - optima) ** 2).sum() / 2
        assert groups.bias(fishers, optima, counted) == pytest.approx(lost, rel=1e-12)


def test_two_groups_are_the_papers():
    fishers, optima, weights = random_groups(2)
    info = Information(np.diag(fishers[0]), np.diag(fishers[1]), np.zeros((5, 5)), 5)  # no decoders
    spread, mismatch = groups.variance(fishers, weights, N), optima[1] - optima[0]
    assert spread + groups.bias(fishers, optima, weights[:, None]) == pytest.approx(eq18(info, mismatch, weights[0], N))
    exact = spread + groups.bias(fishers, optima, groups.shares(fishers, weights))
    assert exact == pytest.approx(expansion(info, mismatch, weights[0], N))


def test_a_pair_may_count_for_less_than_nothing_beside_a_third():
    fishers, equal = np.array([[0.01], [0.01], [1.0]]), np.full((3, 1), 1 / 3)
    apart, alike = (groups.bias(fishers, np.array([[place], [1.0], [0.0]]), equal) for place in (-1.0, 1.0))
    assert apart < alike


@pytest.mark.parametrize("k", [2, 3, 4])
def test_equal_weights_are_best_of_all_with_the_exact_bias(k):
    fishers, optima, _ = random_groups(k, seed=3)

    def error(w):
        return groups.variance(fishers, w, N) + groups.bias(fishers, optima, groups.shares(fishers, w))

    best = error(np.full(k, 1 / k))
    assert all(error(np.random.default_rng(i).dirichlet(np.ones(k))) > best for i in range(50))


def test_the_constant_of_single_labels_is_what_the_groups_labels_tell_of_each_other():
    """Total correlation of the k label vectors of one class, summed out: the group of a class, and which class of it."""
    rng = np.random.default_rng(0)
    sizes, whole = (3, 2, 2), rng.dirichlet(np.ones(7))
    parts = np.split(whole, np.cumsum(sizes)[:-1])
    entropy = lambda p: -(p * np.log(p)).sum()  # noqa: E731
    each = sum(entropy(np.r_[part, 1 - part.sum()]) for part in parts)  # a class of the group, or none
    assert groups.constant(np.array([part.sum() for part in parts])) == pytest.approx(each - entropy(whole))
    p = np.linspace(0, 1, 11)
    assert groups.constant(np.stack([p, 1 - p], -1)) == pytest.approx(group_entropy(p))
    assert groups.constant(np.array([1.0, 0.0, 0.0])) == 0 < groups.constant(np.full(3, 1 / 3)) > np.log(2)


def test_simulation_agrees_and_the_printed_bias_only_where_fishers_are_equal():
    weights = [(1 / 3,) * 3, (0.6, 0.2, 0.2), (0.2, 0.2, 0.6)]
    apart, equal = (
        groups.study(SPECTRUM, ratios, weights, 10_000, 1_000, np.random.default_rng(0)) for ratios in ((4, 1, 0.25), (1, 1, 1))
    )
    off = {
        (name, formula): ((table["simulated"] - table[formula]) / table["standard_error"]).abs()
        for (name, table), formula in itertools.product({"apart": apart, "equal": equal}.items(), ("eq18", "exact_bias"))
    }
    assert off["apart", "exact_bias"].max() < 4.5 and off["equal", "exact_bias"].max() < 4.5
    assert off["equal", "eq18"].max() < 4.5 < off["apart", "eq18"].min()
