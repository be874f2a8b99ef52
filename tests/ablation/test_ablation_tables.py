"""The tables of the ablation, where a class or a group has nothing to show."""

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.ablation import tables


def test_a_class_without_test_images_is_left_out_of_every_mean():
    scores = pd.DataFrame({"class": [0, 1, 2], "images": [4, 0, 2], "right": [3, 0, 1], "nll": [2.0, 0.0, 3.0]})
    groups = {"many": np.array([0]), "medium": np.array([1]), "few": np.array([2])}
    found = tables.summary(scores, groups, np.array([60, 30, 10]))
    assert found["all"] == pytest.approx(400 / 6) and found["many"] == 75 and np.isnan(found["medium"]) and found["few"] == 50
    assert found["nll_balanced"] == pytest.approx(1.0) and found["nll_training_prior"] == pytest.approx(
        (60 * 0.5 + 10 * 1.5) / 70
    )


def test_the_true_order_is_within_reach_as_far_as_noise_is_in_one_grid_alone():
    """Two noisy measurements of one order agree by r; the order itself agrees with each by about the root of it."""
    rng = np.random.default_rng(0)
    cells = [{"shared_depth": c, "head_weight": w} for c in range(1, 61) for w in (0.2, 0.4, 0.6, 0.8)]
    truth = rng.normal(0, 1, len(cells))
    noisy = [truth + rng.normal(0, 0.6, len(cells)) for _ in range(2)]
    refined = pd.concat(
        pd.DataFrame(cells).assign(seed=seed, all=values, half_0=values, half_1=values) for seed, values in enumerate(noisy)
    )
    found = tables.within_reach(tables.ceiling(refined)).set_index("what").loc["two seeds"]
    assert found["within_reach"] == pytest.approx(np.sqrt(found["spearman"])) and found["spearman"] < 0.85
    reached = np.mean([tables.spearman(pd.Series(truth), pd.Series(values)) for values in noisy])
    assert found["within_reach"] == pytest.approx(reached, abs=0.03)
    assert np.isnan(
        tables.within_reach(tables.ceiling(refined[refined["seed"] == 0])).set_index("what").loc["two seeds", "within_reach"]
    )
