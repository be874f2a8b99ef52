"""python -m osdtw_lib inspect: what it counts, what it finds odd, and when it refuses."""

import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def inspected(command, files_params):
    """inspected(train=...) -> what inspect prints; fails unless the exit status is 0."""

    def call(**data):
        status, out, err = command("inspect", files_params(**data))
        assert status == 0, err
        return out

    return call


def test_counts_groups_and_tasks(tree, inspected):
    said = inspected(train=tree({"cat": 130, "dog": 40, "owl": 12, "a bat": 3}), test_per_class=10)
    assert "own, 160 training images, 4 classes (120 to 2 a class); test: 25 images held out" in said
    assert "imbalance: 60.0 (largest class 120, smallest 2 training images)" in said
    assert "groups:    many (> 100) 1 classes, medium (20 to 100) 1 classes, few (< 20) 2 classes" in said
    assert "head:      2 classes, 150 images: cat, dog" in said and "tail:      2 classes, 10 images: owl, a bat" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["cat", "120", "10"] in rows and ["a", "bat", "2", "1"] in rows
    assert "fewer test images, a third of the class: a bat (1), owl (4)" in said
    assert said.splitlines()[-1].startswith("fit to train on")


def test_sizes_and_kinds_of_images(tree, inspected, picture):
    folder = tree({"cat": 6, "dog": 6})
    picture(folder / "cat" / "tiny.png", (9, 5))
    picture(folder / "cat" / "long.jpg", (160, 32))
    picture(folder / "dog" / "cmyk.jpg", (32, 32), mode="CMYK")
    picture(folder / "dog" / "alpha.png", (32, 32), mode="RGBA")
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(folder / "dog" / "deep.png")
    said = inspected(train=folder)
    assert "formats: JPEG 14, PNG 3" in said
    assert "shorter side 5 to 32, median 16 pixels; the network sees 28 x 28" in said
    assert "odd:       1 smaller than half of 28 pixels: cat/tiny.png" in said
    assert "odd:       1 more than 3 times as long as wide: cat/long.jpg" in said
    assert "odd:       1 in CMYK: dog/cmyk.jpg" in said and "odd:       1 with alpha: dog/alpha.png" in said
    assert "odd:       1 of 16 bits: dog/deep.png" in said
    assert "repeated:  no two files are the same" in said and "unusable:  0" in said


def test_the_same_image_in_training_and_test_or_under_two_labels_is_found(tree, command, files_params):
    train, test = tree({"cat": 4, "dog": 4}), tree({"cat": 2, "dog": 2}, "test")
    shutil.copy(train / "cat" / "cat 0.jpg", test / "cat" / "again.jpg")
    shutil.copy(train / "dog" / "dog 1.jpg", train / "cat" / "wrong.jpg")
    status, said, refusal = command("inspect", files_params(train=train, test=test))
    assert status == 2 and "1 images in training and test at once" in refusal and "fit to train on" not in said
    assert "repeated:  1 images in training and test at once: cat/cat 0.jpg, cat/again.jpg" in said
    assert "repeated:  1 images with different labels: cat/wrong.jpg, dog/dog 1.jpg" in said
    assert "repeated:  1 images more than once in one part: cat/wrong.jpg, dog/dog 1.jpg" in said


def test_files_of_one_size_and_other_bytes_are_not_taken_for_the_same(tree, inspected):
    folder = tree({"cat": 3, "dog": 3}, suffix=".bmp")
    assert len({p.stat().st_size for p in folder.rglob("*.bmp")}) == 1
    assert "repeated:  no two files are the same" in inspected(train=folder)


def test_unreadable_images_are_listed_and_end_in_status_2(tree, command, files_params, tmp_path):
    folder = tree({"cat": 4, "dog": 4})
    (folder / "cat" / "cat 1.jpg").write_bytes(b"")
    status, out, err = command("inspect", files_params(train=folder))
    assert status == 2 and err.startswith("error: 1 unreadable of 8 images") and err.count("\n") == 1
    assert "unusable:  1 missing or unreadable" in out and "cat 1.jpg: cannot be read as an image" in out
    assert "imbalance:" in out and "repeated:" in out and "fit to train on" not in out
    assert (tmp_path / "outputs" / "small" / "unreadable.txt").exists()


def test_data_that_cannot_be_loaded_end_in_status_2(refused, files_params, tmp_path):
    assert "no such folder or file" in refused("inspect", files_params(train=tmp_path / "gone"))


def test_many_classes_are_shown_by_their_ends(tree, inspected):
    said = inspected(train=tree({f"class {k:02}": 30 - k for k in range(25)}), test_per_class=1)
    assert "the 10 largest and the 10 smallest" in said
    assert "class 09 " in said and "class 15 " in said and "\n           class 12 " not in said
    assert "class 10, class 11, class 12" not in said and "and 3 more" in said


def test_the_embedded_digits_can_be_inspected(command, params):
    status, out, _ = command("inspect", params())
    assert status == 0 and "imbalance: 10.0 (largest class 40, smallest 4 training images)" in out
    assert "28 x 28 pixels, in memory" in out


def test_inspect_writes_nothing_where_all_is_well(tree, inspected, tmp_path):
    inspected(train=tree({"cat": 4, "dog": 4}))
    assert not (tmp_path / "outputs").exists()
