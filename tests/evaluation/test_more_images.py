"""What ten more images would buy: the model's own draws, least squares, and what must not matter."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from osdtw_lib.evaluation.more_images import _curve, gains

COUNTS = np.array([400, 239, 143, 86, 51, 30, 18, 11, 6, 4])


def table(right, counts=COUNTS, images=100):
    names = [f"class {k}" for k in range(len(counts))]
    return pd.DataFrame({"class": names, "training_images": counts, "test_images": images, "right": right})


def drawn(rng, curve=(-1.5, 0.8), spread=0.5):
    """Classes as the model has them, the gain that 10 images really bring each, and the one that is measured (points)."""
    level = curve[0] + curve[1] * np.log(COUNTS) + spread * rng.standard_normal(len(COUNTS))
    after = level + curve[1] * np.log((COUNTS + 10) / COUNTS)
    right = rng.binomial(100, expit(level))
    return table(right), 100 * (expit(after) - expit(level)), rng.binomial(100, expit(after)) - right


def test_intervals_hold_what_they_promise_where_the_model_is_true():
    rng, held, errors = np.random.default_rng(0), [], []
    for _ in range(150):
        classes, true, measured = drawn(rng)
        found = gains(classes).set_index("class").loc[classes["class"]]
        held.append((found["gain_low"] <= measured) & (measured <= found["gain_high"]))
        errors.append(found["gain"] - true)
    assert 0.93 < np.mean(held) < 0.99 and np.mean(held, axis=0).min() > 0.9
    assert np.abs(np.mean(errors, axis=0)).max() < 2.0  # points, of some 20 in the rarest class


def test_without_spread_it_is_weighted_least_squares():
    x, noise = np.log(COUNTS), np.linspace(0.1, 0.4, 10)
    level = 0.3 + 0.7 * x + 0.01 * np.sin(np.arange(10))  # nearer to the curve than the noise lets one expect
    curve, covariance, spread = _curve(x, level, noise)
    root = 1 / np.sqrt(noise)
    design = np.stack([root, root * x], axis=1)
    np.testing.assert_allclose(curve, np.linalg.lstsq(design, root * level, rcond=None)[0])
    np.testing.assert_allclose(covariance, np.linalg.inv(design.T @ design))
    assert spread == 0


def test_the_spread_is_what_makes_the_scatter_as_large_as_it_should_be():
    rng = np.random.default_rng(1)
    x, noise = np.log(COUNTS), np.full(10, 0.05)
    level = 0.3 + 0.7 * x + rng.standard_normal(10)
    curve, _, spread = _curve(x, level, noise)
    assert spread > 0.1
    assert ((level - curve[0] - curve[1] * x) ** 2 / (noise + spread)).sum() == pytest.approx(8)


def test_the_largest_gain_comes_first_and_the_order_of_the_classes_does_not_matter():
    classes, *_ = drawn(np.random.default_rng(2))
    found = gains(classes)
    assert found["gain"].is_monotonic_decreasing and found["class"][0] in ("class 8", "class 9")
    assert (found["gain_low"] <= found["gain"]).all() and (found["gain"] <= found["gain_high"]).all()
    other = gains(classes.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(found, other, rtol=1e-6)
    pd.testing.assert_frame_equal(found, gains(classes))
    assert (gains(classes, 40).set_index("class")["gain"] >= found.set_index("class")["gain"]).all()


def test_a_class_without_test_images_is_expected_as_its_count_says():
    classes, *_ = drawn(np.random.default_rng(4))
    classes.loc[9, ["right", "test_images"]] = 0
    found = gains(classes).set_index("class").loc["class 9"]
    assert np.isnan(found["recall"]) and np.isfinite(found[["gain", "gain_low", "gain_high"]].to_numpy(float)).all()
    assert 5 < found["gain"] < 40


@pytest.mark.parametrize("right", [[100] * 10, [0] * 10], ids=["all right", "all wrong"])
def test_classes_all_alike_have_nothing_to_gain(right):
    found = gains(table(right))
    assert np.isfinite(found.drop(columns="class").to_numpy(float)).all() and found["gain"].abs().max() < 2


@pytest.mark.parametrize(
    "classes, more, line",
    [
        (table([1, 2, 3], COUNTS[:3]), 10, "needs 4 classes"),
        (table([1, 2, 3, 4, 5], np.array([9, 9, 9, 4, 4])), 10, "three counts"),
        (table([5] * 10), 0, "needs an image more"),
    ],
)
def test_what_cannot_be_said_is_an_error(classes, more, line):
    with pytest.raises(ValueError, match=line):
        gains(classes, more)
