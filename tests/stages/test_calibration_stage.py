"""Stage `calibration` with and without images set aside, what the predictor makes of it, and that nothing else changes."""

import json
import shutil

import numpy as np
import pytest

from osdtw_lib import load_predictor
from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.config.load import load_config
from osdtw_lib.errors import UserError
from osdtw_lib.evaluation import calibration, conformal
from osdtw_lib.evaluation.scores import scores_over
from osdtw_lib.figures.calibration import reliability
from osdtw_lib.inference.correction import Correction, load_correction
from osdtw_lib.inference.predictor import Predictor
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import rows
from osdtw_lib.stages.run import Run
from osdtw_lib.stages.scores import scores_of
from small_run import write_small

STAGES = ("split", "start", "stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3", "baselines", "calibration")


@pytest.fixture(scope="module")
def carved(tmp_path_factory):
    """Half of the training images set aside; two rows' worth of baselines."""
    changes = {"calibration.images": 0.5, "data.largest": 200, "baselines": ["ce", "balanced_bce"]}
    run = Run(load_config(write_small(tmp_path_factory.mktemp("carved"), changes)))
    for name in STAGES:
        execute(run, name, quiet=True)
    return run


# without --------------------------------------------------------------------------------------------------------


def test_keys_are_what_they_were_where_nothing_is_set_aside(finished, params):
    """As they were before the section was there: written out here, so that finished runs stay up to date."""
    data = {key: finished.config.model_dump(mode="json")[key] for key in ("seed", "data")}
    split = Artifact("split", finished.folder / "split", data | {"images": finished.source.fingerprint()})
    start = Artifact("start", finished.folder, finished.dump("model", "stage0", "recipe"), (split,))
    own = finished.dump("stage1", "likelihood", "logit_adjustment", "recipe")
    stage1 = Artifact("stage1", finished.folder, own, (start,))
    assert finished.artifact("split").key == split.key and finished.artifact("stage1").key == stage1.key
    explicit = Run(load_config(params({"calibration.images": None})))
    asked = Run(load_config(params({"calibration.images": 1})))
    assert explicit.artifact("stage1").key == stage1.key
    assert asked.artifact("split").key != split.key and asked.artifact("stage1").key != stage1.key
    assert set(finished.read("split", "indices")) == {"train", "test"}
    assert "calibration_images" not in finished.artifact("split").table("classes")


def test_without_a_calibration_part_what_is_there_is_measured(finished):
    made = finished.artifact("calibration")
    table = made.table("calibration")
    assert table["method"].unique().tolist() == list(rows(finished))
    assert table[["after", "low", "high"]].isna().all(axis=None) and table[["before", "before_low"]].notna().all(axis=None)
    scores, labels = scores_of(finished, "osdtw"), finished.test.labels
    own = table[(table["method"] == "osdtw") & (table["group"] == "all")].set_index("measure")["before"]
    p = calibration.probabilities(scores)
    assert own["nll"] == pytest.approx(-np.log(p[np.arange(len(labels)), labels]).mean())
    assert own["ece_equal_mass"] == pytest.approx(calibration.equal_mass_error(p.max(1), p.argmax(1) == labels))
    assert not (made.folder / "sets.csv").exists() and not (made.folder / "temperatures.csv").exists()


def test_without_a_calibration_part_sets_say_which_key_to_set(finished):
    predictor = load_predictor(finished.folder)
    with pytest.raises(
        UserError, match="no calibration part was set aside; set calibration.images in its parameter file"
    ) as said:
        predictor.sets(finished.test.pixels[:1])
    assert "\n" not in str(said.value)


# with -----------------------------------------------------------------------------------------------------------


def test_the_split_keeps_what_was_set_aside(carved):
    kept, table = carved.read("split", "indices"), carved.artifact("split").table("classes")
    assert np.array_equal(kept["calibration"].numpy(), carved.calibration_indices)
    assert table["calibration_images"].tolist() == np.bincount(carved.calibration.labels).tolist()
    assert table["training_images"].tolist() == carved.class_counts.tolist()
    assert "calibration_sha256" in carved.artifact("split").notes()


def test_scores_of_both_parts_are_those_of_each_rows_network_alone(carved):
    for name, row in rows(carved, 2).items():
        network = row.network(carved.read)
        for part, images in (("test", carved.test), ("calibration", carved.calibration)):
            assert np.array_equal(scores_of(carved, name, part), scores_over(network, row.scores, carved.batches(images))), name


def test_temperatures_come_from_the_calibration_part_alone(carved):
    made = carved.artifact("calibration")
    judged = made.table("temperatures")
    aside = scores_of(carved, "osdtw", "calibration")
    labels, seed = carved.calibration.labels, carved.seed("calibration")
    again = calibration.judged_temperatures(aside, labels, carved.groups, rows(carved)["osdtw"].shares, seed)
    own = judged[judged["method"] == "osdtw"].reset_index(drop=True)
    np.testing.assert_allclose(own[["temperature", "low"]], again[["temperature", "low"]])
    assert own["used"].tolist() == again["used"].tolist() and own["used"].any()  # so short a training is underconfident
    unused = judged[~judged["used"].astype(bool)]
    correction = json.loads((made.folder / "correction.json").read_text())["methods"]
    assert all(correction[row.method]["temperatures"][row.group] == 1 for row in unused.itertuples())
    table = made.table("calibration")
    nll = table[(table["method"] == "osdtw") & (table["group"] == "all") & (table["measure"] == "nll")].iloc[0]
    assert nll["after"] < nll["before"] and nll["high"] < 0


