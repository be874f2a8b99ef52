"""Rows of the verdict as files: read as they were written, and taken where they were measured on the same."""

import json

import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.errors import UserError
from osdtw_lib.stages.run import Run
from osdtw_lib.verdict.rows import KEYS, digest, fingerprints, read, taken
from osdtw_lib.verdict.seed_run import seed_run

ON = {"data": "d", "test": "t", "training": "u", "start": "s"}


@pytest.fixture
def row(tmp_path):
    """row({...}) writes a row file with these values replaced, its digest right, and returns its path."""

    def write(changes=None, name="row"):
        made = dict.fromkeys(KEYS - {"sha256"}) | {"format": 1, "row": "ce", "seed": 3, "measured_on": ON, "predicted": [1, 0]}
        made |= {"budget": "epochs", "parameters": {"method": {"tau": 1.0}}} | (changes or {})
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(made | {"sha256": digest(made)}, indent=1))
        return path

    return write


def test_a_row_is_read_as_it_was_written(row):
    path = row()
    assert read(path) == [json.loads(path.read_text())]
    (found,) = taken(path, {3: ON}, {"ce": {"tau": 1.0}})
    assert found["row"] == "ce"


@pytest.fixture
def bundle(row, tmp_path):
    """A file of rows of ce at seeds 3 and 4."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([json.loads(row({"seed": seed}).read_text()) for seed in (3, 4)]))
    return path


def test_a_file_of_many_rows_gives_those_of_the_seeds_asked_for(bundle):
    assert [one["seed"] for one in taken(bundle, {3: ON, 4: ON}, {})] == [3, 4]
    assert [one["seed"] for one in taken(bundle, {4: ON, 5: ON}, {})] == [4]
    with pytest.raises(UserError, match=r"seed 3, 4 is none of verdict.seeds \[0\]"):
        taken(bundle, {0: ON}, {})


def test_one_edited_row_of_many_is_named(bundle):
    bundle.write_text(bundle.read_text().replace('"seed": 4', '"seed": 5'))
    with pytest.raises(UserError, match=r"rows\.json: ce, seed 5: is not as it was written"):
        read(bundle)


@pytest.mark.parametrize("damage", [lambda text: text.replace("1,", "0,", 1), lambda text: text.replace('"ce"', '"la"')])
def test_an_edited_row_is_refused(row, damage):
    path = row()
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"row\.json: (.*is not as it was written|is no row file of this version)"):
        read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "[" * 100_000])
def test_what_is_no_row_is_refused(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(UserError, match=r"odd\.json: is no row file"):
        read(tmp_path / "odd.json")


def test_a_file_there_is_not_is_named(tmp_path):
    with pytest.raises(UserError, match=r"verdict\.others: .*none\.json: No such file"):
        read(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"^verdict\.others: ~nobody_here/x\.json: "):
        read("~nobody_here/x.json")


@pytest.mark.parametrize("what", list(ON))
def test_a_row_measured_on_something_else_is_refused_by_name(row, what):
    with pytest.raises(UserError, match=f"ce was measured on other {what} than here"):
        taken(row({"measured_on": ON | {what: "other"}}), {3: ON}, {})


def test_a_row_of_another_seed_is_refused(row):
    with pytest.raises(UserError, match=r"seed 3 is none of verdict.seeds \[0, 1\]"):
        taken(row(), {0: ON, 1: ON}, {})


def test_a_row_of_other_parameters_is_refused(row):
    with pytest.raises(UserError, match=r"ce was trained with {'tau': 1.0}, not as here"):
        taken(row(), {3: ON}, {"ce": {"tau": 2.0}})
    assert len(taken(row(), {3: ON}, {"another": {}})) == 1


@pytest.mark.parametrize("budget", ["epochs", "tuned"])
def test_a_row_of_a_method_file_that_was_edited_is_refused(row, budget):
    path = row({"row": "mine", "budget": budget, "parameters": {"method": {"tau": 1.0, "file_sha256": "before"}}})
    assert len(taken(path, {3: ON}, {"mine": {"tau": 1.0, "file_sha256": "before"}})) == 1
    with pytest.raises(UserError, match="mine was trained with .*'before'.*, not as here"):
        taken(path, {3: ON}, {"mine": {"tau": 1.0, "file_sha256": "after"}})
    unknown = row({"row": "mine", "budget": budget, "parameters": {"method": {"tau": 1.0}}})
    with pytest.raises(UserError, match="not as here"):
        taken(unknown, {3: ON}, {"mine": {"tau": 1.0, "file_sha256": "after"}})


def test_a_tuned_row_keeps_the_values_chosen_there(row):
    assert len(taken(row({"budget": "tuned"}), {3: ON}, {"ce": {"tau": 2.0}})) == 1


def test_a_choice_by_hand_is_no_row_for_others(row):
    choice = {"by_hand": {"shared_depth": 2, "head_weight": 0.3}}
    with pytest.raises(UserError, match="osdtw stands on a choice made by hand there, .*0.3"):
        taken(row({"row": "osdtw", "parameters": {"method": {}} | choice}), {3: ON}, {})


def test_how_pixels_are_seen_is_named_where_it_is_not_the_usual_way(row, params):
    run = Run(load_config(params()))
    assert "pixels" not in fingerprints(seed_run(run, 0))
    otherwise = [fingerprints(seed_run(Run(load_config(params({"data.mean": [m]}))), 0))["pixels"] for m in (0.5, 0.6)]
    assert otherwise[0] != otherwise[1]
    for on, here in ((ON | {"pixels": "p"}, ON), (ON, ON | {"pixels": "p"})):
        with pytest.raises(UserError, match="ce was measured on other pixels than here"):
            taken(row({"measured_on": on}), {3: here}, {})
