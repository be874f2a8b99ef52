"""Lemma 1 on random finite distributions, against sums written out one by one."""

import itertools
import math

import numpy as np
import pytest

from osdtw_lib.theory import lemma


def by_loops(q, head, tail):
    """Both sides of Eq. (12) term by term."""
    inputs, n_head, n_tail = q.shape
    joint = first = second = information = 0.0
    for y in range(inputs):
        prior = q[y].sum()
        for i, j in itertools.product(range(n_head), range(n_tail)):
            if q[y, i, j] > 0:
                joint += q[y, i, j] * math.log(q[y, i, j] / (prior * head[y, i] * tail[y, j]))
                given = (q[y, i, :].sum() / prior) * (q[y, :, j].sum() / prior)
                information += q[y, i, j] * math.log(q[y, i, j] / prior / given)
        for values, predictor, name in ((q[y].sum(1), head[y], "first"), (q[y].sum(0), tail[y], "second")):
            part = sum(v * math.log(v / (prior * p)) for v, p in zip(values, predictor) if v > 0)
            first, second = (first + part, second) if name == "first" else (first, second + part)
    return joint, first, second, information


def draw(seed, exclusive):
    rng = np.random.default_rng(seed)
    inputs, n_head, n_tail = rng.integers(1, 6, 3)
    q = lemma.random_joint(rng, inputs, n_head, n_tail, exclusive)
    return q, lemma.random_predictor(rng, inputs, n_head + 1), lemma.random_predictor(rng, inputs, n_tail + 1)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_both_sides_agree_with_the_sums_and_with_each_other(seed, exclusive):
    q, head, tail = draw(seed, exclusive)
    joint, first, second, information = by_loops(q, head, tail)
    assert lemma.joint_divergence(q, head, tail) == pytest.approx(joint, abs=1e-12)
    assert lemma.task_divergence(q.sum(2), head) == pytest.approx(first, abs=1e-12)
    assert lemma.task_divergence(q.sum(1), tail) == pytest.approx(second, abs=1e-12)
    assert lemma.conditional_information(q) == pytest.approx(information, abs=1e-12)
    assert abs(joint - first - second - information) < 1e-10


def test_the_lemma_fails_for_a_predictor_that_does_not_factorise():
    q, head, tail = draw(3, False)
    p = np.random.default_rng(0).dirichlet(np.ones(q[0].size), len(q)).reshape(q.shape)
    joint = (q * np.log(q / (q.sum((1, 2), keepdims=True) * p))).sum()
    tasks = lemma.task_divergence(q.sum(2), p.sum(2)) + lemma.task_divergence(q.sum(1), p.sum(1))
    assert abs(joint - tasks - lemma.conditional_information(q)) > 1e-3


@pytest.mark.parametrize("seed", range(10))
def test_for_exclusive_labels_the_constant_is_the_entropy_of_the_group(seed):
    q, _, _ = draw(seed, True)
    prior, head = q.sum((1, 2)), q[:, 1:, 0].sum(1)
    assert (q[:, 1:, 1:] == 0).all() and (q[:, 0, 0] == 0).all()
    assert lemma.conditional_information(q) == pytest.approx(float(prior @ lemma.group_entropy(head / prior)), abs=1e-12)


def test_independent_labels_have_the_constant_nought_and_certain_groups_too():
    rng = np.random.default_rng(1)
    head, tail = lemma.random_predictor(rng, 4, 3), lemma.random_predictor(rng, 4, 2)
    assert lemma.conditional_information(head[:, :, None] * tail[:, None] / 4) == pytest.approx(0, abs=1e-14)
    assert lemma.group_entropy([0.0, 1.0, 0.5]).tolist() == pytest.approx([0, 0, math.log(2)])


def test_the_bernoulli_models_posterior_and_single_label_mass_against_all_label_vectors():
    p = np.random.default_rng(2).uniform(0.05, 0.95, size=(3, 4))
    for row, posterior, mass in zip(p, lemma.class_posterior(p), lemma.single_label_mass(p)):
        vectors = {z: np.prod(np.where(z, row, 1 - row)) for z in itertools.product((0, 1), repeat=4)}
        single = [vectors[tuple(int(i == k) for i in range(4))] for k in range(4)]
        assert mass == pytest.approx(sum(single), rel=1e-12)
        assert posterior == pytest.approx(np.array(single) / sum(single), rel=1e-12)
