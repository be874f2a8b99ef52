"""Links in circles, hidden and dangling class folders, folders that cannot be read: nothing twice, nothing left out silently."""

import os

import numpy as np
import pytest

from osdtw_lib.config.schema import Files
from osdtw_lib.data.listings import walk
from osdtw_lib.data.sets import load_source


def source(**data):
    return load_source(Files(dataset="files", **{key: str(value) for key, value in data.items()}))


def notes(made):
    return [note.split(": left out ")[1] for note in made.notes]


@pytest.fixture
def refusal(refused, files_params):
    return lambda **data: refused("split", files_params(**data))


@pytest.fixture
def own(tree):
    return tree({"cat": 3, "dog": 2})


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "deeper/.."])
def test_a_link_to_a_folder_it_lies_in_is_left_out_and_said(own, target):
    (own / "cat" / "deeper").mkdir()
    (own / "cat" / "again").symlink_to(target)
    made = source(train=own)
    assert np.bincount(made.images.labels).tolist() == [3, 2]
    assert notes(made) == ["1 links to a folder they lie in (cat/again)"]


def test_two_links_that_lead_to_one_another_end(own, tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (own / "cat" / name).mkdir()
        (own / "cat" / name / "on").symlink_to(own / "cat" / other)
    made = source(train=own)
    assert len(made.images) == 5 and notes(made) == ["2 links to a folder that is there already (cat/a/on, cat/b/on)"]


def test_a_folder_reached_twice_counts_once_by_its_own_name(own, tree, tmp_path):
    far = tree({"more": 4}, "far") / "more"
    (own / "cat" / "zzz").mkdir()
    for name in ("link", "link2"):
        (own / "cat" / name).symlink_to(far)
    (own / "cat" / "aaa").symlink_to("zzz")
    made = source(train=own)
    assert np.bincount(made.images.labels).tolist() == [7, 2]
    assert notes(made) == ["2 links to a folder that is there already (cat/aaa, cat/link2)"]


def test_a_class_folder_may_be_a_link(own, tree):
    (own / "owl").symlink_to(tree({"x": 4}, "far") / "x")
    assert source(train=own).class_names == ("cat", "dog", "owl") and len(source(train=own).images) == 9


def test_a_class_folder_that_is_a_link_to_the_whole_is_left_out(own):
    (own / "all").symlink_to(own)
    assert source(train=own).class_names == ("cat", "dog") and notes(source(train=own))[0].startswith("1 links to a folder")


def test_one_folder_under_two_class_names_is_refused(own, refusal):
    (own / "puppy").symlink_to("dog")
    assert "2 images have more than one label" in refusal(train=own)
    (own / "puppy").unlink()
    (own / "cat" / "dogs").symlink_to("../dog")
    assert "2 images have more than one label" in refusal(train=own)


def test_class_folders_with_hidden_names_are_counted_and_said_by_split_and_inspect(tree, command, files_params):
    folder = tree({"cat": 3, "dog": 3, ".owl": 3, "__bat": 2, "__": 1})
    said = "left out 3 folders whose names begin with . or __ (.owl, __, __bat)"
    assert said in command("split", files_params(train=folder))[1]
    assert said in command("inspect", files_params(train=folder))[1]


def test_folders_with_hidden_names_alone_are_no_classes_and_the_refusal_says_why(tree, refusal):
    assert "left out 2 folders whose names begin with . or __ (.cat, .dog)" in refusal(train=tree({".cat": 2, ".dog": 2}))


@pytest.mark.parametrize("target", ["/nowhere/owls", "owl"])
@pytest.mark.parametrize("place", ["owl", "cat/owl"])
def test_a_link_that_leads_nowhere_is_refused(own, refusal, place, target):
    (own / place).symlink_to(target)
    said = refusal(train=own)
    assert f"{place} leads nowhere ({target}); connect the disk it lies on, or take the link away" in said


def test_an_image_link_that_leads_nowhere_is_a_missing_image(own, refusal):
    (own / "cat" / "far.jpg").symlink_to("/nowhere/far.jpg")
    assert "1 missing of 6 images" in refusal(train=own, test_per_class=1)


def test_a_folder_that_cannot_be_read_is_refused(own, refusal, monkeypatch):
    (own / "cat" / "closed").mkdir()
    real = os.scandir

    def scandir(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(walk.os, "scandir", scandir)
    assert "cat/closed cannot be read (Permission denied)" in refusal(train=own)


def test_a_pipe_named_as_an_image_is_none(own):
    os.mkfifo(own / "cat" / "pipe.jpg")
    made = source(train=own)
    assert len(made.images) == 5 and notes(made) == ["1 files that are no images (cat/pipe.jpg)"]
