"""Which trials a row gets, on which images, and when another value than the paper's is taken."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch

from osdtw_lib.config.load import load_config
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run
from osdtw_lib.verdict import measure, stage, tuning
from osdtw_lib.verdict.cells import decision, trials, tuned
from osdtw_lib.verdict.seed_run import SeedRun

pytestmark = pytest.mark.journey

LABELS = np.repeat(np.arange(4), 20)


def row(share):
    """Predictions with this share right in every class."""
    wrong = np.concatenate([np.arange(20) >= round(20 * share) for _ in range(4)])
    return {"predicted": np.where(wrong, (LABELS + 1) % 4, LABELS).tolist()}


@pytest.mark.parametrize("space", [None, {"a": (1, 2)}, {"a": (1, 2, 3), "b": (4, 5)}])
def test_the_papers_own_values_come_first_then_two_rates_then_points_of_the_space(space):
    found = tuning.values_to_try(space)
    assert found[:3] == [{}, {"rate": 0.5}, {"rate": 2.0}] and len(found) == (5 if space == {"a": (1, 2)} else 8)
    assert all(values.keys() == (space or tuning.SPACE).keys() for values in found[3:])
    assert len({str(values) for values in found}) == len(found) and found == tuning.values_to_try(space)


def test_osdtw_tries_its_likelihood_and_the_length_of_its_refinement(finished_copy, tmp_path):
    run = SeedRun(finished_copy({"stage3.epochs": 4}), 0)
    values = tuning.values_tried(run, "osdtw")
    assert len(values) == tuning.TRIALS and values[:3] == [{}, {"rate": 0.5}, {"rate": 2.0}]
    made = [tuning.tried(run, "osdtw", one, tmp_path).config for one in values[3:]]
    own, other = run.config.likelihood, "categorical"
    assert sorted((c.likelihood, c.stage3.epochs) for c in made) == [(own, 2), (own, 8), (other, 2), (other, 4), (other, 8)]
    assert all((c.stage1, c.stage2, c.recipe) == (run.config.stage1, run.config.stage2, run.config.recipe) for c in made)


def test_a_tenth_of_each_class_validates_none_of_the_smallest_and_never_many():
    labels = np.repeat(np.arange(5), (400, 50, 9, 5, 4))
    held = tuning.validation(labels, 0)
    assert np.bincount(labels[held], minlength=5).tolist() == [20, 5, 1, 1, 0]
    assert (held == tuning.validation(labels, 0)).all() and (held != tuning.validation(labels, 1)).any()


def test_only_what_is_ahead_by_more_than_a_standard_error_is_taken():
    tried = [{}, {"rate": 2.0}]
    values, table = tuning.chosen([row(0.5), row(0.9)], LABELS, tried)
    assert values == {"rate": 2.0} and table["chosen"].tolist() == [False, True]
    assert table["score"].tolist() == [50.0, 90.0] and table["difference"].tolist() == [0.0, 40.0]
    expected = 100 * np.sqrt(4 * 0.4 * 0.6 / 19) / 4
    assert table["standard_error"].tolist() == pytest.approx([0.0, expected])
    assert tuning.chosen([row(0.9), row(0.5)], LABELS, tried)[0] == {}
    close = {"predicted": row(0.5)["predicted"]}
    close["predicted"] = [int(LABELS[15]) if i == 15 else p for i, p in enumerate(close["predicted"])]
    assert tuning.chosen([row(0.5), close], LABELS, tried)[0] == {}


def test_a_tuned_row_keeps_the_test_images_out_and_says_what_it_tried(finished_copy, monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(tuning, "TRIALS", 2), monkeypatch.setattr(measure, "TRIALS", 2)
    changes = {"baselines": ["ce"], "verdict.methods": ["ce"], "verdict.seeds": [0], "verdict.budgets": ["epochs", "tuned"]}
    run = finished_copy(changes)
    own = tuning.TuningRun(run)
    train, held = own.indices
    assert set(train) | set(held) == set(run.indices[0]) and not set(train) & set(held) and not set(held) & set(run.indices[1])
    before = run.artifact("start").key, run.artifact("baselines/ce").key
    assert tuned(SeedRun(run, 0), "ce") is None
    execute(run, "verdict")
    assert (run.artifact("start").key, run.artifact("baselines/ce").key) == before
    table = stage.tuning(run)
    assert table["row"].tolist() == ["osdtw", "osdtw", "ce", "ce"] and table.groupby("row")["chosen"].sum().eq(1).all()
    assert table["values"].tolist() == ["{}", '{"rate": 0.5}'] * 2
    rows = {(r["row"], r["budget"]): r for r in stage.rows_of(run)}
    assert {name for name, budget in rows if budget == "tuned"} == {"osdtw", "ce"}
    assert len(rows["ce", "tuned"]["predicted"]) == len(run.test)
    rates = [cell.result()["parameters"]["learning_rate"] for cell in trials(run, "ce")]
    assert rates[1] == pytest.approx(rates[0] / 2)
    taken = decision(run, "ce")[0].get("rate", 1.0)
    assert rows["ce", "tuned"]["parameters"]["learning_rate"] == pytest.approx(rates[0] * taken)
    assert not len(stage.missing(run, stage.rows_of(run)))
    theirs = [row for row in stage.measured_rows(run) if row["budget"] == "tuned"]
    (tmp_path / "rows.json").write_text(json.dumps(theirs))
    elsewhere = copy.copy(run)
    elsewhere.config = run.config.model_copy(
        update={"verdict": run.config.verdict.model_copy(update={"others": (str(tmp_path / "rows.json"),)})}
    )
    monkeypatch.setattr(stage, "decision", lambda run, name: None)
    pd.testing.assert_frame_equal(stage.tuning(elsewhere), table, check_dtype=False)
    assert Run(load_config(run.folder.parents[1] / "small.yaml")).artifact("verdict").why_not_done() is None


def test_where_the_papers_own_values_cannot_be_trained_nothing_is_tuned_and_that_is_said(finished_copy):
    changes = {"baselines": ["ce"], "verdict.methods": ["ce"], "verdict.seeds": [0, 1], "verdict.budgets": ["epochs", "tuned"]}
    run = finished_copy(changes)
    trials(run, "ce")[0].note_failure("the loss is not finite")
    missing = stage.missing(run, []).query("budget == 'tuned'").set_index("row")
    assert missing.loc["ce", ["seeds", "why"]].tolist() == ["0 1", "its first trial: the loss is not finite"]
    assert missing.at["osdtw", "why"] == "not yet"
