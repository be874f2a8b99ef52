"""The trained model on new images: Algorithm 1 with probabilities, from a folder of results."""


import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_lib import load_predictor
from osdtw_lib.config.load import dump_config
from osdtw_lib.errors import UserError
from osdtw_lib.evaluation.scores import predict, scores_over
from osdtw_lib.inference.predictor import predict_files
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


def test_arrays_tensors_and_pictures_agree(predictor, finished):
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


@pytest.mark.parametrize("images", [np.zeros((2, 28, 28, 1)), np.zeros((28, 28), np.uint8), torch.zeros(1, 28, 28, 1)])
def test_an_array_of_another_kind_is_refused(predictor, images):
    with pytest.raises(ValueError, match="uint8"):
        predictor(images)


def test_many_images_are_answered_as_few(predictor, finished):
    pixels = np.concatenate([finished.test.pixels] * 3)  # more than one batch
    np.testing.assert_allclose(predictor(pixels)[-5:], predictor(pixels[-5:]), rtol=1e-4)  # float32, other batch sizes


@pytest.fixture
def pictures(finished, tmp_path):
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(finished.test.pixels[i, ..., 0]).save(files[-1])
    return files


def test_the_command_line_prints_file_class_and_probability(predictor, finished, pictures, command):
    status, out, err = command("predict", finished.folder, *pictures)
    assert (status, err) == (0, "")
    expected = predictor(finished.test.pixels[:3])
    for line, file, row in zip(out.splitlines(), pictures, expected, strict=True):
        assert line.split("\t") == [str(file), str(row.argmax()), f"{row.max():.4f}"]


def test_the_command_line_prints_the_likeliest_classes_first(finished, pictures, command):
    _, out, _ = command("predict", "--top", 3, finished.folder, pictures[0])
    probabilities = [float(line.split("\t")[2]) for line in out.splitlines()]
    assert len(probabilities) == 3 and probabilities == sorted(probabilities, reverse=True)


def test_a_shell_prints_the_same(finished, pictures, python, command):
    done = python("-m", "osdtw_lib", "predict", finished.folder, *pictures)
    assert done.returncode == 0, done.stderr
    assert done.stdout == command("predict", finished.folder, *pictures)[1]


def test_an_image_that_is_not_there_is_named(finished, tmp_path, refused):
    assert "none.png: no such image" in refused("predict", finished.folder, tmp_path / "none.png")


@pytest.mark.parametrize("kind", ["text", "cut short", "empty", "folder"])
def test_a_file_that_is_no_image_is_named(finished, pictures, refused, kind):
    file = pictures[1]
    if kind == "folder":
        file = file.parent
    else:
        file.write_bytes({"text": b"no image", "cut short": file.read_bytes()[:-60], "empty": b""}[kind])
    assert f"{file}: cannot be read as an image" in refused("predict", finished.folder, pictures[0], file)


def test_an_unreadable_image_prints_nothing_for_the_others(finished, pictures, command, tmp_path):
    _, out, _ = command("predict", finished.folder, pictures[0], tmp_path / "none.png")
    assert out == ""


def test_a_folder_without_a_finished_run_is_told(tmp_path, pictures, refused):
    assert "run ./run_all.sh" in refused("predict", tmp_path, pictures[0])
    assert "run ./run_all.sh" in refused("predict", tmp_path / "nowhere", pictures[0])


@pytest.mark.parametrize("file", ["network.safetensors", "predictor.json", "manifest.json"])
def test_a_damaged_run_is_refused(finished_copy, pictures, refused, file):
    run = finished_copy()
    path = run.folder / "stage3" / file
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    line = refused("predict", run.folder, pictures[0])
    assert "run ./run_all.sh" in line


def test_a_run_without_its_weights_is_refused(finished_copy):
    run = finished_copy()
    (run.folder / "stage3" / "network.safetensors").unlink()
    with pytest.raises(UserError, match="network.safetensors is missing"):
        load_predictor(run.folder)


def test_a_predictor_needs_the_results_alone(finished_copy, finished, predictor, tmp_path):
    run = finished_copy()
    moved = run.folder.rename(tmp_path / "elsewhere")
    assert np.array_equal(load_predictor(moved)(finished.test.pixels[:4]), predictor(finished.test.pixels[:4]))
    assert np.array_equal(load_predictor(str(moved))(finished.test.pixels[:4]), predictor(finished.test.pixels[:4]))


def test_a_parameter_file_names_its_run(finished, predictor, tmp_path, pictures, refused):
    file = tmp_path / "mine.yaml"
    file.write_text(dump_config(finished.config))
    assert np.array_equal(load_predictor(file)(finished.test.pixels[:4]), predictor(finished.test.pixels[:4]))
    file.write_text(dump_config(finished.config.model_copy(update={"name": "not_yet"})))
    assert "not_yet: no finished Stage 3 there" in refused("predict", file, pictures[0])
    assert "no such parameter file" in refused("predict", tmp_path / "none.yaml", pictures[0])


def test_predict_files_gives_names_and_numbers(finished, pictures):
    (file, name, probability), *_ = predict_files(finished.folder, [str(f) for f in pictures])
    assert file == str(pictures[0]) and name in "0123456789" and 0 < probability <= 1
