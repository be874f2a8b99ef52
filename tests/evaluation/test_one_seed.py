"""The points that mean nothing: by hand; the seeds' part is held to the published rows beside them (tests/verdict)."""

import numpy as np
import pytest

from osdtw_lib.evaluation import one_seed
from osdtw_lib.evaluation.one_seed import noise_of_one_seed


def test_the_noise_of_one_seed():
    assert noise_of_one_seed(1000) == pytest.approx(196 * np.sqrt(2 * 0.25 / 1000), rel=1e-4)
    assert noise_of_one_seed(1000, 90.0) == pytest.approx(196 * np.sqrt(2 * 0.09 / 1000), rel=1e-4)
    assert noise_of_one_seed(1000, disagreement=10.0) == pytest.approx(196 * np.sqrt(0.1 / 1000), rel=1e-4)
    assert noise_of_one_seed(1000, disagreement=0.0) == 0
    for wrong in ((0,), (10, 101.0), (10, 50.0, -1.0)):
        with pytest.raises(ValueError, match="shares in %"):
            noise_of_one_seed(*wrong)


def test_a_table_of_one_seed_says_how_many_points_mean_nothing():
    said = one_seed.one_seed(1000, 88.0)
    assert said.startswith("One seed: differences under 2.8 points mean nothing by the 1,000 test images alone, and under 4.4")
    for points, judged in (
        (2.5, "+2.5 points apart, undecided."),
        (-3.0, "more than the first"),
        (9.0, "apart, more than both."),
    ):
        assert judged in one_seed.one_seed(1000, 88.0, points)
