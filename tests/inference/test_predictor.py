"""The trained model on new images: Algorithm 1 with probabilities, from a folder of results."""

import json
import pathlib
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from osdtw_lib import load_predictor
from osdtw_lib.__main__ import main
from osdtw_lib.config.load import dump_config
from osdtw_lib.errors import UserError
from osdtw_lib.evaluation.scores import predict, scores_over
from osdtw_lib.inference.predictor import Predictor
from osdtw_lib.stages import execute
from osdtw_lib.stages.networks import rows
from osdtw_lib.stages.selection import selection


@pytest.fixture(scope="module")
def predictor(finished):
    return load_predictor(finished.folder)


def raw_scores(run, method="osdtw"):
    row = rows(run, selection(run)["shared_depth"])[method]
    return scores_over(row.network(run.read), row.scores, run.batches(run.test))


def test_probabilities_are_one_row_an_image_and_sum_to_one(predictor, finished):
    rows = predictor(finished.test.pixels[:7])
    assert rows.shape == (7, 10) and predictor.class_names == tuple("0123456789")
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-12)


def test_the_most_probable_class_is_algorithm_1s(predictor, finished):
    scores = raw_scores(finished)
    assert np.array_equal(predictor(finished.test.pixels).argmax(1), predict(scores))


def test_probabilities_are_the_softmax_of_both_heads_raw_scores(predictor, finished):
    odds = np.exp(raw_scores(finished).astype(np.float64))
    # the same float32 network on batches of another size
    np.testing.assert_allclose(predictor(finished.test.pixels), odds / odds.sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.journey
def test_with_the_categorical_likelihood_it_is_algorithm_1s_too(chain):
    run = chain({"likelihood": "categorical", "baselines": [], "stage0.epochs": 1, "stage3.epochs": 1})
    predictor = load_predictor(run.folder)
    rows = predictor(run.test.pixels)
    with torch.no_grad():
        logits = predictor.network(torch.cat([images for images, _ in run.batches(run.test)]))
    # head: classes 0 to 4, tail: 5 to 9; the last output of each is "the other group"
    odds = np.hstack([np.exp((t[:, :5] - t[:, 5:]).double().numpy()) for t in (logits["head"], logits["tail"])])
    assert np.array_equal(rows.argmax(1), predict(raw_scores(run)))
    assert rows.shape == (100, 10)
    np.testing.assert_allclose(rows, odds / odds.sum(1, keepdims=True), rtol=1e-4)


def test_arrays_tensors_and_picture_file_agree(predictor, finished):
    pixels = finished.test.pixels[:5]
    expected = predictor(pixels)
    assert np.array_equal(predictor(torch.from_numpy(pixels)), expected)
    assert np.array_equal(predictor([Image.fromarray(p[..., 0]) for p in pixels]), expected)
    assert np.array_equal(predictor([Image.fromarray(p[..., 0]).convert("RGB") for p in pixels]), expected)
    assert np.array_equal(predictor(pixels[::-1])[::-1], expected)


def test_images_of_another_size_are_resized(predictor, finished):
    large = finished.test.pixels[:3].repeat(2, axis=1).repeat(2, axis=2)
    expected = predictor([Image.fromarray(p[..., 0]) for p in large])
    assert np.array_equal(predictor(large), expected)
    assert np.array_equal(predictor(large.repeat(3, axis=3)), expected)


def test_no_image_gives_no_row(predictor):
    assert predictor([]).shape == (0, 10)
    assert predictor(np.zeros((0, 28, 28, 1), np.uint8)).shape == (0, 10)


WRONG = {
    "numbers with a point": np.zeros((2, 28, 28, 1)),
    "no batch": np.zeros((28, 28), np.uint8),
    "tensor": torch.zeros(1, 28, 28, 1),
    "half": torch.zeros(1, 28, 28, 1, dtype=torch.bfloat16),
    "two channels": np.zeros((1, 28, 28, 2), np.uint8),
    "channels first": np.zeros((1, 3, 28, 28), np.uint8),
    "no rows": np.zeros((1, 0, 28, 1), np.uint8),
    "one number": np.uint8(3),
    "list of arrays": [np.zeros((28, 28, 1), np.uint8)],
    "one image": Image.new("L", (28, 28)),
    "path": "image.png",
    "nothing": None,
    "an empty image": [Image.new("L", (0, 5))],
    "paths": [pathlib.Path("image.png")],
}


@pytest.mark.parametrize("images", WRONG.values(), ids=WRONG)
def test_images_of_another_kind_are_one_kind_of_error(predictor, images):
    with pytest.raises(ValueError, match="images are Pillow images in a list, or uint8 of shape .B, H, W, C.*, got") as caught:
        predictor(images)
    assert "\n" not in str(caught.value)


def cropping(predictor, run, share):
    """The same network, of whose images the middle is kept."""
    about = json.loads((run.folder / "stage3" / "predictor.json").read_text(encoding="utf-8"))
    return Predictor(predictor.row, predictor.network, about | {"crop_share": share})


def test_an_image_of_the_networks_size_is_cropped_as_an_array_and_as_a_picture(predictor, finished):
    pixels, half = finished.test.pixels[:3], cropping(predictor, finished, 0.5)
    expected = half([Image.fromarray(p[..., 0]) for p in pixels])
    assert np.array_equal(half(pixels), expected) and np.array_equal(half(torch.from_numpy(pixels)), expected)
    assert not np.array_equal(predictor(pixels), expected)


def test_the_callers_images_stay_as_they_are(predictor, finished):
    turned, clear = Image.fromarray(finished.test.pixels[0, ..., 0]).resize((40, 30)), Image.new("RGBA", (9, 9), (1, 2, 3, 4))
    turned.getexif()[0x0112] = 6
    before = [(image.mode, image.size, image.tobytes(), dict(image.getexif())) for image in (turned, clear)]
    predictor([turned, clear])
    assert [(image.mode, image.size, image.tobytes(), dict(image.getexif())) for image in (turned, clear)] == before


def test_images_may_come_one_after_another(predictor, finished):
    pixels = finished.test.pixels[:5]
    assert np.array_equal(predictor(Image.fromarray(p[..., 0]) for p in pixels), predictor(pixels))


@pytest.mark.parametrize("folder", ["~nobody_here", "x" * 300, "a\0b", "x" * 300 + ".yaml", "a\0b.yaml", "~nobody_here/a.yaml"])
def test_a_folder_no_system_has_is_one_line(folder):
    with pytest.raises(UserError) as caught:
        load_predictor(folder)
    assert "\n" not in str(caught.value)


def test_many_images_are_answered_as_few(predictor, finished):
    pixels = np.concatenate([finished.test.pixels] * 3)  # more than one batch
    np.testing.assert_allclose(predictor(pixels)[-5:], predictor(pixels[-5:]), rtol=1e-4)  # float32, other batch sizes


@pytest.fixture
def picture_file(finished, tmp_path):
    Image.fromarray(finished.test.pixels[0, ..., 0]).save(tmp_path / "0.png")
    return tmp_path / "0.png"


def test_a_folder_without_a_finished_run_is_told(tmp_path, picture_file, refused):
    assert "run ./run_all.sh" in refused("predict", tmp_path, picture_file)
    assert "run ./run_all.sh" in refused("predict", tmp_path / "nowhere", picture_file)


@pytest.mark.parametrize("file", ["network.safetensors", "predictor.json", "manifest.json"])
def test_a_damaged_run_is_refused(finished_copy, picture_file, refused, file):
    run = finished_copy()
    path = run.folder / "stage3" / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    line = refused("predict", run.folder, picture_file)
    assert "run ./run_all.sh" in line


def test_a_run_without_its_weights_is_refused(finished_copy):
    run = finished_copy()
    (run.folder / "stage3" / "network.safetensors").unlink()
    with pytest.raises(UserError, match="network.safetensors is missing"):
        load_predictor(run.folder)


def test_stages_of_different_trainings_make_no_network(finished_copy):
    run = finished_copy({"selection.head_weight": 0.7})
    for stage in ("proxy", "stage2"):
        execute(run, stage)
    with pytest.raises(UserError, match="stage2: it was made anew after Stage 3"):
        load_predictor(run.folder, "osdtw_assembled")
    assert load_predictor(run.folder).class_names == load_predictor(run.folder, "stage1").class_names


def test_a_predictor_needs_the_results_alone(finished_copy, finished, predictor, tmp_path):
    run = finished_copy()
    moved = run.folder.rename(tmp_path / "elsewhere")
    assert np.array_equal(load_predictor(moved)(finished.test.pixels[:4]), predictor(finished.test.pixels[:4]))
    assert np.array_equal(load_predictor(str(moved))(finished.test.pixels[:4]), predictor(finished.test.pixels[:4]))


def test_a_parameter_file_names_its_run(finished, predictor, tmp_path, picture_file, refused):
    file = tmp_path / "mine.yaml"
    file.write_text(dump_config(finished.config))
    assert np.array_equal(load_predictor(file)(finished.test.pixels[:4]), predictor(finished.test.pixels[:4]))
    file.write_text(dump_config(finished.config.model_copy(update={"name": "not_yet"})))
    assert "not_yet: no finished Stage 3 there" in refused("predict", file, picture_file)
    assert "no such parameter file" in refused("predict", tmp_path / "none.yaml", picture_file)


def test_values_other_than_those_trained_with_are_told(finished, predictor, tmp_path, picture_file, monkeypatch):
    changed = {"stage1": finished.config.stage1.model_copy(update={"epochs": 9}), "seed": 5}
    file = tmp_path / "mine.yaml"
    file.write_text(dump_config(finished.config.model_copy(update=changed)))
    with pytest.warns(UserWarning, match="seed 0 -> 5, stage1.epochs 2 -> 9") as told:
        found = load_predictor(file)(finished.test.pixels[:4])
    assert np.array_equal(found, predictor(finished.test.pixels[:4])) and len(told) == 1
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.warns(UserWarning, match="stage1.epochs 2 -> 9") as told:
        main(["predict", str(file), str(picture_file)])
    line = warnings.formatwarning(told[0].message, told[0].category, told[0].filename, told[0].lineno)
    assert line == f"warning: {told[0].message}\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_predictor(finished.folder)
        file.write_text(dump_config(finished.config))
        for row in ("osdtw", *finished.asked):
            load_predictor(file, row)


def test_shares_by_number_and_two_shares_of_one_class_are_refused(predictor, finished):
    for prior in ({0: 0.5, 1: 0.5}, pd.Series([0.5, 0.5])):
        with pytest.raises(UserError, match="no class is called 0"):
            predictor.mix(prior)
    with pytest.raises(UserError, match="two spellings of its name"):
        predictor.mix({"caf\u00e9": 0.5, "cafe\u0301": 0.5})


def test_what_is_no_longer_set_and_what_a_key_leaves_out_are_told_and_a_choice_by_hand_is_not(finished_copy, params):
    run = finished_copy()
    file = params({"stage2.learning_rate": 1e-3, "calibration.images": 0.2, "selection.shared_depth": 1})
    with pytest.warns(UserWarning) as told:
        load_predictor(file)
    (line,) = [str(one.message) for one in told]
    for change in ("stage2.learning_rate None -> 0.001", "calibration.images None -> 0.2", "shared_depth 2 -> 1"):
        assert change in line
    chosen = json.loads((run.folder / "selection.json").read_text())
    (run.folder / "selection.json").write_text(json.dumps(chosen | {"chosen_by": "hand"}))
    with pytest.warns(UserWarning) as told:
        load_predictor(file)
    assert "shared_depth" not in str(told[0].message)


def test_scores_are_those_of_the_table_and_a_prior_moves_them(predictor, finished):
    pixels = finished.test.pixels[:20]
    scores = predictor.scores(pixels)
    np.testing.assert_allclose(scores, raw_scores(finished)[:20], rtol=1e-4, atol=1e-5)
    odds = np.exp(scores.astype(np.float64)) * finished.class_counts
    np.testing.assert_allclose(predictor(pixels, prior="training"), odds / odds.sum(1, keepdims=True), rtol=1e-6)
    by_name = dict(zip(predictor.class_names, finished.class_counts / finished.class_counts.sum()))
    assert np.array_equal(predictor(pixels, prior=by_name), predictor(pixels, prior=list(by_name.values())))
    series = pd.Series(by_name).sort_values()  # as value_counts gives it: in an order of its own
    assert np.array_equal(predictor(pixels, prior=by_name), predictor(pixels, prior=series))
    with pytest.raises(UserError, match="a share is a number"):
        predictor(pixels, prior=by_name | {next(iter(by_name)): "a"})
    assert np.array_equal(predictor(pixels, prior="uniform").argmax(1), predictor(pixels).argmax(1))


def test_a_row_that_stands_for_the_training_shares_is_moved_from_there(finished):
    plain = load_predictor(finished.folder, "ce")
    pixels = finished.test.pixels[:20]
    np.testing.assert_allclose(plain(pixels, prior="training"), plain(pixels), rtol=1e-9)
    odds = plain(pixels) / finished.class_counts
    np.testing.assert_allclose(plain(pixels, prior="uniform"), odds / odds.sum(1, keepdims=True), rtol=1e-9)


def test_an_estimated_prior_says_what_makes_it_doubtful(predictor, finished):
    with pytest.warns(UserWarning, match="12 images of 10 classes"):
        rows = predictor(finished.test.pixels[:12], prior="estimate")
    np.testing.assert_allclose(rows.sum(1), 1)
    assert predictor([], prior="estimate").shape == (0, 10)
