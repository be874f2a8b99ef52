"""Prediction sets: thresholds by hand, and a simulation of what they promise."""

import math

import numpy as np
import pytest
from scipy import special, stats

from osdtw_lib.evaluation import conformal

GROUPS = {"many": np.array([0]), "medium": np.array([1, 2]), "few": np.array([3, 4])}


def test_a_threshold_is_the_ranked_score():
    scores = np.arange(1, 20)[::-1] / 20  # 19 of them: ceil(20 x 0.9) = 18
    assert conformal.threshold(scores, 0.9) == 18 / 20
    assert conformal.threshold(scores[:9], 0.9) == scores[:9].max()
    assert conformal.threshold(scores[:8], 0.9) == math.inf
    assert conformal.threshold(np.zeros(0), 0.9) == math.inf
    rng = np.random.default_rng(0)
    for n, coverage in ((50, 0.8), (101, 0.95), (500, 0.9)):
        drawn = rng.random(n)
        level = math.ceil((n + 1) * coverage) / n
        assert conformal.threshold(drawn, coverage) == np.quantile(drawn, level, method="inverted_cdf")


@pytest.mark.parametrize("coverage, needed", [(0.9, 9), (0.8, 4), (0.95, 19), (0.5, 1), (0.99, 99), (0.85, 6)])
def test_so_many_images_are_needed(coverage, needed):
    assert conformal.images_needed(coverage) == needed
    assert math.isfinite(conformal.threshold(np.zeros(needed), coverage))
    assert conformal.threshold(np.zeros(needed - 1), coverage) == math.inf


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, float("nan"), "0.9", None])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(ValueError, match="coverage is a share above 0 and below 1, got"):
        conformal.images_needed(coverage)


def test_a_class_without_images_enough_takes_its_groups_then_those_of_small_ones_then_none():
    scores = [np.full(20, 0.1), np.full(9, 0.2), np.full(8, 0.6), np.full(5, 0.5), np.full(4, 0.4)]
    limits, how = conformal.thresholds(scores, GROUPS, 0.9)
    assert how == ["class", "class", "rare", "group", "group"]
    assert limits.tolist() == [0.1, 0.2, 0.6, 0.5, 0.5]  # rare: 17 images, the last; the two of `few`: the ninth of nine
    limits, how = conformal.thresholds([scores[0], scores[1], [0.3] * 3, [0.5] * 4, [0.4]], GROUPS, 0.9)
    assert how == ["class", "class", "none", "none", "none"] and np.isinf(limits[2:]).all()
    assert conformal.thresholds([s[:1] for s in scores], GROUPS, 0.9)[1] == ["none"] * 5
    assert np.isinf(conformal.thresholds([s[:1] for s in scores], GROUPS, 0.9)[0]).all()
    assert conformal.thresholds([[]] * 5, GROUPS, 0.9)[1] == ["none"] * 5


def test_sets_hold_what_is_within_the_limit_and_the_likeliest():
    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    assert conformal.sets(p, np.array([0.5, 0.85, 0.85])).tolist() == [[True, True, False], [True, True, True]]
    assert conformal.sets(p, np.zeros(3)).tolist() == [[True, False, False], [True, False, False]]
    assert conformal.sets(p, np.full(3, np.inf)).all()


def test_what_sets_do_is_counted_by_group():
    inside = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]], bool)
    table = conformal.coverage_by_group(inside, np.array([0, 1, 3, 4]), GROUPS, ["class"] * 3 + ["group"] * 2)
    assert table["group"].tolist() == ["many", "medium", "few", "all"]
    assert table["reached"].tolist() == [100, 100, 50, 75] and table["worst_class"].tolist() == [100, 100, 0, 0]
    assert table["mean_size"].tolist() == [1, 2, 2, 1.75]
    assert table["how"].tolist() == ["class 1", "class 2", "group 2", "class 3, group 2"]


def world(rng, sizes):
    """A network that likes frequent classes: labels of so many images a class, and its probabilities."""
    labels = np.repeat(np.arange(5), sizes)
    scores = rng.normal(0, 1, (len(labels), 5)) + 1.5 * np.eye(5)[labels] + np.array([2, 1, 1, 0, 0])
    return special.softmax(scores, 1), labels


def test_rare_classes_are_held_as_often_as_promised():
    """400 long-tailed calibration parts: the mean coverage of each class, and of the group that shares a threshold, is between
    what is promised and 1 / (n + 1) above it, which is exact for scores without ties; a threshold for all breaks the promise."""
    rng, coverage, draws, n_test = np.random.default_rng(0), 0.8, 400, 40
    sizes, held, naive = np.array([100, 30, 10, 2, 2]), np.zeros(5), np.zeros(5)
    for _ in range(draws):
        own = conformal.scores_by_class(*world(rng, sizes))
        limits, how = conformal.thresholds(own, GROUPS, coverage)
        p, labels = world(rng, np.full(5, n_test))
        scores = 1 - p[np.arange(len(labels)), labels]
        held += np.bincount(labels, scores <= limits[labels], minlength=5)
        naive += np.bincount(labels, scores <= conformal.threshold(np.concatenate(own), coverage), minlength=5)
    assert how == ["class", "class", "class", "group", "group"]
    for reached, n in [(held[0], 100), (held[1], 30), (held[2], 10), (held[3:].sum() / 2, 4)]:
        expected = math.ceil((n + 1) * coverage) / (n + 1)
        a, b = math.ceil((n + 1) * coverage), n + 1 - math.ceil((n + 1) * coverage)
        one = stats.betabinom.std(n_test, a, b) / n_test  # of the coverage of one calibration part
        assert abs(reached / draws / n_test - expected) < 4 * one / draws**0.5
        assert expected >= coverage
    assert naive[3:].sum() / 2 / draws / n_test < 0.6


def test_classes_with_hardly_an_image_are_held_too():
    """Fewer than a group needs: the small classes of all groups stand in, or a class is in every set; never frequent ones."""
    rng, draws, coverage = np.random.default_rng(1), 200, 0.8
    for sizes, expected in (([100, 30, 3, 1, 1], "rare"), ([100, 30, 2, 1, 0], "none")):
        held, naive = np.zeros(5), np.zeros(5)
        for _ in range(draws):
            own = conformal.scores_by_class(*world(rng, np.array(sizes)))
            limits, how = conformal.thresholds(own, GROUPS, coverage)
            p, labels = world(rng, np.full(5, 20))
            scores = 1 - p[np.arange(len(labels)), labels]
            held += np.bincount(labels, scores <= limits[labels], minlength=5)
            naive += np.bincount(labels, scores <= conformal.threshold(np.concatenate(own), coverage), minlength=5)
        held, naive = held / (20 * draws), naive / (20 * draws)
        assert how == ["class", "class", *[expected] * 3]
        assert np.average(held[2:], weights=sizes[2:]) > coverage and (naive[3:] < 0.6).all()
        assert expected == "rare" or (held[2:] == 1).all()
