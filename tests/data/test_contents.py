"""What image files hold enters the keys: changed pixels are seen, changed times are not, and a reading is not repeated."""

import builtins
import json
import os
import pickle
import shutil

import numpy as np
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.data import contents as module
from osdtw_lib.data import image_check
from osdtw_lib.data.contents import Contents
from osdtw_lib.data.decoded_cache import decoded
from osdtw_lib.data.image_check import examine
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.stages.run import Run


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / "images" / f"{i}.jpg" for i in range(4)]
    made[0].parent.mkdir()
    for i, path in enumerate(made):
        path.write_bytes(bytes([i]) * 100)
    return list(map(str, made))


@pytest.fixture
def settled(monkeypatch):
    """Files just written count as files written long ago."""
    monkeypatch.setattr(module, "SETTLED", -1)


@pytest.fixture
def opened(monkeypatch):
    """The paths of the images opened, in a list."""
    seen, real = [], builtins.open
    monkeypatch.setattr("builtins.open", lambda path, *a, **k: (seen.append(str(path)), real(path, *a, **k))[1])
    return seen


@pytest.fixture
def index(tmp_path):
    return tmp_path / "cache" / "contents.json"


def replaced(path, data, times=None):
    """Other bytes under this path, with the times of before where they are given."""
    with open(path, "r+b") as file:
        file.write(data)
    if times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_known_file_is_not_read_again(paths, index, settled, opened):
    first = Contents(index).digests(paths)
    assert sorted(opened) == paths and len(set(first)) == 4
    opened.clear()
    assert Contents(index).digests(paths) == first and opened == []


@pytest.mark.parametrize("times_kept", [False, True])
def test_other_bytes_of_the_same_number_are_seen_and_named(paths, index, settled, opened, capsys, times_kept):
    before = os.stat(paths[2])
    first = Contents(index).digests(paths)
    capsys.readouterr()
    replaced(paths[2], b"x" * 100, before if times_kept else None)
    opened.clear()
    again = Contents(index).digests(paths)
    assert [a == b for a, b in zip(first, again)] == [True, True, False, True] and opened == [paths[2]]
    assert capsys.readouterr().out == f"contents: 1 files hold other bytes than when they were last read: {paths[2]}\n"


def test_other_times_and_copies_cost_a_reading_and_change_nothing(paths, index, settled, opened, capsys):
    first = Contents(index).digests(paths)
    os.utime(paths[0], (0, 0))
    shutil.copyfile(paths[1], paths[1] + "x")
    os.replace(paths[1] + "x", paths[1])
    opened.clear()
    assert Contents(index).digests(paths) == first and sorted(opened) == paths[:2]
    assert capsys.readouterr().out == ""


def test_a_file_changed_just_before_it_was_read_is_read_once_more(paths, index, opened):
    first = Contents(index).digests(paths)
    opened.clear()
    assert Contents(index).digests(paths) == first and sorted(opened) == paths


def test_verify_reads_everything_whatever_the_index_says(paths, index, settled, monkeypatch):
    first = Contents(index).digests(paths)
    stats = {path: module._stat(path) for path in paths}
    monkeypatch.setattr(module, "_stat", stats.get)  # a disk that gives other bytes under the same times
    replaced(paths[3], b"x" * 100)
    assert Contents(index).digests(paths) == first
    contents = Contents(index)
    contents.verify(paths)
    assert contents.digests(paths)[3] != first[3]
    assert Contents(index).digests(paths)[3] != first[3]  # the index has learnt it


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[:-5],
        lambda t: t.replace('"', "'", 1),
        lambda t: "",
        lambda t: "[]",
        lambda t: t[:-40] + ("0" if t[-40] != "0" else "1") + t[-39:],
    ],
)
def test_a_damaged_index_is_said_and_not_used(paths, index, settled, capsys, damage):
    first = Contents(index).digests(paths)
    index.write_text(damage(index.read_text()))
    assert Contents(index).digests(paths) == first
    assert "contents.json is damaged and not used" in capsys.readouterr().out
    assert Contents(index).digests(paths) == first and capsys.readouterr().out == ""


def test_two_that_read_at_once_both_keep_what_they_read(paths, index, settled, opened):
    one, other = Contents(index), Contents(index)
    assert one.kept == other.kept == {}
    one.digests(paths[:2])
    other.digests(paths[2:])
    opened.clear()
    Contents(index).digests(paths)
    assert opened == []


