"""The handwritten digits that scikit-learn carries."""

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Optdigits
from osdtw_lib.data import sets
from osdtw_lib.data.sets import load_source

DATA = Optdigits(dataset="optdigits")


def test_they_are_1797_real_digits_that_use_the_whole_range():
    made = load_source(DATA)
    assert made.images.pixels.shape == (1797, 8, 8, 1) and made.images.pixels.dtype == np.uint8
    assert len(np.unique(made.images.pixels)) == 17 and made.images.pixels.max() == 255
    assert np.bincount(made.images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert made.class_names == tuple("0123456789")
    middle = made.images.pixels[:, 3:5, 3:5].mean((1, 2, 3))
    assert middle[made.images.labels == 0].mean() < 50 < 150 < middle[made.images.labels == 8].mean()  # a zero has a hole


def test_the_parameter_file_asks_for_what_it_says():
    data, made = load_config(PROJECT / "params" / "optdigits_lt.yaml").data, load_source(DATA)
    assert data == DATA.filled
    shares = made.images.pixels / 255
    assert np.allclose((shares.mean(), shares.std()), (*data.mean, *data.std), atol=1e-4)
    train, test = sets.of(data).split(made, data, seed=0)
    assert made.counts(train).tolist() == [120, 82, 56, 38, 26, 18, 12, 8, 5, 4] and made.counts(test).tolist() == 10 * [50]


@pytest.mark.journey
def test_the_parameter_file_trains(train):
    run = train("optdigits_lt", "data.largest=12", "data.imbalance_ratio=4", "model.image_size=8", "model.patch_size=4")
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()
    assert len(run.test) == 500
