"""The whole way from images to tables on a tiny configuration: what each stage makes, from what, and when anew."""

import shutil
import json

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import write_small

from osdtw_lib.data.splits import index_hash
from osdtw_lib.evaluation.per_class import dense
from osdtw_lib.errors import UserError
from osdtw_lib import load_predictor
from osdtw_lib.methods import osdtw
from osdtw_lib.models.vit import depth_of
from osdtw_lib.report.written import is_of_another_run, remember
from osdtw_lib.stages import CONTENTS, execute, open_run, pipeline
from osdtw_lib.stages.proxy_inputs import load_proxy
from osdtw_lib.stages.run import module_of
from osdtw_lib.training.phase import means

SELECTED = {"shared_depth": 2, "head_weight": 0.4}
STAGES = [name for name, stage in CONTENTS.items() if not stage.optional]
METHODS = ("ce", "logit_adjusted_ce", "balanced_bce", "stage1", "stage2", "osdtw_assembled", "osdtw")
FROM_ALL_ROWS = ["scores", "tables", "class_mix", "calibration", "pictures"]
FOLDERS = ["split", "start", "stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3", "scores", "tables"]
FOLDERS += ["simulation", "label_dependence", "class_mix", "calibration", "pictures"]
FOLDERS += [f"baselines/{method}" for method in ("ce", "logit_adjusted_ce", "balanced_bce")]


def tensors(run, stage):
    return run.artifact(stage).tensors


