"""Temperatures by group, and how far probabilities are from the truth, against other ways to the same numbers."""

import numpy as np
import pytest
from scipy import optimize, special

from osdtw_lib.evaluation import calibration as c

GROUPS = {"many": np.array([0, 1]), "medium": np.array([2]), "few": np.array([3, 4])}
EVEN = np.full(5, 1 / 5)


def drawn(n, scale=1.0, seed=0, factors=(1, 1, 1, 1, 1)):
    """Scores whose softmax is the truth, labels drawn from it; then multiplied, by class of the largest score."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (n, 5))
    labels = np.array([rng.choice(5, p=p) for p in special.softmax(scores, 1)])
    return scale * scores * np.array(factors)[scores.argmax(1)][:, None], labels


def test_a_temperature_is_the_optimum_another_search_finds():
    scores, labels = drawn(400, 3.0)
    weights = np.random.default_rng(1).random(400)

    def loss(t):
        return -weights @ special.log_softmax(scores / t, 1)[np.arange(400), labels]

    other = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10})
    assert c.temperature(scores, labels, weights) == pytest.approx(other.x, rel=1e-5)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_a_temperature_undoes_a_known_factor(factor):
    scores, labels = drawn(20_000, factor)
    assert c.temperature(scores, labels) == pytest.approx(factor, rel=0.03)


def test_the_factor_of_each_group_of_predictions_is_found():
    scores, labels = drawn(30_000, factors=(3, 3, 1, 0.5, 0.5))
    even = {name: c.temperature(scores[m], labels[m]) for name, m in members(scores).items()}
    assert [even[g] for g in ("many", "medium", "few")] == pytest.approx([3, 1, 0.5], rel=0.05)
    found = c.fit_temperatures(scores, labels, GROUPS, EVEN)
    assert found == pytest.approx(even, rel=0.05)  # the classes are about as frequent as one another
    np.testing.assert_allclose(c.scaled(scores, GROUPS, found).argmax(1), scores.argmax(1))


def members(scores):
    return {name: np.isin(scores.argmax(1), own) for name, own in GROUPS.items()}


def test_a_temperature_at_an_end_stays_there():
    labels = np.arange(5)
    assert c.temperature(np.eye(5), labels) == c.COLDEST  # every image is right: the colder the better
    assert c.temperature(-np.eye(5), labels) == c.HOTTEST
    with pytest.raises(ValueError, match="there is none"):
        c.temperature(np.zeros((0, 5)), np.zeros(0, int))


def test_too_few_predictions_have_no_temperature():
    scores, labels = drawn(300, 4.0)
    keep = ~members(scores)["few"] | (np.cumsum(members(scores)["few"]) < c.FEWEST)
    found = c.fit_temperatures(scores[keep], labels[keep], GROUPS, EVEN)
    assert found["few"] == 1 and found["many"] != 1
    judged = c.judged_temperatures(scores[keep], labels[keep], GROUPS, EVEN)
    assert judged["used"].tolist() == [True, True, False] and judged["images"].tolist()[2] == c.FEWEST - 1
    assert c.used_temperatures(judged)["few"] == 1


def test_a_temperature_is_used_where_it_helps_images_it_has_not_seen():
    wrong, labels = drawn(600, 4.0)
    judged = c.judged_temperatures(wrong, labels, GROUPS, EVEN)
    assert judged["used"].all() and (judged["low"] > 0).all() and (judged["gain"] > judged["low"]).all()
    right = [c.judged_temperatures(*drawn(150, seed=s), GROUPS, EVEN)["used"].to_numpy() for s in range(20)]
    assert np.mean(right) < 0.1  # nothing to gain: seldom used
    assert c.judged_temperatures(wrong, labels, GROUPS, EVEN).equals(judged)


def test_classes_of_a_group_weigh_alike_and_an_empty_one_is_stood_in_for():
    labels = np.array([0, 0, 0, 1, 3, 3])
    np.testing.assert_allclose(c.weights_under(EVEN, labels, GROUPS), np.array([1 / 3, 1 / 3, 1 / 3, 1, 1, 1]) / 4)
    both = c.weights_under(EVEN, np.array([0, 1, 2, 2, 3, 4]), GROUPS)
    np.testing.assert_allclose(both, [0.2, 0.2, 0.1, 0.1, 0.2, 0.2])
    own = c.weights_under(np.array([0.4, 0.2, 0.1, 0.2, 0.1]), labels, GROUPS)  # 2 and 4 have no image
    np.testing.assert_allclose(own, np.array([0.4 / 3, 0.4 / 3, 0.4 / 3, 0.2, 0.15, 0.15]) / 0.9)


def test_a_row_that_is_right_about_another_mix_needs_no_temperature():
    """Scores that are the truth where class 0 is 40 times as frequent as class 4: calibration images come with that mix."""
    rng = np.random.default_rng(0)
    shares = np.array([40, 15, 5, 2, 1]) / 63
    labels = rng.choice(5, 6000, p=shares)
    scores = (1.2 * np.eye(5))[labels] + rng.normal(0, 1.1, (6000, 5))
    scores = 1.2 / 1.1**2 * scores + np.log(shares)  # Bayes' rule for normal scores
    found = c.fit_temperatures(scores, labels, GROUPS, shares)
    assert found["many"] == pytest.approx(1, abs=0.06) and found["medium"] == pytest.approx(1, abs=0.25)
    assert c.fit_temperatures(scores, labels, GROUPS, EVEN)["many"] > 1.3


def test_classes_of_one_image_each_do_not_make_a_gain_certain():
    """Scores that are right already; within such classes nothing would ever be redrawn."""
    groups, used = dict(zip(GROUPS, np.arange(60).reshape(3, 20))), []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = rng.normal(0, 2, (3000, 60))
        labels = (special.softmax(scores, 1).cumsum(1) > rng.random((3000, 1))).argmax(1)
        own = np.unique(labels, return_index=True)[1]
        judged = c.judged_temperatures(scores[own], labels[own], groups, np.full(60, 1 / 60), seed)
        assert (judged["high"] > judged["low"]).all()
        used += judged["used"].tolist()
    assert np.mean(used) < 0.1


def test_the_error_over_bins_of_equal_mass_is_the_one_by_hand():
    confidence = np.linspace(0.3, 0.99, 30)[::-1]
    right = np.arange(30) % 3 == 0
    pairs = [(confidence[i : i + 2].mean(), right[i : i + 2].mean()) for i in range(0, 30, 2)]  # 15 bins of two
    assert c.equal_mass_error(confidence, right) == pytest.approx(100 * np.mean([abs(p - r) for p, r in pairs]))
    assert c.reliability(confidence, right)["images"].tolist() == [2] * 15
    assert c.equal_mass_error(np.array([0.5, 0.9]), np.array([True, False])) == pytest.approx(70)
    assert np.isnan(c.equal_mass_error(np.zeros(0), np.zeros(0, bool)))


def test_losses_and_brier_are_those_of_the_softmax():
    scores, labels = drawn(50)
    p = special.softmax(scores, 1)
    np.testing.assert_allclose(c.losses(scores, labels), -np.log(p[np.arange(50), labels]))
    np.testing.assert_allclose(c.brier(scores, labels), ((p - np.eye(5)[labels]) ** 2).sum(1))
    assert c.brier(np.array([[1000.0, 0]]), np.array([1])) == pytest.approx([2])


def test_the_table_has_what_each_measure_says_by_group():
    scores, labels = drawn(300, 3.0)
    table = c.compared(scores, scores / 3, labels, GROUPS).set_index(["group", "measure"])
    few = np.isin(labels, GROUPS["few"])
    for name, inside in {"few": few, "all": np.ones(300, bool)}.items():
        for when, s in {"before": scores, "after": scores / 3}.items():
            p = special.softmax(s, 1)[inside]
            assert table.loc[(name, "nll"), when] == pytest.approx(c.losses(s, labels)[inside].mean())
            assert table.loc[(name, "brier"), when] == pytest.approx(c.brier(s, labels)[inside].mean())
            error = c.equal_mass_error(p.max(1), p.argmax(1) == labels[inside])
            assert table.loc[(name, "ece_equal_mass"), when] == pytest.approx(error)
    change = table["after"] - table["before"]
    assert ((table["low"] <= change) & (change <= table["high"])).all()
    assert table.loc[("all", "nll"), "high"] < 0


def test_an_interval_of_a_mean_is_as_wide_as_its_standard_error_says():
    scores, labels = drawn(2000)
    table = c.compared(scores, None, labels, GROUPS).set_index(["group", "measure"]).loc[("all", "nll")]
    own = [c.losses(scores, labels)[labels == k] for k in range(5)]
    error = np.sqrt(sum(len(v) * v.var() for v in own)) / 2000
    assert table["before_high"] - table["before_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert table[["after", "low", "high"]].isna().all()


def test_an_empty_group_has_no_row():
    scores, labels = drawn(100)
    keep = labels != 2
    assert "medium" not in set(c.compared(scores[keep], None, labels[keep], GROUPS)["group"])
    assert "medium" not in set(c.reliability_by_group(scores[keep], labels[keep], GROUPS)["group"])
