"""One image is one image, however it is spelt, linked or copied: in two parts or under two labels it is refused."""

import os
import shutil

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.schema import Files
from osdtw_lib.data import sets
from osdtw_lib.data.sets import load_source
from osdtw_lib.stages.run import Run


def split_of(source, data, seed):
    return sets.of(data).split(source, data, seed)


def source(**data):
    return load_source(Files(dataset="files", **{key: str(value) for key, value in data.items()}))


@pytest.fixture
def refusal(refused, files_params):
    return lambda **data: refused("split", files_params(**data))


@pytest.fixture
def own(tree):
    return tree({"cat": 4, "dog": 3})


def written(path, lines):
    path.write_text("path,label\n" + "".join(f"{name},{label}\n" for name, label in lines))
    return path


def spelt(own, how):
    """The image cat 0 by another path."""
    (own.parent / "link").symlink_to(own)
    (own / "cat 0.jpg").symlink_to("cat/cat 0.jpg")
    os.link(own / "cat" / "cat 0.jpg", own / "hard.jpg")
    return {
        "dots": "own/../own/cat/cat 0.jpg",
        "dot": "./own/cat/cat 0.jpg",
        "folder link": "link/cat/cat 0.jpg",
        "slashes": "own//cat/cat 0.jpg",
        "absolute": own / "cat" / "cat 0.jpg",
        "link": "own/cat 0.jpg",
        "hard link": "own/hard.jpg",
    }[how]


WAYS = ["dots", "dot", "folder link", "slashes", "absolute", "link", "hard link"]
REST = [("own/cat/cat 1.jpg", "cat"), ("own/dog/dog 0.jpg", "dog")]


@pytest.mark.parametrize("how", WAYS)
def test_a_test_image_that_is_a_training_image_by_another_spelling_is_refused(own, refusal, how):
    train = written(own.parent / "train.csv", [("own/cat/cat 0.jpg", "cat"), *REST])
    test = written(own.parent / "test.csv", [(spelt(own, how), "cat")])
    said = refusal(train=train, test=test)
    assert "data.test: 1 of its images are in data.train too" in said and "cat 0.jpg" in said


@pytest.mark.parametrize("how", WAYS)
def test_two_labels_of_one_file_are_refused_by_whatever_spelling(own, refusal, how):
    train = written(own.parent / "train.csv", [("own/cat/cat 0.jpg", "cat"), *REST, (spelt(own, how), "dog")])
    said = refusal(train=train)
    assert "data.train: 1 images have more than one label" in said and "as 'cat'" in said and "as 'dog'" in said


@pytest.mark.parametrize("how", WAYS)
def test_one_file_listed_twice_under_one_label_counts_once(own, how):
    train = written(own.parent / "train.csv", [("own/cat/cat 0.jpg", "cat"), *REST, (spelt(own, how), "cat")])
    test = written(own.parent / "test.csv", [("own/cat/cat 2.jpg", "cat"), ("own/dog/dog 2.jpg", "dog")])
    made = source(train=train, test=test)
    assert made.images.labels.tolist() == [0, 0, 1, 0, 1]
    assert made.parts["train"].tolist() == [0, 1, 2] and made.parts["test"].tolist() == [3, 4]
    assert [note.split(": ")[1] for note in made.notes][0].endswith("train.csv")
    assert "left out 1 images that are there already, by another path or a link" in made.notes[0]


def test_all_test_images_that_are_training_images_are_counted(own, refusal, tmp_path):
    (tmp_path / "test").symlink_to(own)
    assert "data.test: 7 of its images are in data.train too" in refusal(train=own, test=tmp_path / "test")


def test_a_missing_image_in_two_parts_is_still_one(own, refusal, tmp_path):
    train = written(tmp_path / "train.csv", [("own/cat/gone.jpg", "cat"), *REST])
    test = written(tmp_path / "test.csv", [("own/./cat/gone.jpg", "cat"), ("own/cat/cat 3.jpg", "cat")])
    assert "data.test: 1 of its images are in data.train too" in refusal(train=train, test=test)


# copies -----------------------------------------------------------------------------------------------------------