def test_missing_files_folders_and_pipes_have_no_contents(paths, tmp_path, index):
    os.mkfifo(tmp_path / "pipe.jpg")
    odd = [str(tmp_path / "gone.jpg"), str(tmp_path), str(tmp_path / "pipe.jpg"), "a\0b"]
    assert Contents(index).digests(odd) == [""] * 4
    assert [s.size for s in Contents().stats([*odd, paths[0]])] == [-1] * 4 + [100]


def test_an_index_that_cannot_be_written_is_said_and_done_without(paths, tmp_path, capsys):
    (tmp_path / "cache").write_text("no folder")
    assert len(set(Contents(tmp_path / "cache" / "contents.json").digests(paths))) == 4
    assert capsys.readouterr().out.startswith("contents: not kept")


def test_it_travels_to_other_processes_without_what_it_knows(paths, index):
    contents = Contents(index)
    contents.digests(paths)
    assert len(pickle.dumps(contents)) < 1000 and pickle.loads(pickle.dumps(contents)).index == index


# a run ------------------------------------------------------------------------------------------------------------


def swapped(folder):
    """Two images of one size change places, so that names and sizes stay what they were."""
    one, other = folder / "cat" / "cat 0.bmp", folder / "cat" / "cat 1.bmp"
    a, b = one.read_bytes(), other.read_bytes()
    assert len(a) == len(b) and a != b
    one.write_bytes(b), other.write_bytes(a)


def test_replaced_images_make_a_finished_run_stale_and_a_touch_does_not(tree, files_params, command, monkeypatch):
    folder = tree({"cat": 6, "dog": 6}, suffix=".bmp")
    params, passes = files_params(train=folder), []
    assert command("split", params)[0] == 0
    for path in folder.rglob("*.bmp"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(image_check, "examine", lambda images: passes.append(len(images)) or examine(images))
    assert "split: up to date" in command("split", params)[1] and passes == []
    swapped(folder)
    status, out, err = command("start", params)
    assert status == 2 and "stale: images changed" in err and "2 files hold other bytes" in out and "cat 0.bmp" in out
    assert "split: runs, stale: images changed" in command("split", params)[1] and passes == [2]


@pytest.mark.parametrize("how", ["run", "split"])
def test_verify_is_an_option_of_run_and_of_every_stage(tree, files_params, command, monkeypatch, how):
    told = []
    monkeypatch.setattr(Run, "verify", lambda run: told.append(run.config.name))
    monkeypatch.setattr("osdtw_lib.report.notebooks._books_from", lambda *_: [])
    params = files_params(train=tree({"cat": 4, "dog": 4}))
    command(how, params)
    assert told == []
    command(how, params, "--verify")
    assert told == ["small"]


def test_runs_of_one_folder_share_what_they_read(tree, files_params, settled, opened):
    params = files_params(train=tree({"cat": 4, "dog": 4}))
    first = Run(load_config(params)).source.fingerprint()
    opened.clear()
    other = Run(load_config(params, ["name=another", "seed=3"]))
    assert other.source.fingerprint() == first and not [path for path in opened if path.endswith(".jpg")]
    other.verify()
    assert len([path for path in opened if path.endswith(".jpg")]) == 8


def test_the_decoded_cache_is_of_the_contents_and_of_one_pillow(tree, tmp_path, monkeypatch):
    folder = tree({"cat": 3}, suffix=".bmp")
    paths = np.array(sorted(map(str, folder.rglob("*.bmp"))))
    images = lambda: ImageFiles(paths, np.zeros(3, np.int64), paths)  # noqa: E731
    first = np.array(decoded(images(), 8, tmp_path / "cache").pixels)
    swapped(folder)
    second = np.array(decoded(images(), 8, tmp_path / "cache").pixels)
    assert np.array_equal(second, first[[1, 0, 2]])
    made = {p: json.loads(p.read_text().split("\n")[0])["pillow"] for p in (tmp_path / "cache").glob("*.json")}
    monkeypatch.setattr("PIL.__version__", "999.0")
    decoded(images(), 8, tmp_path / "cache")
    assert sorted(made) == sorted((tmp_path / "cache").glob("*.json"))
    assert "999.0" in {json.loads(p.read_text().split("\n")[0])["pillow"] for p in made}
