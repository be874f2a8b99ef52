"""Results on disk: done means whole and asked for; anything else is seen, said, and not used."""

import json
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.artifacts.files import make_folder, read_tensors, write_tensors, write_text
from osdtw_lib.artifacts.manifest import read_manifest
from osdtw_lib.errors import UserError


def artifact(tmp_path, name="one", inputs=(), **parameters):
    return Artifact(name, tmp_path / name, parameters or {"stage": {"epochs": 2}}, inputs)


@pytest.fixture
def made(tmp_path):
    one = artifact(tmp_path)
    with one.making() as write:
        write.tensors("weights", {"a": torch.arange(6.0).view(2, 3)})
        write.table("curve", pd.DataFrame({"epoch": [1, 2]}))
        write.json("about", {"x": 1})
        write.notes["origin"] = "here"
    return one


def test_what_was_written_reads_back(made):
    assert made.why_not_done() is None
    assert torch.equal(made.tensors("weights")["a"], torch.arange(6.0).view(2, 3))
    assert made.table("curve")["epoch"].tolist() == [1, 2]
    assert made.notes() == {"origin": "here"} and made.seconds() >= 0


def test_the_manifest_tells_key_parameters_versions_and_files(made):
    manifest = made.manifest()
    assert manifest["key"] == made.key and manifest["parameters"] == {"stage": {"epochs": 2}}
    assert {"python", "torch", "timm", "numpy"} <= manifest["versions"].keys()
    assert manifest["files"].keys() == {"weights.safetensors", "curve.csv", "about.json"}
    assert {"device", "seconds", "git_commit", "finished"} <= manifest.keys()


def test_a_key_depends_on_parameters_name_and_inputs_alone(tmp_path):
    one, again = artifact(tmp_path), artifact(tmp_path / "elsewhere")
    assert one.key == again.key
    keys = {one.key, artifact(tmp_path, stage={"epochs": 3}).key, artifact(tmp_path, "two").key}
    keys |= {artifact(tmp_path, inputs=(one,)).key, artifact(tmp_path, inputs=(artifact(tmp_path, stage={"epochs": 3}),)).key}
    assert len(keys) == 5


def test_no_result_and_an_unfinished_one_are_told(tmp_path):
    one = artifact(tmp_path)
    assert one.why_not_done() == "no result yet"
    with pytest.raises(RuntimeError), one.making() as write:
        write.json("about", {})
        raise RuntimeError
    assert one.why_not_done() == "no result yet" and not (one.folder / "manifest.json").exists()


def test_making_anew_takes_the_old_manifest_away_before_the_first_file(made):
    with pytest.raises(RuntimeError), made.making() as write:
        write.json("about", {})
        raise RuntimeError
    assert made.why_not_done() == "no result yet"


def test_other_values_tried_and_stopped_leave_the_result_that_was_there(tmp_path, made):
    tried = artifact(tmp_path, stage={"epochs": 3})
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), tried.making() as write:
            write.checkpoint("c").save({"a": torch.ones(2)}, {})
            raise KeyboardInterrupt
    assert made.why_not_done() is None and tried.why_not_done() == "stale: stage.epochs 2 -> 3"
    assert tried.making().__enter__().checkpoint("c").load() is not None


def test_a_changed_parameter_is_told_with_both_values(tmp_path, made):
    changed = artifact(tmp_path, stage={"epochs": 3, "samples": "own"})
    assert changed.why_not_done() == "stale: stage.epochs 2 -> 3, stage.samples unset -> own"


def test_a_changed_input_is_told_by_name(tmp_path):
    before, after = artifact(tmp_path, "data", n=1), artifact(tmp_path, "data", n=2)
    with artifact(tmp_path, inputs=(before,)).making():
        pass
    assert artifact(tmp_path, inputs=(after,)).why_not_done() == "stale: data changed"


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def one_bit_turned(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def lengthened(path):
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("harm", [cut_short, emptied, one_bit_turned, lengthened, os.unlink])
@pytest.mark.parametrize("name", ["weights.safetensors", "curve.csv", "about.json"])
def test_a_file_that_was_cut_or_edited_is_named(made, name, harm):
    harm(made.folder / name)
    assert name in made.why_not_done()
    with pytest.raises(UserError, match=name):
        made.require("make it again")


@pytest.mark.parametrize("harm", [cut_short, emptied, one_bit_turned])
def test_a_manifest_that_was_cut_or_scrambled_is_damaged(made, harm):
    harm(made.folder / "manifest.json")
    assert made.why_not_done() == "its manifest is damaged"


EDITS = {
    "no files": {"files": {}},
    "files of another kind": {"files": ["weights.safetensors"]},
    "another time": {"seconds": 0.5},
    "another note": {"notes": {"origin": "elsewhere"}},
    "no checksum": {"checksum": None},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_manifest_edited_by_hand_is_damaged(made, edit):
    path = made.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit, indent=1))
    assert made.why_not_done() == "its manifest is damaged"
    assert read_manifest(made.folder) is None and made.notes() == {}


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"key": 1}', "\xff"])
def test_a_manifest_that_is_something_else_is_damaged(made, text):
    (made.folder / "manifest.json").write_text(text, encoding="latin-1")
    assert made.why_not_done() == "its manifest is damaged"