def test_a_copy_in_training_and_test_is_refused_by_split_and_no_stage_goes_on(own, tree, refused, files_params, tmp_path):
    test = tree({"cat": 2, "dog": 2}, "test")
    for i in range(2):
        shutil.copy(own / "cat" / f"cat {i}.jpg", test / "cat" / f"copy {i}.jpg")
    params = files_params(train=own, test=test)
    said = refused("split", params)
    listing = tmp_path / "outputs" / "small" / "repeated.txt"
    pair = f"{own}/cat/cat 0.jpg = {test}/cat/copy 0.jpg"
    assert "2 images in training and test at once" in said and pair in said and str(listing) in said
    rows = [line.split("\t") for line in listing.read_text().splitlines()]
    assert len(rows) == 2 and rows[0] == ["in training and test at once", *pair.split(" = ")]
    for stage in ("start", "stage1", "stage2", "stage3", "tables"):
        assert refused(stage, params)
    assert not list((tmp_path / "outputs" / "small").glob("*/manifest.json"))
    for i in range(2):
        (test / "cat" / f"copy {i}.jpg").unlink()


def test_a_copy_under_another_label_is_refused(own, refusal):
    shutil.copy(own / "dog" / "dog 1.jpg", own / "cat" / "wrong.jpg")
    assert "1 images with different labels" in refusal(train=own)


def test_a_copy_within_a_class_and_a_part_is_said(own, tree, command, files_params):
    shutil.copy(own / "cat" / "cat 0.jpg", own / "cat" / "zzz.jpg")
    status, said, _ = command("split", files_params(train=own, test=tree({"cat": 2, "dog": 2}, "test")))
    assert status == 0 and "split: 1 images more than once in one part" in said and "zzz.jpg" in said


def test_the_list_goes_when_the_copies_have_gone(own, tree, command, refused, files_params, tmp_path):
    test = tree({"cat": 2, "dog": 2}, "test")
    shutil.copy(own / "cat" / "cat 0.jpg", test / "cat" / "copy.jpg")
    params = files_params(train=own, test=test)
    refused("split", params)
    (test / "cat" / "copy.jpg").unlink()
    assert command("split", params)[0] == 0 and not (tmp_path / "outputs" / "small" / "repeated.txt").exists()


def test_a_copy_made_after_the_split_is_refused_too(own, tree, command, refused, files_params):
    test = tree({"cat": 2, "dog": 2}, "test")
    params = files_params(train=own, test=test)
    assert command("split", params)[0] == 0
    shutil.copy(own / "cat" / "cat 0.jpg", test / "cat" / "cat 0.jpg")
    assert "stale: images changed" in refused("start", params)
    assert "1 images in training and test at once" in refused("split", params)


def test_copies_in_a_published_list_are_said_not_refused(own, tree, files_params):
    from osdtw_lib.data.repeats import refuse_leaks

    test = tree({"cat": 2, "dog": 2}, "test")
    shutil.copy(own / "cat" / "cat 0.jpg", test / "cat" / "cat 0.jpg")
    run = Run(load_config(files_params(train=own, test=test)))
    data = run.config.data.model_copy(update={"protocol": "imagenet_lt"})
    assert "1 images in training and test at once" in refuse_leaks(run.source.images, run.indices, data, run.folder)[0]


def test_files_that_cannot_be_read_are_no_copies_of_one_another(own, refusal):
    for name in ("cat 0.jpg", "cat 1.jpg"):
        (own / "cat" / name).unlink()
        (own / "cat" / name).symlink_to(f"/nowhere/{name}")
    assert "2 missing of 7 images" in refusal(train=own)


def test_indices_of_a_part_are_its_own_where_images_were_left_out(own, tmp_path):
    train = written(tmp_path / "train.csv", [("own/cat/cat 0.jpg", "cat"), *REST, ("./own/cat/cat 0.jpg", "cat")])
    test = written(tmp_path / "test.csv", [("own/dog/dog 1.jpg", "dog")])
    data = Files(dataset="files", train=str(train), test=str(test))
    made = load_source(data)
    assert [p.tolist() for p in split_of(made, data, 0)] == [[0, 1, 2], [3]] and len(np.unique(made.images.paths)) == 4
