"""Parameter files: what is read, and one clear line with exit status 2 for each that cannot be."""

import pytest
import yaml
from pydantic import ValidationError

from osdtw_lib.config.load import dump_config, load_config
from osdtw_lib.errors import UserError


def written(tmp_path):
    outputs = tmp_path / "outputs"
    return [p for p in outputs.rglob("*") if p.is_file()] if outputs.exists() else []


BAD_VALUES = {
    "misspelt section": ({"stage_1.epochs": 3}, ["unknown key 'stage_1'", "'stage1'"]),
    "misspelt key": ({"stage1.epoch": 3}, ["unknown key 'stage1.epoch'", "'stage1.epochs'"]),
    "key without its section": ({"learning_rate": 1e-3}, ["unknown key 'learning_rate'", "'recipe.learning_rate'"]),
    "key like none": ({"zzz": 1}, ["unknown key 'zzz'"]),
    "text for a number": ({"stage1.epochs": "three"}, ["stage1.epochs", "'three'"]),
    "fraction for a count": ({"stage1.epochs": 2.5}, ["stage1.epochs", "2.5"]),
    "yes for a count": ({"stage1.epochs": True}, ["stage1.epochs"]),
    "quoted number": ({"recipe.batch_size": "32"}, ["recipe.batch_size"]),
    "number for a section": ({"stage1": 5}, ["stage1"]),
    "null": ({"recipe.weight_decay": None}, ["recipe.weight_decay"]),
    "number for a list": ({"data.mean": 0.1}, ["data.mean"]),
    "word in a list of numbers": ({"data.mean": ["a"]}, ["data.mean"]),
    "no epoch": ({"stage1.epochs": 0}, ["stage1.epochs"]),
    "infinite rate": ({"recipe.learning_rate": float("inf")}, ["recipe.learning_rate"]),
    "rate that is no number": ({"recipe.learning_rate": float("nan")}, ["recipe.learning_rate"]),
    "negative seed": ({"seed": -1}, ["seed"]),
    "name with a slash": ({"name": "a/b"}, ["name"]),
    "name that leaves the folder": ({"name": ".."}, ["name"]),
    "head weight above one": ({"selection.head_weight": 1.2}, ["selection.head_weight", "1.2"]),
    "head weight below zero": ({"selection.head_weight": -0.1}, ["selection.head_weight", "-0.1"]),
    "half a choice": ({"selection.shared_depth": None}, ["selection", "both"]),
    "negative depth": ({"selection.shared_depth": -1}, ["selection.shared_depth"]),
    "depth beyond the model": ({"selection.shared_depth": 4}, ["selection.shared_depth", "3 blocks", "4"]),
    "damping of no kind": ({"selection.damping": "evidense"}, ["selection.damping"]),
    "imbalance ratio below one": ({"data.imbalance_ratio": 0.5}, ["data.imbalance_ratio", "0.5"]),
    "imbalance that empties a class": ({"data.imbalance_ratio": 1000}, ["data", "ratio"]),
    "more images than a class has": ({"data.largest": 495}, ["data.largest", "500 images"]),
    "unknown data set": ({"data.dataset": "digit"}, ["data.dataset", "digits", "'digit'"]),
    "unknown likelihood": ({"likelihood": "gaussian"}, ["likelihood", "bernoulli", "categorical"]),
    "unknown baseline": ({"baselines": ["ce", "focall"]}, ["baselines", "focall"]),
    "token pooling without a token": ({"model.pooling": "token"}, ["class_token"]),
    "architecture timm does not know": ({"model.architecture": "vit_huge_patch999"}, ["model.architecture"]),
    "width that heads do not divide": ({"model.width": 15}, ["15"]),
    "two means for one channel": ({"data.mean": [0.1, 0.2]}, ["data.mean"]),
    "patches that do not cover the image": ({"model.patch_size": 16}, ["model", "image_size 28", "patch_size 16"]),
    "channels the images do not have": ({"model.channels": 3}, ["channels"]),
    "a proxy of tasks that learn from their own images": (
        {"stage1.samples": "own", "selection.shared_depth": None, "selection.head_weight": None},
        ["stage1.samples: own", "selection.shared_depth"],
    ),
    "channels no image file is read with": (
        {"data": {"dataset": "files", "train": "x", "mean": [0.5] * 4, "std": [0.5] * 4}, "model.channels": 4},
        ["model.channels", "grey (1) or colour (3)", "4"],
    ),
    "an image size the images do not have": ({"model.image_size": 56}, ["image_size"]),
}


