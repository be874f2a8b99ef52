"""What published trainings reached, beside one's own."""

import math

import pandas as pd
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.evaluation.milestones import ACCURACY, COLUMNS, ERROR, LOGS, LOSS, beside, milestones
from osdtw_lib.figures.training import curves
from osdtw_lib.methods import names


def config_of(name, changes=()):
    return load_config(PROJECT / "params" / f"{name}.yaml", list(changes))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.protocol}-{log.size}-{log.training}")
def test_a_log_is_one_of_a_training_there_is_and_goes_on_as_trainings_do(log):
    assert log.training == "start" or log.training in names()
    for quantity, values in log.values.items():
        epochs, found = list(values), list(values.values())
        assert epochs == sorted(epochs) and epochs[0] == 1 and epochs[-1] == log.epochs
        assert found == sorted(found, reverse=quantity != ACCURACY), "losses fall, accuracies rise"


def test_each_file_is_told_what_is_known_of_it_alone():
    known = milestones(config_of("imagenet_lt"))
    assert set(known["training"]) == {"balanced_bce"} and set(known["quantity"]) == {LOSS, ACCURACY}
    assert known.query("epoch == 100 and quantity == @ACCURACY")["theirs"].item() == 60.79
    assert milestones(config_of("imagenet_lt_384")).query("epoch == 100 and quantity == @ACCURACY")["theirs"].item() == 63.51
    assert set(milestones(config_of("inaturalist2018"))["quantity"]) == {ACCURACY}
    for name in ("mnist_lt", "places_lt", "cifar100_ir100", "own_images"):
        nothing = milestones(config_of(name))
        assert nothing.empty and list(nothing.columns) == COLUMNS


def test_stage_0_is_compared_where_it_is_made_from_normalised_patches():
    made = ["model.init=masked_autoencoding"]
    assert set(milestones(config_of("imagenet_lt", made)).query("training == 'start'")["quantity"]) == {ERROR}
    plain = [*made, "stage0.normalize_patches=false"]
    assert "start" not in set(milestones(config_of("imagenet_lt", plain))["training"])


def test_own_values_stand_beside_those_of_as_many_epochs():
    known = milestones(config_of("imagenet_lt"))
    history = pd.DataFrame({"epoch": range(1, 51), "learning_rate": 1e-3, "balanced_bce": [7 - e / 20 for e in range(1, 51)]})
    table = beside(known, {"balanced_bce": history}, {"balanced_bce": 57.0}).set_index(["quantity", "epoch"])["here"]
    assert table[LOSS, 10] == 6.5 and table[LOSS, 50] == 4.5 and math.isnan(table[LOSS, 100])
    assert table[ACCURACY, 50] == 57.0 and math.isnan(table[ACCURACY, 10]), "an accuracy is known after the last epoch alone"
    assert beside(known, {}, {})["here"].isna().all()
    assert beside(known.iloc[:0], {}, {}).empty


def test_the_curve_shows_them_as_points():
    known = milestones(config_of("imagenet_lt", ["model.init=masked_autoencoding"])).query("training == 'start'")
    history = pd.DataFrame({"epoch": [1, 2], "learning_rate": 1e-3, "error": [1.2, 0.9]})
    assert [line.mode for line in curves({"": history}, "", "", "", known).data] == ["lines", "markers"]
    assert len(curves({"": history}, "", "", "", known.iloc[:0]).data) == 1
