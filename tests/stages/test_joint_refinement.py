"""A run refined under one likelihood: what of it is another, and that a kill or a way back changes nothing."""

import shutil

import numpy as np
import pytest
import torch

from osdtw_lib import load_predictor
from osdtw_lib.config.load import dump_config
from osdtw_lib.evaluation.scores import predict
from osdtw_lib.methods import osdtw
from osdtw_lib.stages import execute, open_run
from osdtw_lib.stages.networks import titles_of
from osdtw_lib.stages.scores import scores_of

STAGES = ("split", "start", "stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3", "baselines", "tables")
JOINT = {"stage3.likelihood": "joint"}


def test_at_its_default_the_key_is_in_no_key_and_no_copy(finished):
    assert "likelihood" not in finished.artifact("stage3").parameters["stage3"]
    assert finished.config.stage3.likelihood == "separate" and "separate" not in dump_config(finished.config)


def test_it_makes_stage_3_and_the_tables_anew_says_so_and_back_again_the_same(finished_copy, finished, params, capsys):
    finished_copy()
    for changes, reason in ((JOINT, "unset -> joint"), ({}, "joint -> unset")):
        run = open_run(params(changes))
        capsys.readouterr()
        for stage in STAGES:
            execute(run, stage)
        out = capsys.readouterr().out
        assert [line.split(":")[0] for line in out.splitlines() if ": runs," in line] == ["stage3", "scores", "tables"]
        assert f"stage3: runs, stale: stage3.likelihood {reason}" in out
        title = "OSDTW refined jointly (ours)" if changes else "OSDTW refined"
        assert run.artifact("tables").notes()["titles"]["osdtw"] == titles_of(run)["osdtw"] == title
        predictor = load_predictor(run.folder)
        assert predictor.row.title == title
        assert np.array_equal(predictor(run.test.pixels).argmax(1), predict(scores_of(run, "osdtw")))
    for name in ("stage3/network.safetensors", "tables/accuracy.csv"):
        assert (run.folder / name).read_bytes() == (finished.folder / name).read_bytes()


def test_the_shared_encoder_stays_and_both_decoders_go_another_way_than_the_papers(finished_copy, finished):
    run = finished_copy(JOINT)
    execute(run, "stage3")
    joint, stage2 = (run.artifact(stage).tensors("network") for stage in ("stage3", "stage2"))
    separate = finished.artifact("stage3").tensors("network")
    shared = {f"head.{name}" for name in osdtw.two_branches(run.problem, 2).encoder_parameters()}
    assert shared and all(torch.equal(joint[name], stage2[name]) for name in shared) and joint.keys() == separate.keys()
    assert not any(torch.equal(joint[f"{task}.head.weight"], separate[f"{task}.head.weight"]) for task in ("head", "tail"))


def test_with_its_encoder_all_of_it_moves_and_the_row_says_so(finished_copy, finished, refused, params):
    run = finished_copy(JOINT | {"stage3.encoder": "trained"})
    for stage in ("stage3", "tables"):
        execute(run, stage)
    refined, stage2 = (run.artifact(stage).tensors("network") for stage in ("stage3", "stage2"))
    shared = {f"head.{name}" for name in osdtw.two_branches(run.problem, 2).encoder_parameters()}
    assert not any(torch.equal(refined[name], stage2[name]) for name in shared)
    predictor = load_predictor(run.folder)
    assert predictor.row.title == titles_of(run)["osdtw"] == "OSDTW refined jointly with its encoder (ours)"
    assert np.array_equal(predictor(run.test.pixels).argmax(1), predict(scores_of(run, "osdtw")))
    assert "encoder" not in finished.artifact("stage3").parameters["stage3"]
    assert "notebook 08 refines its cells on features" in refused("ablation", params({"stage3.encoder": "trained"}))


def test_stopped_under_mixup_it_goes_on_and_ends_bit_for_bit_the_same(params, stop_after, capsys):
    mixed = open_run(params(JOINT | {"recipe.mixup": 0.8, "recipe.cutmix": 1.0}))
    run = mixed.at({"shared_depth": 2, "head_weight": 0.4})
    for stage in ("split", "start", "stage1", "stage2", "stage3"):
        execute(run, stage)
    files = ("network.safetensors", "curves.csv", "predictor.json")
    whole = {name: (run.folder / "stage3" / name).read_bytes() for name in files}
    assert run.artifact("stage3").table("curves").columns.tolist() == ["epoch", "learning_rate", "joint"]
    shutil.rmtree(run.folder / "stage3")
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        execute(run, "stage3")
    execute(run, "stage3")
    assert "refinement: resumes after epoch 1 of 2" in capsys.readouterr().out
    assert {name: (run.folder / "stage3" / name).read_bytes() for name in files} == whole