@pytest.mark.parametrize("changes, words", BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_is_one_line_and_nothing_is_written(params, refused, tmp_path, changes, words):
    path = params(changes)
    line = refused("split", path)
    assert all(word in line for word in words), line
    assert written(tmp_path) == []


BAD_TEXT = {
    "empty": ("", ["empty"]),
    "comment alone": ("# nothing\n", ["empty"]),
    "list": ("- name\n- seed\n", ["key: value"]),
    "one word": ("name\n", ["key: value"]),
    "open bracket": ("name: x\ndata: [1, 2\n", ["line 3", "YAML"]),
    "two colons": ("name: x\nseed: 1: 2\n", ["line 2", "YAML"]),
    "tab": ("name: x\ndata:\n\tlargest: 3\n", ["line 3", "YAML"]),
    "key given twice": ("name: x\nseed: 1\nseed: 2\n", ["line 3", "'seed'", "twice"]),
    "nested key given twice": ("name: x\ndata:\n  largest: 1\n  largest: 2\n", ["line 4", "'largest'", "twice"]),
    "two documents": ("name: x\n---\nname: y\n", ["YAML"]),
    "list as a key": ("name: x\n? [1, 2]\n: 3\n", ["line 2", "YAML"]),
    "number as a key": ("name: x\n1: 2\ndata: {dataset: digits}\n", ["1"]),
    "object to construct": ("name: !!python/object:os.system x\n", ["line 1", "YAML"]),
    "date that does not exist": ("name: x\nseed: 2024-13-45\n", ["seed", "'2024-13-45'"]),
    "images of another size than the model's default": ("name: x\ndata: {dataset: digits}\n", ["28"]),
    "misspelt data": ("name: x\ndatta: {dataset: digits}\n", ["unknown key 'datta'", "'data'"]),
    "no data": ("name: x\n", ["'data' is missing"]),
    "no name": ("data: {dataset: digits}\n", ["'name' is missing"]),
}


@pytest.mark.parametrize("text, words", BAD_TEXT.values(), ids=BAD_TEXT)
def test_a_file_that_does_not_parse_is_one_line(tmp_path, refused, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    line = refused("split", path)
    assert str(path) in line and all(word in line for word in words), line


def test_a_missing_file_names_its_nearest_neighbour(params, refused):
    path = params()
    line = refused("split", path.with_name("smal.yaml"))
    assert "no such parameter file" in line and "did you mean" in line and "small.yaml" in line


def test_a_missing_folder_is_said_to_be_missing(tmp_path, refused):
    assert "nowhere does not exist" in refused("split", tmp_path / "nowhere" / "a.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00name", b"name: \x00x\n"])
def test_a_binary_file_is_refused(tmp_path, refused, content):
    (tmp_path / "a.yaml").write_bytes(content)
    assert "a.yaml" in refused("split", tmp_path / "a.yaml")


def test_a_folder_is_no_parameter_file(tmp_path, refused):
    assert "cannot be read" in refused("split", tmp_path)


SETS = {
    "unknown": ("stage1.epoch=3", ["unknown key 'stage1.epoch'", "'stage1.epochs'"]),
    "unknown section": ("stage9.epochs=3", ["unknown key 'stage9.epochs'"]),
    "no value": ("stage1.epochs", ["key=value"]),
    "no key": ("=3", ["key=value"]),
    "empty value": ("stage1.epochs=", ["stage1.epochs"]),
    "wrong type": ("stage1.epochs=many", ["stage1.epochs", "'many'"]),
    "not YAML": ("data.mean=[0.1", ["YAML"]),
    "section": ("stage1=3", ["stage1"]),
    "out of range": ("selection.head_weight=2", ["selection.head_weight"]),
    "warm-up without an end": ("stage1.warmup_epochs=3", ["stage1", "warmup_epochs is 3 of 2 epochs"]),
}


@pytest.mark.parametrize("override, words", SETS.values(), ids=SETS)
def test_a_bad_set_is_one_line(params, refused, tmp_path, override, words):
    line = refused("split", params(), "--set", override)
    assert all(word in line for word in words), line
    assert written(tmp_path) == []


def test_set_replaces_one_key_and_leaves_the_others(params):
    path = params()
    plain, changed = load_config(path), load_config(path, ["stage1.epochs=7", "recipe.learning_rate=2e-4"])
    assert (changed.stage1.epochs, changed.recipe.learning_rate) == (7, 2e-4)
    assert changed.model_copy(update={"stage1": plain.stage1, "recipe": plain.recipe}) == plain
    assert changed.stage1.warmup_epochs == plain.stage1.warmup_epochs


def test_set_may_name_a_section_the_file_leaves_out(params):
    assert load_config(params(), ["fisher.batch_size=8"]).fisher.batch_size == 8


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("1E-3", 1e-3), ("5e-4", 5e-4), (".5", 0.5), ("1", 1.0), ("2.", 2.0)])
def test_numbers_are_read_as_people_write_them(params, text, value):
    path = params()
    path.write_text(path.read_text().replace("recipe:", f"recipe:\n  learning_rate: {text}"))
    assert load_config(path).recipe.learning_rate == value