def test_what_is_stale_or_was_changed_is_never_read(tmp_path, made):
    one_bit_turned(made.folder / "weights.safetensors")
    for read in (lambda: made.tensors("weights"), lambda: made.table("curve")):
        with pytest.raises(UserError, match="weights.safetensors was changed"):
            read()
    with pytest.raises(UserError, match="stale: stage.epochs 2 -> 3"):
        artifact(tmp_path, stage={"epochs": 3}).table("curve")


def test_a_manifest_that_was_only_laid_out_anew_still_counts(made):
    path = made.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert made.why_not_done() is None


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_no_trial_file(tmp_path, monkeypatch):
    def full(path, _):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        make_folder(tmp_path)
    assert os.listdir(tmp_path) == []


def as_folder(path):
    path.unlink(missing_ok=True)
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "curve.csv", "about.json"])
def test_a_folder_in_the_place_of_a_file_is_seen(made, name):
    as_folder(made.folder / name)
    assert made.why_not_done() == ("its manifest is damaged" if name == "manifest.json" else f"{name} is missing")


def test_a_stage_is_made_again_over_folders(made):
    for name in ("manifest.json", "about.json", "c.checkpoint", "c.before.checkpoint", "x.new", ".x.part"):
        as_folder(made.folder / name)
    with made.making() as write:
        checkpoint = write.checkpoint("c")
        assert checkpoint.load() is None
        checkpoint.save({"a": torch.ones(2)}, {})
        assert checkpoint.load() is not None
        write.json("about", {"x": 2})
    assert made.why_not_done() is None and json.loads((made.folder / "about.json").read_text()) == {"x": 2}
    assert {p.name for p in made.folder.iterdir()} == {"manifest.json", "weights.safetensors", "curve.csv", "about.json"}


def test_a_file_shows_up_under_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(os, "fsync", lambda _: names.append(os.listdir(tmp_path)))
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    assert "a.safetensors" not in names[0] and os.listdir(tmp_path) == ["a.safetensors"]


def test_tensors_keep_type_shape_and_value_whatever_their_layout(tmp_path):
    tensors = {"t": torch.arange(6.0).view(2, 3).T, "h": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    write_tensors(tmp_path / "a.safetensors", tensors)
    back = read_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(back[n], t) and back[n].dtype == t.dtype for n, t in tensors.items())


def test_tensors_that_are_not_there_or_damaged_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_tensors(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"pickle")
    with pytest.raises(UserError, match="damaged") as caught:
        read_tensors(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_goes_on_with_its_tensors_state_and_time(tmp_path):
    one = artifact(tmp_path)
    writer = one.making().__enter__()
    writer.seconds_before = 100.0
    writer.checkpoint("c").save({"a": torch.ones(2)}, {"epoch": 3})
    after = one.making().__enter__()
    tensors, state = after.checkpoint("c").load()
    assert torch.equal(tensors["a"], torch.ones(2)) and state == {"epoch": 3}
    assert after.elapsed() >= 100


def test_a_checkpoint_of_another_key_is_not_used(tmp_path):
    artifact(tmp_path).making().__enter__().checkpoint("c").save({"a": torch.ones(2)}, {})
    other = artifact(tmp_path, stage={"epochs": 3})
    assert other.making().__enter__().checkpoint("c").load() is None


@pytest.mark.parametrize("harm", [cut_short, emptied])
def test_a_damaged_checkpoint_is_said_to_be_and_not_used(tmp_path, capsys, harm):
    writer = artifact(tmp_path).making().__enter__()
    writer.checkpoint("c").save({"a": torch.ones(2)}, {})
    harm(tmp_path / "one" / "c.checkpoint")
    assert writer.checkpoint("c").load() is None
    assert "damaged" in capsys.readouterr().out


def test_a_finished_stage_leaves_no_checkpoint_and_no_half_written_file(tmp_path):
    one = artifact(tmp_path)
    one.folder.mkdir()
    (one.folder / ".weights.safetensors.123.part").write_text("of a process that was killed")
    with one.making() as write:
        write.checkpoint("c").save({"a": torch.ones(2)}, {})
    assert os.listdir(one.folder) == ["manifest.json"]


def test_a_process_killed_in_the_middle_of_its_tensors_leaves_nothing_for_good(tmp_path):
    one, large = artifact(tmp_path), {"a": torch.zeros(30_000_000)}
    one.folder.mkdir()
    writing = os.fork()
    while writing == 0:  # the child does nothing else, until it is killed
        write_tensors(one.folder / "weights.safetensors", large)
    for _ in range(1000):
        time.sleep(0.01)
        os.kill(writing, signal.SIGSTOP)
        if any(name.startswith(".") for name in os.listdir(one.folder)):
            break
        os.kill(writing, signal.SIGCONT)
    os.kill(writing, signal.SIGKILL)
    os.waitpid(writing, 0)
    assert any(name.startswith(".") for name in os.listdir(one.folder))  # it was in the middle
    with one.making() as write:
        write.tensors("weights", {"a": torch.ones(2)})
    assert sorted(os.listdir(one.folder)) == ["manifest.json", "weights.safetensors"]
