"""The selection as a stage: who chooses, what is repeated where the choice changes, and that reading it writes nothing."""

import json
import shutil

import pytest

from osdtw_lib.errors import UserError
from osdtw_lib.stages import execute, open_run
from osdtw_lib.stages.selection import choose, choose_proposed, chosen, selection

BY_PROXY = {"selection.shared_depth": None, "selection.head_weight": None, "selection.form": "paper", "baselines": []}


def everything(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def runs(out):
    return [line.split(":")[0] for line in out.splitlines() if ": runs," in line]


@pytest.fixture(scope="module")
def picked(chain):
    """A run at the proxy's own pick."""
    return chain(BY_PROXY)


@pytest.fixture
def picked_copy(picked, params, tmp_path):
    shutil.copytree(picked.folder, tmp_path / "outputs" / "small")
    return lambda changes=None: open_run(params(BY_PROXY | (changes or {})))


@pytest.mark.journey
def test_a_new_proxy_that_chooses_the_same_repeats_no_training(picked_copy, capsys):
    run = picked_copy({"selection.damping": 0.01})  # the paper's form has none
    for stage in ("proxy", "stage2", "stage3", "tables"):
        execute(run, stage)
    assert runs(capsys.readouterr().out) == ["proxy", "selection", "tables"]


def test_another_depth_leaves_stage_2_and_another_weight_does_not(picked_copy, capsys):
    run = picked_copy()
    depth, weight = (selection(run)[key] for key in ("shared_depth", "head_weight"))
    choose(run, depth - 1, weight, "damped", 0.01)
    for stage in ("stage2", "stage3"):
        execute(run, stage)
    assert runs(capsys.readouterr().out) == ["selection", "stage3"]
    choose(run, depth - 1, 0.9, "damped", 0.01)
    for stage in ("stage2", "stage3"):
        execute(run, stage)
    assert runs(capsys.readouterr().out) == ["selection", "stage2", "stage3"]


def test_a_choice_by_hand_and_back_again_is_the_proxys(picked_copy, picked):
    run = picked_copy()
    by_hand = choose(run, 1, 0.25, "damped", 0.01)
    assert by_hand == selection(run) == json.loads((run.folder / "selection.json").read_text()) and by_hand["chosen_by"] == "hand"
    assert chosen(run)["head_weight"] == run.artifact("stage2").parameters["head_weight"] == 0.25
    assert choose_proposed(run) == selection(picked)
    assert run.artifact("stage3").why_not_done() is None


def test_reading_writes_nothing(picked_copy):
    run = picked_copy()
    (run.folder / "selection.json").write_text("{}")
    before = everything(run.folder)
    selection(run), chosen(run), run.artifact("stage3").why_not_done(), run.artifact("tables").why_not_done()
    (run.folder / "selection" / "manifest.json").unlink()
    with pytest.raises(UserError, match="04_proxy_explorer"):
        selection(run)
    with pytest.raises(UserError, match="selection.*04_proxy_explorer"):
        run.artifact("stage2")
    before.pop(run.folder / "selection" / "manifest.json")
    assert everything(run.folder) == before


def test_results_from_before_there_was_such_a_stage_are_recognised(picked_copy, capsys):
    run = picked_copy()
    shutil.rmtree(run.folder / "selection")
    for stage in ("proxy", "stage2", "stage3", "baselines", "tables"):
        execute(run, stage)
    out = capsys.readouterr().out
    assert runs(out) == ["selection"] and "put right" not in out


def test_an_edited_selection_is_put_right_by_whatever_needs_it(picked_copy, capsys):
    run = picked_copy()
    right = (run.folder / "selection.json").read_text()
    for stage in ("proxy", "selection", "stage2", "stage3", "tables"):
        (run.folder / "selection.json").write_text(right.replace('"chosen_by": "proxy"', '"chosen_by": "me"'))
        execute(run, stage)
        assert "put right" in capsys.readouterr().out and (run.folder / "selection.json").read_text() == right, stage


def test_at_a_fixed_choice_nothing_is_selected(picked_copy, tmp_path):
    run = picked_copy()
    shutil.rmtree(run.folder / "selection")
    elsewhere = run.at(
        {"shared_depth": 1, "head_weight": 0.8}, lambda name: tmp_path / name if name == "stage2" else run.place(name)
    )
    execute(elsewhere, "stage2")
    assert (tmp_path / "stage2" / "manifest.json").exists() and not (run.folder / "selection").exists()
    assert elsewhere.artifact("stage3").parameters["shared_depth"] == 1


@pytest.mark.parametrize("harm", ["folder", "bytes"])
def test_a_selection_that_cannot_be_read_is_made_again(finished_copy, finished, harm):
    run = finished_copy()
    for path in (run.folder / "selection" / "selection.json", run.folder / "selection.json"):
        if harm == "folder" and path.parent != run.folder:
            path.unlink()
            (path / "below").mkdir(parents=True)
        else:
            path.write_bytes(b"\xff" + path.read_bytes())
    execute(run, "selection")
    assert selection(run) == selection(finished)
    assert (run.folder / "selection.json").read_text() == (finished.folder / "selection.json").read_text()
