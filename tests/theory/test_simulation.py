"""The Monte Carlo: its samplers against raw samples, its fits against a plain optimiser, its means against the formulas."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from osdtw_lib.theory import bernoulli_tasks, simulation
from osdtw_lib.theory.bernoulli_tasks import linear_tasks, network_tasks
from osdtw_lib.theory.expansion import Linearised, eq18, expansion
from osdtw_lib.theory.gaussian_tasks import GaussianTasks, evidence_study

HEAD, TAIL = np.array([2.0, 0.5]), np.array([0.3, 1.0])


def standard_error(errors):
    return errors.std(ddof=1) / len(errors) ** 0.5


def raw_gaussian(made, mismatch, weight, n, repetitions, seed, ridge=0.0, start=0.0):
    """The three stages on samples drawn one by one; (from the truth, from the regularised optimum)."""
    rng = np.random.default_rng(seed)
    d, p, rho = len(made.head), made.n_decoder, made.correlation
    found = []
    for _ in range(repetitions):
        x, noise = rng.normal(size=(n, d + 2 * p)), rng.normal(size=(n, 2))
        e = [noise[:, 0], rho * noise[:, 0] + np.sqrt(1 - rho**2) * noise[:, 1]]
        truth, own = [np.zeros(d), mismatch], [x[:, d : d + p], x[:, d + p :]]
        shared = [x[:, :d] * np.sqrt(j) for j in (made.head, made.tail)]
        z = [s @ t + noise_ for s, t, noise_ in zip(shared, truth, e)]
        origin = np.r_[np.zeros(d) + start, np.zeros(2 * p)]
        decoders = []
        for s, o, target in zip(shared, own, z):
            f = np.hstack([s, o])
            gram, pull = f.T @ f / n + ridge * np.eye(d + p), f.T @ target / n + ridge * origin[: d + p]
            decoders.append(np.linalg.solve(gram, pull)[d:])
        fa = np.hstack([shared[0], own[0], 0 * own[1]])
        fb = np.hstack([shared[1], 0 * own[0], own[1]])
        gram = weight * fa.T @ fa / n + (1 - weight) * fb.T @ fb / n + ridge * np.eye(d + 2 * p)
        phi = np.linalg.solve(gram, (weight * fa.T @ z[0] + (1 - weight) * fb.T @ z[1]) / n + ridge * origin)[:d]
        row = np.zeros(2)
        for j, t, decoder in zip((made.head, made.tail), truth, decoders):
            for k, centre in enumerate((t, (j * t + ridge * start) / (j + ridge))):
                row[k] += ((phi - centre) ** 2 @ j + decoder @ decoder) / 2
        found.append(row)
    return np.array(found).T


@pytest.mark.parametrize("correlation, ridge", [(0.0, 0.0), (-0.7, 0.0), (0.0, 0.4)])
def test_drawing_moments_is_drawing_samples(correlation, ridge):
    made = GaussianTasks(HEAD, TAIL, 2, correlation)
    mismatch, start = np.array([0.3, -0.2]), np.array([0.2, 0.1])
    raw = raw_gaussian(made, mismatch, 0.3, 40, 3000, 1, ridge, start if ridge else 0.0)
    rng = np.random.default_rng(2)
    if ridge:
        quick = made.simulate_ridge(mismatch, start, ridge, 0.3, 40, 30_000, rng)
    else:
        quick = (made.simulate(mismatch, 0.3, 40, 30_000, rng)[0],)
    for slow, fast in zip(raw, quick):
        assert abs(slow.mean() - fast.mean()) < 4 * np.hypot(standard_error(slow), standard_error(fast))
        assert slow.std() == pytest.approx(fast.std(), rel=0.1)


def test_least_squares_over_too_few_samples_is_refused():
    with pytest.raises(ValueError, match="at least 6 samples, got 5"):
        GaussianTasks(HEAD, TAIL, 2).moments(5, 3, np.random.default_rng(0))


@pytest.mark.parametrize("correlation", [0.0, -0.8, 0.8])
@pytest.mark.parametrize("weight", [0.2, 0.5])
def test_the_gaussian_model_has_the_expansions_error(weight, correlation):
    made = GaussianTasks(HEAD, TAIL, 2, correlation)
    mismatch = np.array([0.03, -0.02])
    errors, _ = made.simulate(mismatch, weight, 5000, 40_000, np.random.default_rng(3))
    wanted = expansion(made.information(), mismatch, weight, 5000, cross=True)
    assert abs(errors.mean() - wanted) < 4 * standard_error(errors)
    assert abs(errors.mean() - eq18(made.information(), mismatch, weight, 5000)) > 5 * standard_error(errors)


@pytest.mark.parametrize("lam", [0.0, 0.3, 3.0])
def test_a_ridge_has_the_damped_error_from_its_own_optimum(lam):
    made, n = GaussianTasks(HEAD, TAIL, 2), 5000
    mismatch, start = np.array([0.03, -0.02]), np.array([0.01, 0.02])
    truth, optimum = made.simulate_ridge(mismatch, start, lam, 0.3, n, 40_000, np.random.default_rng(4))
    seen = made.regularised_mismatch(mismatch, start, lam)
    assert abs(optimum.mean() - expansion(made.information(), seen, 0.3, n, lam)) < 4 * standard_error(optimum)
    assert (abs(truth.mean() - optimum.mean()) > 10 * standard_error(optimum)) == (lam > 0)


@pytest.mark.parametrize("make", [linear_tasks, network_tasks])
def test_fishers_and_cross_term_are_sums_over_all_outcomes(make):
    made, mismatch = make(2.0 if make is linear_tasks else 1.0, exclusive=True), np.full(make().n_encoder, 0.05)
    truth = [made.head, np.r_[made.tail[: made.n_encoder] + mismatch, made.tail[made.n_encoder :]]]
    (p, q), jacobians, step = made._at(mismatch)[0], [], 1e-6
    for f, theta in zip(made.logits, truth):
        moved = [f(np.stack([theta + step * e, theta - step * e]))[0] for e in np.eye(len(theta))]
        jacobians.append(np.stack([(up - down) / (2 * step) for up, down in moved], axis=1))
    sums = [np.zeros((len(truth[i]), len(truth[j]))) for i, j in ((0, 0), (1, 1), (0, 1))]
    for s in range(len(p)):
        for z, probability in (((1, 0), p[s]), ((0, 1), q[s]), ((0, 0), 1 - p[s] - q[s])):
            scores = [(z[t] - prob[s]) * jacobians[t][s] for t, prob in enumerate((p, q))]
            for total, (i, j) in zip(sums, ((0, 0), (1, 1), (0, 1))):
                total += probability * np.outer(scores[i], scores[j]) / len(p)
    info = made.information(mismatch)
    for found, wanted in zip((info.head, info.tail, info.cross), sums):
        assert found == pytest.approx(wanted, abs=1e-8)
    assert np.abs(info.cross).max() > 1e-3


@pytest.mark.parametrize("make", [linear_tasks, network_tasks])
def test_the_batched_fit_is_the_maximum_a_plain_optimiser_finds(make):
    made, rng = make(1.0), np.random.default_rng(5)
    f, theta = made.logits[0], made.head
    share = rng.dirichlet(np.full(64, 50.0), size=3)
    ones = share * bernoulli_tasks._sigmoid(f(theta[None])[0]) * rng.uniform(0.98, 1.02, size=(3, 64))
    found = bernoulli_tasks._fit([(f, slice(None), 1.0, ones)], share, np.tile(theta, (3, 1)))
    for row, weight, y in zip(found, share, ones):

        def loss(x, weight=weight, y=y):
            z = f(x[None])[0][0]
            return float((weight * np.logaddexp(0, z) - y * z).sum())

        plain = minimize(loss, theta, method="BFGS", options={"gtol": 1e-8})
        assert loss(row) <= plain.fun + 1e-12
        assert row == pytest.approx(plain.x, abs=1e-3)


def test_labels_that_can_be_separated_are_reported():
    made = linear_tasks()
    ones = np.zeros((2, 64))
    with pytest.raises(ValueError, match="2 of 2 repetitions did not converge"):
        part = (made.logits[0], slice(None), 1.0, ones)
        bernoulli_tasks._fit([part], np.full((2, 64), 1 / 64), np.tile(made.head, (2, 1)), rounds=5)


@pytest.mark.parametrize(
    "make, n, refined", [(linear_tasks, 10_000, False), (network_tasks, 1_000_000, False), (network_tasks, 1_000_000, True)]
)
@pytest.mark.parametrize("exclusive", [False, True])
def test_the_bernoulli_models_have_the_expansions_error(make, n, refined, exclusive):
    made = make(1.0, exclusive=exclusive)
    mismatch = simulation.local_mismatch(made.information(np.zeros(made.n_encoder)), 2.0, n)
    errors, linear = made.simulate(mismatch, 0.3, n, 800, np.random.default_rng(6), refined)
    wanted = Linearised.of(made.information(mismatch), mismatch, 0.3, refined).expected(n)
    assert abs(errors.mean() - wanted) < 4 * standard_error(errors)
    assert abs((errors - linear).mean()) < 0.1 * wanted
    assert np.corrcoef(errors, linear)[0, 1] > 0.95


def test_exclusive_labels_that_add_up_to_more_than_one_are_refused():
    with pytest.raises(ValueError, match="add up to more than 1"):
        linear_tasks(1.0, intercepts=(1.0, 1.0), exclusive=True).constant(np.zeros(4))


def test_the_constant_of_exclusive_labels_is_positive_and_of_independent_ones_nought():
    assert linear_tasks().constant(np.zeros(4)) == pytest.approx(0, abs=1e-14)
    assert linear_tasks(exclusive=True).constant(np.zeros(4)) > 0.05


def test_the_evidence_rule_finds_the_ridge_from_a_damped_solution_and_not_from_an_undamped_one():
    found = evidence_study(np.logspace(-4, 0, 300), 1000, 0.3, 60, np.random.default_rng(7))
    for name in ("evidence_refitted", "evidence_once"):
        assert found[name] == pytest.approx(found["best"], rel=0.2)
        assert found[f"error_{name}"] < 1.05 * found["error_best"]
    assert found["evidence_undamped"] < 0.2 * found["best"]


def test_slopes_are_found_and_noise_has_none():
    n = 100 * 2 ** np.arange(6)
    table = pd.DataFrame({"samples": n, "standard_error": 1e-9, "column": 3.0 * n**-2.0})
    value, error = simulation.slope(table, "column")
    assert value == pytest.approx(-2, abs=1e-6) and error > 0
    assert np.isnan(simulation.slope(table.assign(standard_error=1.0), "column")).all()


def test_the_same_setting_gives_the_same_numbers_and_another_does_not():
    a, b = (simulation._rng({"n": n, "w": 0.5}).normal() for n in (1, 1))
    assert a == b != simulation._rng({"n": 2, "w": 0.5}).normal()