def files(folder):
    """{name: bytes} of what a stage wrote, without the manifest, which holds times."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}


def same_results(folder, other):
    first, second = files(folder), files(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if first[name] != second[name]]
    assert [n for n in differing if n != "runtime.csv"] == []  # seconds differ


def encoder_depths(run):
    return {n: d for n, d in depth_of(run.vit(1)).items() if d <= run.n_depths}


# what is made -----------------------------------------------------------------------------------------------


def test_every_stage_is_done_and_says_so_when_called_again(finished, capsys):
    for stage in STAGES:
        execute(finished, stage)
    out = capsys.readouterr().out
    assert out.count("up to date") == len(FOLDERS) and "runs," not in out
    for folder in FOLDERS:
        assert (finished.folder / folder / "manifest.json").exists(), folder


def test_nothing_lies_around_after_a_run(finished):
    names = [p.name for p in finished.folder.rglob("*")]
    assert not [n for n in names if n.endswith((".part", ".checkpoint")) or n.startswith(".")]


def test_nothing_that_was_written_is_pickled(finished):
    assert {p.suffix for p in finished.folder.rglob("*") if p.is_file()} <= {".safetensors", ".csv", ".json", ".html"}


def test_the_split_keeps_its_indices_with_seed_and_hash(finished):
    made = finished.artifact("split")
    train, test = (made.tensors("indices")[n].numpy() for n in ("train", "test"))
    assert np.array_equal(train, finished.indices[0]) and np.array_equal(test, finished.indices[1])
    expected = {"indices_sha256": index_hash(train, test), "seed": 0, "caption": finished.caption}
    assert made.notes() == expected
    classes = made.table("classes")
    assert classes["training_images"].tolist() == finished.class_counts.tolist()


def test_stage_0_trains_the_encoder_and_tells_its_origin(finished):
    made = finished.artifact("start")
    fresh, now = dict(finished.vit(10).named_parameters()), made.tensors("weights")
    moved = [n for n, d in encoder_depths(finished).items() if not torch.equal(fresh[n].cpu(), now[n])]
    assert len(moved) == len(encoder_depths(finished))
    assert "masked autoencoding" in made.notes()["origin"] and "159 training images" in made.notes()["origin"]


def captured_training(monkeypatch, run, stage):
    """The arguments with which a stage would train."""
    taken = {}

    class Enough(Exception):
        pass

    def take(model, phase, batches, *_):
        losses = lambda images, labels: means(phase, model, phase.part_of(images, labels))  # noqa: E731
        taken.update(model=model, losses=losses, batches=batches)
        raise Enough

    monkeypatch.setattr(pipeline, "fit", take)
    with pytest.raises(Enough):
        execute(run, stage)
    return taken["model"], taken["losses"], taken["batches"]


def first_part(batches):
    part = next(next(batches.epoch(0)))
    return part.images, part.labels


def test_both_tasks_start_from_the_same_encoder(finished_copy, monkeypatch):
    run = finished_copy({"stage1.epochs": 3})
    networks, _, _ = captured_training(monkeypatch, run, "stage1")
    start = run.artifact("start").tensors("weights")
    for name in encoder_depths(run):
        for task in ("head", "tail"):
            assert torch.equal(dict(networks[task].named_parameters())[name].cpu(), start[name]), (task, name)


def test_stage_1_is_minus_the_mean_log_likelihood_of_each_task(finished_copy, monkeypatch):
    run = finished_copy({"stage1.epochs": 3})
    networks, losses, batches = captured_training(monkeypatch, run, "stage1")
    images, labels = first_part(batches)
    networks.eval()
    for task, loss in losses(images, labels).items():
        each = run.likelihoods[task](networks[task](images), labels)
        torch.testing.assert_close(loss, -each.mean())


def test_with_samples_own_a_task_learns_from_its_own_classes_alone(finished_copy, monkeypatch):
    run = finished_copy({"stage1.samples": "own"})
    networks, losses, batches = captured_training(monkeypatch, run, "stage1")
    images, labels = first_part(batches)
    networks.eval()
    for task, loss in losses(images, labels).items():
        mine = np.isin(labels.cpu().numpy(), run.partition[task])
        assert 0 < mine.sum() < len(mine)
        each = run.likelihoods[task](networks[task](images[mine]), labels[mine])
        torch.testing.assert_close(loss, -each.mean(), rtol=1e-5, atol=1e-5)  # float32 over batches of other sizes


def test_stage_2_weighs_the_two_tasks_with_the_selected_weights(finished_copy, monkeypatch):
    run = finished_copy({"stage2.epochs": 3})
    network, losses, batches = captured_training(monkeypatch, run, "stage2")
    images, labels = first_part(batches)
    network.eval()
    logits = network(images)
    for task, weight in (("head", 0.4), ("tail", 0.6)):
        expected = -weight * run.likelihoods[task](logits[task], labels).mean()
        torch.testing.assert_close(losses(images, labels)[task], expected)


@pytest.mark.parametrize("stage", ["stage2", "baselines"])
def test_later_trainings_see_the_batches_of_stage_1_and_its_start(finished_copy, monkeypatch, stage):
    run = finished_copy({"stage1.epochs": 3, "stage2.epochs": 3, "selection.form": "damped"})
    _, _, first = captured_training(monkeypatch, finished_copy({"stage1.epochs": 3}), "stage1")
    model, _, other = captured_training(monkeypatch, finished_copy({"stage2.epochs": 3}), stage)
    for (one,), (two,) in zip(first.epoch(1), other.epoch(1), strict=True):
        assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)
    start = run.artifact("start").tensors("weights")
    branches = [model.head, model.tail] if stage == "stage2" else [model]
    for branch in branches:
        for name, parameter in branch.named_parameters():
            if name in encoder_depths(run):
                assert torch.equal(parameter.cpu(), start[name]), name


def test_stage_2_shares_the_whole_encoder(finished):
    names = set(tensors(finished, "stage2")("network"))
    assert not [n for n in names if n.removeprefix("tail.") in encoder_depths(finished)]


def test_the_fisher_has_every_parameter_of_its_network(finished):
    for task in ("head", "tail"):
        network, fisher = tensors(finished, "stage1")(task), tensors(finished, "fisher")(task)
        assert network.keys() == fisher.keys()
        assert all(fisher[n].shape == network[n].shape and (fisher[n] >= 0).all() for n in network)


def test_the_assembled_network_is_stage_2_below_and_stage_1_above(finished):
    network = osdtw.Assembled(finished.problem, SELECTED["shared_depth"]).network(finished.read)
    joint, alone = tensors(finished, "stage2")("network"), {t: tensors(finished, "stage1")(t) for t in ("head", "tail")}
    for task in ("head", "tail"):
        for name, parameter in getattr(network, task).named_parameters():
            shared = depth_of(network.head)[name] <= SELECTED["shared_depth"]
            expected = joint[f"head.{name}"] if shared else alone[task][name]
            assert torch.equal(parameter.cpu(), expected), (task, name)


def test_refinement_leaves_the_shared_encoder_bit_for_bit_and_moves_every_decoder_block(finished):
    refined, joint = tensors(finished, "stage3")("network"), tensors(finished, "stage2")("network")
    alone = {t: tensors(finished, "stage1")(t) for t in ("head", "tail")}
    depths = depth_of(finished.vit(1))
    shared = {n for n, d in depths.items() if d <= SELECTED["shared_depth"]}
    assert shared and refined.keys() == {f"head.{n}" for n in depths} | {f"tail.{n}" for n in depths.keys() - shared}
    for name in refined:
        task, own = name.split(".", 1)
        if own in shared:
            assert torch.equal(refined[name], joint[name]), name
        else:
            assert not torch.equal(refined[name], alone[task][own]), name


def test_the_tables_have_every_method_in_order(finished):
    table = pd.read_csv(finished.folder / "tables" / "accuracy.csv")
    further = ["class_mean", "worst_class", "harmonic_groups"]
    assert table.columns.tolist() == ["method", "many", "medium", "few", "all", "seed", *further]
    assert tuple(table["method"]) == METHODS
    assert table["all"].between(0, 100).all() and (table["seed"] == 0).all()
    assert table["many"].isna().all()  # the largest class of the tiny set has 40 images
    confusion = dense(finished.artifact("tables").table("confusion"), finished.class_names)
    assert confusion.sum(1).tolist() == [10] * 10
    assert table.set_index("method")["all"]["osdtw"] == pytest.approx(100 * np.trace(confusion) / 100)
    assert table["class_mean"].to_numpy() == pytest.approx(table["all"].to_numpy())  # as many test images of each class
    predictions = finished.artifact("tables").table("predictions")
    assert predictions["label"].tolist() == finished.test.labels.tolist() and "file" not in predictions
    assert np.trace(confusion) == (predictions["label"] == predictions["predicted"]).sum()


def test_the_run_time_table_has_a_row_a_stage_and_their_sum(finished):
    table = pd.read_csv(finished.folder / "tables" / "runtime.csv").set_index("stage")
    assert {"start", "stage1", "fisher", "search", "stage2", "refinement", "baselines", "total"} <= set(table.index)
    for column in table:
        assert (table[column] >= 0).all()
        assert table[column]["total"] == pytest.approx(table[column].drop("total").sum(), abs=0.005 * len(table))  # rounded
    passes, epochs = table["passes"], finished.config.stage1.epochs
    assert passes["stage1"] == pytest.approx(2 * epochs, rel=0.1)  # two networks; no gradient of an image is needed
    assert passes["baselines"] == pytest.approx(len(finished.methods) * finished.config.stage2.epochs, rel=0.1)
    assert passes["search"] == 0 and 0 < passes["refinement"] < finished.config.stage3.epochs * 2


def test_the_selection_is_the_one_the_parameter_file_names(finished):
    shown = json.loads((finished.folder / "selection.json").read_text())
    assert {"shared_depth", "head_weight", "form", "damping"} <= shown.keys()
    assert {k: shown[k] for k in SELECTED} == SELECTED and shown["chosen_by"] == "parameters"


def test_the_table_of_contents_and_the_methods_names_wait_for_no_library(python):
    code = "import sys, osdtw_lib.__main__ as m, osdtw_lib.methods as k; m._parser(); k.names()\n"
    code += "print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert python("-c", code).stdout == "[]\n"


def test_every_stage_says_what_is_in_its_key_and_is_named_after_its_file(project):
    files = {p.stem for p in (project / "osdtw_lib" / "stages").glob("*.py")}
    files -= {"__init__", "run", "pipeline", "networks", "proxy_inputs", "side_by_side"}
    assert files == {name for name, stage in CONTENTS.items() if stage.room == "stages"}
    assert all(hasattr(module_of(name), "parameters") and hasattr(module_of(name), "make") for name in CONTENTS)
    order = list(CONTENTS)
    assert all(order.index(need) < order.index(name) for name, stage in CONTENTS.items() for need in stage.needs)


# the same again ---------------------------------------------------------------------------------------------


@pytest.mark.journey
def test_the_same_seed_gives_the_same_results_whatever_threads_there_are(finished, chain):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        again = chain()
    finally:
        torch.set_num_threads(threads)
    shutil.rmtree(again.folder / "simulation")  # it was a copy
    execute(again, "simulation")
    for folder in FOLDERS:
        same_results(again.folder / folder, finished.folder / folder)


def test_another_seed_gives_another_split_start_and_batches(finished, params):
    other = open_run(params({"seed": 1}))
    assert not np.array_equal(other.indices[0], finished.indices[0])
    assert not torch.equal(other.vit(2).head.weight, finished.vit(2).head.weight)
    assert not torch.equal(*(first_part(run.batches(run.train))[1] for run in (other, finished)))


VARIANTS = {
    "categorical, chosen by the proxy": {
        "likelihood": "categorical",
        "selection.shared_depth": None,
        "selection.head_weight": None,
        "selection.form": "damped",
    },
    "own samples, decoders of stage 2, from scratch, one baseline": {
        "stage1.samples": "own",
        "stage3.decoders": "stage2",
        "model.init": "scratch",
        "baselines": ["balanced_bce"],
    },
    "class token, three classes in the head, nothing shared, no baseline": {
        "head_share": 0.3,
        "model.class_token": True,
        "model.pooling": "token",
        "selection.shared_depth": 0,
        "baselines": [],
    },
    "everything shared, refined jointly, bfloat16": {
        "selection.shared_depth": 3,
        "stage3.likelihood": "joint",
        "recipe.precision": "bf16",
    },
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, chain):
    return VARIANTS[request.param], chain(VARIANTS[request.param])


@pytest.mark.journey
def test_every_variant_runs_to_its_tables(variant):
    changes, run = variant
    table = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")["all"]
    assert tuple(table.index) == (*changes.get("baselines", METHODS[:3]), *METHODS[3:]) and table.notna().all()
    heads = round(10 * changes.get("head_share", 0.5))
    for task, classes in (("head", heads), ("tail", 10 - heads)):
        outputs = tensors(run, "stage1")(task)["head.weight"].shape[0]
        assert outputs == classes + (changes.get("likelihood") == "categorical")
    assert len(load_predictor(run.folder).row.problem.partition["head"]) == heads


@pytest.mark.journey
def test_every_variant_selects_as_its_file_says(variant):
    changes, run = variant
    shown = json.loads((run.folder / "selection.json").read_text())
    if "likelihood" in changes:
        assert shown["chosen_by"] == "proxy" and shown["form"] == "damped"
        grid = pd.read_csv(run.folder / "proxy" / "grid.csv").query("form == 'damped'")
        best = grid.loc[grid["total"].idxmin()]
        assert (shown["shared_depth"], shown["head_weight"]) == (best["shared_depth"], best["head_weight"])
    else:
        assert shown["shared_depth"] == changes.get("selection.shared_depth", 2)


def test_decoders_of_stage_2_are_stage_2s(finished_copy):
    run = finished_copy({"stage3.decoders": "stage2"})
    network, joint = osdtw.Assembled(run.problem, 2).network(run.read), tensors(run, "stage2")("network")
    for task in ("head", "tail"):
        for name, parameter in getattr(network, task).named_parameters():
            assert torch.equal(parameter.cpu(), joint.get(f"{task}.{name}", joint[f"head.{name}"])), name


def test_from_scratch_the_start_is_random_weights_of_the_seed(params, capsys):
    run = open_run(params({"model.init": "scratch", "seed": 5}))
    execute(run, "split")
    start = execute(run, "start")
    fresh = dict(run.vit(10).named_parameters())
    assert all(torch.equal(fresh[n].cpu(), t) for n, t in start.tensors("weights").items())
    assert start.notes()["origin"] == "random weights of seed 5"


def test_given_weights_are_the_start_and_a_changed_file_is_seen(finished_copy, finished, tmp_path):
    from safetensors.torch import save_file

    given = tmp_path / "given.safetensors"
    save_file(finished.artifact("start").tensors("weights"), given)
    run = finished_copy({"model.init": str(given)})
    start = execute(run, "start")
    assert "given.safetensors" in start.notes()["origin"]
    for name in encoder_depths(run):
        assert torch.equal(start.tensors("weights")[name], finished.artifact("start").tensors("weights")[name])
    changed = {n: t + 1 for n, t in finished.artifact("start").tensors("weights").items()}
    save_file(changed, given)
    assert "stale: weights" in finished_copy({"model.init": str(given)}).artifact("start").why_not_done()


# what runs anew, and why ------------------------------------------------------------------------------------


def test_a_changed_number_of_epochs_is_the_reason_given(finished_copy, capsys):
    execute(finished_copy({"stage1.epochs": 3}), "stage1")
    assert "stage1: runs, stale: stage1.epochs 2 -> 3" in capsys.readouterr().out


STALE = {
    "stage3.epochs": (3, {"stage3"}),
    "stage3.likelihood": ("joint", {"stage3"}),
    "selection.head_weight": (0.5, {"proxy", "selection", "stage2", "stage3"}),
    "selection.shared_depth": (1, {"proxy", "selection", "stage3"}),
    "selection.damping": (0.01, {"proxy", "selection", "label_dependence"}),  # chosen is the same: nothing is trained again
    "stage2.epochs": (3, {"stage2", "stage3", "baselines/ce"}),
    "stage1.epochs": (3, {"stage1", "fisher", "direct", "proxy", "selection", "stage3", "label_dependence"}),
    "likelihood": ("categorical", {"stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3", "label_dependence"}),
    "head_share": (0.4, {"stage1", "fisher", "direct", "proxy", "selection", "stage2", "stage3", "label_dependence"}),
    "stage0.epochs": (
        3,
        set(FOLDERS) - {"split", *FROM_ALL_ROWS, "simulation", "baselines/logit_adjusted_ce", "baselines/balanced_bce"},
    ),
    "fisher.batch_size": (7, set()),
    "theory.repetitions": (500, {"simulation"}),
    "theory.images": (30, {"label_dependence"}),
    "device": ("cpu", set()),
}


@pytest.mark.parametrize("key", STALE)
def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(finished_copy, key):
    value, expected = STALE[key]
    run = finished_copy({key: value})
    apart = (*FROM_ALL_ROWS, "baselines/logit_adjusted_ce", "baselines/balanced_bce")
    checked = [f for f in FOLDERS if f not in apart]
    stale = {f for f in checked if run.artifact(f).why_not_done()}
    assert stale == expected


def test_changing_stage_3_alone_runs_stage_3_alone(finished_copy, capsys):
    run = finished_copy({"stage3.epochs": 1})
    for stage in STAGES:
        execute(run, stage)
    out = capsys.readouterr().out
    assert "stage3: runs, stale: stage3.epochs 2 -> 1" in out
    assert [line.split(":")[0] for line in out.splitlines() if ": runs," in line] == ["stage3", *FROM_ALL_ROWS]


def test_scores_are_made_where_tables_lack_them_and_not_for_tables_that_are_done(finished_copy, finished, capsys):
    run = finished_copy()
    shutil.rmtree(run.folder / "scores")
    for stage in ("tables", "class_mix", "calibration"):
        execute(run, stage)
    assert "runs," not in capsys.readouterr().out and not (run.folder / "scores").exists()
    notebook = run.folder / "06_stage3_tables.ipynb"
    notebook.write_text("{}")
    shutil.copytree(finished.folder / "scores", run.folder / "scores")
    remember(notebook)
    shutil.rmtree(run.folder / "scores")
    assert not is_of_another_run(notebook)
    shutil.rmtree(run.folder / "class_mix")
    execute(run, "class_mix")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if "runs," in line] == ["scores", "class_mix"]
    for stage in ("scores", "class_mix"):
        same_results(run.folder / stage, finished.folder / stage)


def test_a_stage_without_its_predecessor_names_the_notebook_to_run(finished_copy, refused):
    run = finished_copy()
    path = write_small(run.folder.parents[1])
    for stage, gone, notebook in (
        ("tables", "stage3", "06_stage3_tables"),
        ("stage3", "stage2", "05_stage2_joint"),
        ("stage2", "proxy", "04_proxy_explorer"),
        ("label_dependence", "fisher", "03_stage1_fisher"),
        ("fisher", "stage1", "03_stage1_fisher"),
        ("baselines", "start", "02_starting_point"),
        ("stage1", "baselines", "02_starting_point"),
        ("start", "split", "01_data_split"),
        ("tables", "", "01_data_split"),
    ):
        for folder in (gone, stage, "selection"):
            shutil.rmtree(run.folder / folder, ignore_errors=True)
        assert f": no result yet; run notebook {notebook} first" in refused(stage, path), stage


# damage -----------------------------------------------------------------------------------------------------


def turn_a_bit(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_every_file_of_every_stage_is_watched(finished_copy):
    run = finished_copy()
    for folder in FOLDERS:
        if folder == "tables":
            continue
        artifact = run.artifact(folder)
        for name in artifact.manifest()["files"]:
            path = artifact.folder / name
            whole = path.read_bytes()
            path.write_bytes(whole[:-1])
            assert name in artifact.why_not_done(), path
            path.write_bytes(whole)
        assert artifact.why_not_done() is None


@pytest.mark.parametrize(
    "file", ["split/indices.safetensors", "stage3/network.safetensors", "tables/accuracy.csv", "proxy/selection.json"]
)
def test_a_damaged_result_is_made_again_and_comes_out_the_same(finished_copy, finished, capsys, file):
    run, (folder, name) = finished_copy(), file.split("/")
    turn_a_bit(run.folder / file)
    execute(run, folder)
    assert f"{folder}: runs, {name} was changed" in capsys.readouterr().out
    same_results(run.folder / folder, finished.folder / folder)


@pytest.mark.parametrize(
    "file, stage",
    [
        ("split/indices.safetensors", "start"),
        ("start/weights.safetensors", "stage1"),
        ("start/weights.safetensors", "stage2"),
        ("start/weights.safetensors", "baselines"),
        ("stage1/head.safetensors", "fisher"),
        ("stage1/head.safetensors", "direct"),
        ("stage1/tail.safetensors", "proxy"),
        ("start/weights.safetensors", "proxy"),
        ("fisher/head.safetensors", "direct"),
        ("fisher/tail.safetensors", "proxy"),
        ("direct/bias.csv", "proxy"),
        ("proxy/selection.json", "selection"),
        ("stage2/network.safetensors", "stage3"),
        ("stage1/tail.safetensors", "stage3"),
        ("stage3/network.safetensors", "tables"),
        ("baselines/ce/network.safetensors", "tables"),
        ("stage2/network.safetensors", "tables"),
    ],
)
def test_damaged_input_is_refused_not_used(finished_copy, file, stage):
    run = finished_copy()
    turn_a_bit(run.folder / file)
    folder = {"baselines": "baselines/ce"}.get(stage, stage)
    (run.folder / folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=file.split("/")[-1]):
        execute(run, stage)


def test_a_start_made_with_other_parameters_is_not_used(finished_copy):
    execute(finished_copy({"stage0.epochs": 1}), "start")
    run = finished_copy()
    assert run.artifact("fisher").why_not_done() is None
    with pytest.raises(UserError, match="stage0.epochs 1 -> 2"):
        load_proxy(run)


def test_an_edited_selection_is_put_right_and_not_used(finished_copy, finished, capsys):
    run = finished_copy({"stage2.epochs": 1})
    shown = run.folder / "selection.json"
    right = shown.read_text()
    shown.write_text(right.replace("0.4", "0.9"))
    execute(run, "stage2")
    assert "put right" in capsys.readouterr().out and shown.read_text() == right
    assert run.artifact("stage2").why_not_done() is None and run.artifact("stage2").parameters["head_weight"] == 0.4


@pytest.mark.parametrize("folder", ["proxy", "selection"])
def test_an_edited_manifest_of_the_selection_is_not_believed(finished_copy, capsys, folder):
    run = finished_copy()
    choice, manifest = run.folder / folder / "selection.json", run.folder / folder / "manifest.json"
    right = choice.read_text()
    choice.write_text(right.replace("0.4", "0.9"))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"files": {}}))
    if folder == "selection":  # made again on the way, from the proxy
        execute(run, "stage2")
        assert "selection: runs, its manifest is damaged" in capsys.readouterr().out and choice.read_text() == right
        return
    (run.folder / "selection" / "manifest.json").unlink()
    with pytest.raises(UserError, match="proxy.*damaged"):
        execute(run, "stage2")
