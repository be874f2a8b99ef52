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
