"""Scores moved to other mixes by Bayes' rule; the mix of unlabelled images against truth and a brute-force maximum."""

import numpy as np
import pytest
from scipy.optimize import minimize

from osdtw_lib.evaluation.calibration import probabilities as softmax
from osdtw_lib.evaluation.class_mix import accuracies_under, estimate_mix, moved, shifted_mixes

MEANS = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.5]])


def images(shares, n, rng):
    """Labels, and log p(x | k) of points around three means: the scores of a perfect row under equal priors."""
    labels = rng.choice(3, n, p=shares)
    points = MEANS[labels] + rng.normal(size=(n, 2))
    return labels, -0.5 * ((points[:, None] - MEANS) ** 2).sum(-1)


def test_moved_is_bayes_rule_by_hand_and_comes_back():
    likelihoods, old, new = np.array([[0.2, 0.5, 0.1]]), np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.1, 0.8])
    scores = np.log(likelihoods * old)
    expected = likelihoods * new / (likelihoods * new).sum()
    np.testing.assert_allclose(softmax(moved(scores, old, new)), expected, rtol=1e-12)
    np.testing.assert_allclose(moved(moved(scores, old, new), new, old), scores, rtol=1e-12)
    assert softmax(moved(scores, old, np.array([0.5, 0.5, 0.0])))[0, 2] == 0


def test_the_estimate_is_the_brute_force_maximum():
    _, scores = images([0.7, 0.2, 0.1], 200, np.random.default_rng(0))
    prior = np.array([0.2, 0.3, 0.5])
    likelihood = np.exp(scores)  # the row's scores are those under its prior

    def minus(free):
        shares = softmax(np.append(free, 0.0)[None])[0]
        return -np.log(likelihood @ shares).sum()

    best = minimize(minus, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}).x
    expected = softmax(np.append(best, 0.0)[None])[0]
    found = estimate_mix(scores + np.log(prior), prior).shares
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_shares_and_standard_errors_over_many_draws():
    truth, rng = np.array([0.6, 0.3, 0.1]), np.random.default_rng(1)
    found = [estimate_mix(images(truth, 400, rng)[1], np.full(3, 1 / 3)) for _ in range(300)]
    shares = np.array([one.shares for one in found])
    np.testing.assert_allclose(shares.mean(0), truth, atol=4 * shares.std(0).max() / np.sqrt(300))
    said = np.array([one.standard_error for one in found]).mean(0)
    np.testing.assert_allclose(said, shares.std(0, ddof=1), rtol=0.2)  # 300 draws know a deviation to 4 %


def test_weights_count_images():
    _, scores = images([0.5, 0.3, 0.2], 60, np.random.default_rng(2))
    twice = estimate_mix(np.concatenate([scores, scores[:20]]), np.full(3, 1 / 3)).shares
    weighted = estimate_mix(scores, np.full(3, 1 / 3), weights=np.r_[np.full(20, 2.0), np.ones(40)]).shares
    np.testing.assert_allclose(weighted, twice, atol=1e-6)


def test_few_images_and_confused_classes_are_said():
    rng = np.random.default_rng(3)
    few = estimate_mix(images([0.4, 0.3, 0.3], 20, rng)[1], np.full(3, 1 / 3))
    assert "20 images of 3 classes" in few.warnings[0]
    _, scores = images([0.4, 0.3, 0.3], 3000, rng)
    alike = np.column_stack([scores[:, 0], scores[:, 0] + 1e-3 * rng.normal(size=3000), scores[:, 2]])
    found = estimate_mix(alike, np.full(3, 1 / 3), names=["cat", "dog", "cow"])
    assert any("is confused with others" in line and ("cat" in line or "dog" in line) for line in found.warnings)
    assert not estimate_mix(scores, np.full(3, 1 / 3)).warnings


def test_a_class_that_is_not_there_gets_nothing_and_no_error():
    scores = np.array([[30.0, 0.0, 0.0]] * 40 + [[0.0, 30.0, 0.0]] * 60)
    found = estimate_mix(scores, np.full(3, 1 / 3))
    np.testing.assert_allclose(found.shares, [0.4, 0.6, 0.0], atol=1e-6)
    np.testing.assert_allclose(found.standard_error[:2], np.sqrt(0.24 / 100), rtol=1e-3)
    assert np.isnan(found.standard_error[2])


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.array([[0.0, np.nan, 1.0]])])
def test_no_image_or_no_number_is_refused(scores):
    with pytest.raises(ValueError, match="at least one image"):
        estimate_mix(scores, np.full(3, 1 / 3))


def test_mixes_forward_and_backward():
    mixes = shifted_mixes([10, 400, 50, 3])
    assert list(mixes) == [
        *(f"forward {r}" for r in (50, 25, 10, 5, 2)),
        "uniform",
        *(f"backward {r}" for r in (2, 5, 10, 25, 50)),
    ]
    for name, shares in mixes.items():
        assert shares.sum() == pytest.approx(1)
        if name != "uniform":
            assert shares.max() / shares.min() == pytest.approx(int(name.split()[1]))
            assert shares.argmax() == (1 if name.startswith("forward") else 3)
    np.testing.assert_allclose(mixes["backward 10"][[1, 2, 0, 3]], mixes["forward 10"][[3, 0, 2, 1]])


def test_accuracy_under_a_mix_is_that_of_images_repeated():
    rng = np.random.default_rng(4)
    labels, scores = images([1 / 3] * 3, 300, rng)
    sizes, prior = np.bincount(labels, minlength=4), np.array([0.4, 0.3, 0.2, 0.1])
    scores = np.column_stack([scores, np.full(300, -50.0)])  # a fourth class without test images
    mix = np.array([0.7, 0.2, 0.05, 0.05])
    found = accuracies_under(scores + np.log(prior), labels, prior, mix)
    shares = np.append(mix[:3] / mix[:3].sum(), 0.0)
    for way, to in (("none", prior), ("true", shares)):
        predicted = (scores + np.log(np.maximum(to, 1e-300))).argmax(1)
        recalls = [(predicted[labels == k] == k).sum() / sizes[k] for k in range(3)]
        assert found[way] == pytest.approx(100 * float(np.dot(shares[:3], recalls)))
    assert found["true"] > found["estimated"] > found["none"]
