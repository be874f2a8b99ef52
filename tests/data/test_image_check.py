"""The pass over all files: nothing unusable gets past it, and it is not made twice."""

import json
import threading

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.data import image_check, in_threads
from osdtw_lib.data.image_check import examine, over_images
from osdtw_lib.stages.run import Run


def broken(folder):
    """Three images that cannot be used."""
    victims = [folder / "cat" / "cat 0.jpg", folder / "dog" / "dog 1.jpg", folder / "dog" / "dog 2.jpg"]
    victims[0].write_bytes(victims[0].read_bytes()[:-3])
    victims[1].write_text("no image")
    victims[2].write_bytes(b"")
    return victims


def images_of(params):
    return Run(load_config(params)).source.images


def test_what_can_be_used_is_described_as_the_file_has_it(tree, files_params, picture):
    folder = tree({"cat": 3, "dog": 3})
    picture(folder / "cat" / "large.jpg", (640, 320), mode="CMYK")
    found = examine(images_of(files_params(train=folder)))
    assert found["problem"].isna().all()
    large = found[found["width"] == 640].iloc[0]
    assert (large["height"], large["mode"], large["format"]) == (320, "CMYK", "JPEG")  # not of the reduced decoding


def test_missing_and_unreadable_images_stop_the_split(tree, files_params, refused, tmp_path):
    folder = tree({"cat": 5, "dog": 5})
    lines = [f"{p.relative_to(folder).as_posix()} {k}" for k, c in enumerate(("cat", "dog")) for p in (folder / c).iterdir()]
    (folder / "train.txt").write_text("\n".join([*lines, "cat/gone.jpg 0"]))
    victims = broken(folder)
    said = refused("split", files_params(train=folder / "train.txt"))
    listing = tmp_path / "outputs" / "small" / "unreadable.txt"
    assert "1 missing and 3 unreadable of 11 images" in said and str(listing) in said and "take them out" in said
    rows = dict(line.split("\t") for line in listing.read_text().splitlines())
    assert set(rows) == {*map(str, victims), str(folder / "cat" / "gone.jpg")} and all(path in said for path in rows)
    assert rows[str(folder / "cat" / "gone.jpg")] == "missing" and "truncated" in rows[str(victims[0])]
    assert not (tmp_path / "outputs" / "small" / "split" / "manifest.json").exists()


def test_a_folder_in_a_list_is_not_called_missing(tree, files_params, refused, tmp_path):
    folder = tree({"cat": 3, "dog": 3})
    lines = [f"cat/cat {i}.jpg 0\ndog/dog {i}.jpg 1\n" for i in range(3)]
    (folder / "train.txt").write_text("".join(lines) + "cat 0\n")
    assert "1 unreadable of 7 images" in refused("split", files_params(train=folder / "train.txt"))
    assert "no file, but a folder" in (tmp_path / "outputs" / "small" / "unreadable.txt").read_text()


def test_only_the_first_ten_are_named(tree, files_params, refused, tmp_path):
    folder = tree({"cat": 14, "dog": 3})
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    said = refused("split", files_params(train=folder))
    assert "14 unreadable of 17 images" in said and said.count(".jpg") == 10 and " ...;" in said
    assert len((tmp_path / "outputs" / "small" / "unreadable.txt").read_text().splitlines()) == 14


def test_the_pass_is_made_once_and_again_where_a_file_changed(tree, files_params, command, picture, monkeypatch, tmp_path):
    passes = []
    monkeypatch.setattr(image_check, "examine", lambda images: passes.append(len(images)) or examine(images))
    folder = tree({"cat": 9, "dog": 9})
    params = files_params(train=folder)
    for _ in range(2):
        assert command("split", params)[0] == 0
    assert passes == [18]
    assert command("split", params, "--set", "seed=1")[0] == 0  # another hold-out of the same files
    assert passes == [18]
    picture(folder / "cat" / "new.jpg")
    assert command("split", params)[0] == 0
    assert passes == [18, 1]  # what has passed is not decoded again
    notes = json.loads((tmp_path / "outputs" / "small" / "split" / "manifest.json").read_text())["notes"]
    assert notes["caption"].startswith("own, 13 training images, 2 classes (7 to 6 a class)")


def test_the_list_of_unreadable_images_goes_when_all_can_be_read(tree, files_params, command, refused, tmp_path):
    folder = tree({"cat": 6, "dog": 6})
    victims, params = broken(folder), files_params(train=folder)
    refused("split", params)
    for path in victims:
        path.unlink()
    assert command("split", params)[0] == 0
    assert not (tmp_path / "outputs" / "small" / "unreadable.txt").exists()


def test_a_part_that_is_not_used_is_not_read(tree, files_params, command):
    train, test, val = (tree({"cat": 3, "dog": 3}, name) for name in ("train", "test", "val"))
    broken(val)
    assert command("split", files_params(train=train, test=test, val=val))[0] == 0


def test_the_split_says_what_was_held_out(tree, files_params, command):
    _, said, _ = command("split", files_params(train=tree({"cat": 40, "dog": 8, "owl": 2}), test_per_class=5))
    assert "split: no test part: 7 images held out of the training part, 5 a class where it has enough" in said
    assert "fewer test images, a third of the class: dog (2)" in said
    assert "no test image, so left out of every accuracy: owl" in said


def test_results_come_in_order_from_several_threads_and_few_wait():
    seen, most = set(), 0

    def square(i):
        nonlocal most
        seen.add(threading.get_ident())
        most = max(most, i)
        return i * i

    results = over_images(square, 5000, "squares")
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert most < 2500  # not all of them were started
    assert list(results) == [i * i for i in range(3, 5000)] and len(seen) > 1


def test_an_error_ends_the_pass(monkeypatch):
    done = []

    def fails(i):
        done.append(i)
        if i == 5:
            raise RuntimeError("five")

    with pytest.raises(RuntimeError, match="five"):
        list(over_images(fails, 100_000, "x"))
    assert len(done) < 50_000


def test_a_long_pass_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(in_threads, "LINE_SECONDS", 0.0)
    assert len(list(over_images(lambda i: i, 400, "images"))) == 400
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("images: 1 of 400 images  ") and lines[0].endswith(" left") and "images/s" in lines[0]
    assert np.all([line.startswith("images: ") for line in lines])