def test_sets_on_the_test_set_are_counted_by_group(carved):
    table = carved.artifact("calibration").table("sets")
    assert table["coverage"].unique().tolist() == [80, 90, 95] and set(table["thresholds"]) == {"by class", "one for all"}
    p = calibration.probabilities(scores_of(carved, "osdtw"))
    aside = calibration.probabilities(scores_of(carved, "osdtw", "calibration"))
    own = [1 - aside[carved.calibration.labels == k, k] for k in range(10)]
    limits = np.array([np.sort(v)[int(np.ceil((len(v) + 1) * 0.9 - 1e-9)) - 1] for v in own])  # every class has nine
    inside = 1 - p <= limits
    inside[np.arange(len(p)), p.argmax(1)] = True
    found = table[(table["coverage"] == 90) & (table["thresholds"] == "by class") & (table["group"] == "all")].iloc[0]
    assert found["mean_size"] == pytest.approx(inside.sum(1).mean()) and found["how"] == "class 10"
    assert found["reached"] == pytest.approx(100 * inside[np.arange(len(p)), carved.test.labels].mean())


@pytest.mark.parametrize("method", ["osdtw", "ce"])
def test_the_predictor_corrects_and_names_the_same_classes(carved, method):
    predictor, pixels = load_predictor(carved.folder, method), carved.test.pixels
    plain = Predictor(predictor.row, predictor.network, about(carved, method))
    used = json.loads((carved.folder / "calibration" / "correction.json").read_text())["methods"][method]["temperatures"]
    assert np.array_equal(predictor(pixels).argmax(1), plain(pixels).argmax(1))
    expected = calibration.probabilities(calibration.scaled(scores_of(carved, method), carved.groups, used))
    np.testing.assert_allclose(predictor(pixels), expected, rtol=1e-3, atol=1e-6)
    assert np.allclose(predictor(pixels), plain(pixels)) == all(t == 1 for t in used.values())


def about(run, method):
    stage = "stage3" if method == "osdtw" else f"baselines/{method}"
    return json.loads((run.folder / stage / "predictor.json").read_text())


def test_the_predictors_sets_are_the_tables(carved):
    predictor = load_predictor(carved.folder)
    found = predictor.sets(carved.test.pixels)
    table = carved.artifact("calibration").table("sets")
    row = table[(table["coverage"] == 90) & (table["thresholds"] == "by class") & (table["group"] == "all")].iloc[0]
    assert np.mean([len(names) for names in found]) == pytest.approx(row["mean_size"], abs=0.03)  # float32, other batches
    held = [predictor.class_names[k] in names for k, names in zip(carved.test.labels, found)]
    assert 100 * np.mean(held) == pytest.approx(row["reached"], abs=1.01)
    likeliest = predictor(carved.test.pixels).argmax(1)
    assert all(names[0] == predictor.class_names[k] for k, names in zip(likeliest, found))
    assert predictor.sets(carved.test.pixels[:0]) == []
    wide, narrow = (predictor.sets(carved.test.pixels[:20], coverage) for coverage in (0.95, 0.6))
    assert all(set(a) <= set(b) for a, b in zip(narrow, wide)) and wide != narrow
    with pytest.raises(ValueError, match="coverage is a share"):
        predictor.sets(carved.test.pixels[:1], 90)


def test_an_old_correction_is_not_put_on_new_networks(carved, tmp_path):
    shutil.copytree(carved.folder, tmp_path / "old")
    (tmp_path / "old" / "stage2" / "manifest.json").unlink()
    assert load_correction(tmp_path / "old", "osdtw").temperatures is None
    assert load_correction(tmp_path / "old", "ce").temperatures is not None
    with pytest.raises(UserError, match="trained again after their calibration"):
        load_correction(tmp_path / "old", "osdtw").require_sets(0.9)
    raw = (tmp_path / "old" / "calibration" / "correction.json").read_bytes()
    (tmp_path / "old" / "calibration" / "correction.json").write_bytes(raw[:-9])
    with pytest.raises(UserError, match="calibration: .*correction.json.*--from 10"):
        load_correction(tmp_path / "old", "ce")


def test_no_correction_leaves_scores_as_they_are():
    scores = np.array([[1.0, 2.0]])
    assert Correction().scores(scores) is scores
    with pytest.raises(UserError, match="calibration.images"):
        Correction().sets(scores, 0.9)
    assert conformal.images_needed(0.9) == 9


@pytest.mark.parametrize("which", ["finished", "carved"])
def test_the_diagram_shows_what_the_table_holds(which, request):
    run = request.getfixturevalue(which)
    table = run.artifact("calibration").table("reliability")
    own = table[table["method"] == "osdtw"]
    assert own[(own["group"] == "all") & (own["when"] == "before")]["images"].sum() == len(run.test)
    figure = reliability(own, "OSDTW <b>refined")
    times = 2 if which == "carved" else 1
    assert len(figure.data) == own["group"].nunique() * (1 + times)
    assert "&lt;b&gt;" in figure.layout.title.text and "Reliability diagram" in figure.layout.meta["caption"]