def test_a_whole_number_stays_one(params):
    assert load_config(params(), ["seed=12"]).seed == 12


def test_the_written_configuration_reads_back_as_itself(params, tmp_path):
    config = load_config(params({"recipe.learning_rate": 1e-7, "data.std": [0.25], "selection.damping": 1e-12}))
    again = tmp_path / "again.yaml"
    again.write_text(dump_config(config))
    assert load_config(again) == config


def test_a_configuration_cannot_be_changed(params):
    config = load_config(params())
    with pytest.raises(ValidationError):
        config.stage1.epochs = 9


def test_every_parameter_file_of_the_project_is_valid_and_named_as_its_file(project):
    files = sorted((project / "params").glob("*.yaml"))
    assert files
    for file in files:
        assert load_config(file).name == file.stem


def test_the_default_parameter_file_is_the_one_the_text_promises(project):
    config = load_config(project / "params" / "mnist_lt.yaml")
    assert (config.data.dataset, config.data.largest, config.data.imbalance_ratio) == ("digits", 400, 100)
    assert (config.data.test_per_class, config.model.depth, config.likelihood) == (100, 12, "bernoulli")


def test_a_relative_outputs_counts_from_the_project(params, project):
    assert load_config(params({"outputs": "outputs"})).folder == project / "outputs" / "small"


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_outputs_that_cannot_be_written_is_one_line(params, refused, tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    line = refused("split", params({"outputs": str(tmp_path / "file" / below)}))
    assert "cannot be written" in line and "outputs" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_device_that_is_not_there_is_one_line(params, refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "cuda" in refused("split", params({"device": "cuda"}))


def test_a_user_error_in_python_is_the_same_line(params):
    path = params({"stage1.epoch": 3})
    with pytest.raises(UserError, match="did you mean 'stage1.epochs'") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_shell_sees_one_line_and_status_2(params, python, tmp_path):
    done = python("-m", "osdtw_lib", "split", params({"stage1.epoch": 3}))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "did you mean 'stage1.epochs'" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert written(tmp_path) == []


def test_the_small_file_is_plain_yaml(params):
    assert yaml.safe_load(params().read_text())["name"] == "small"
