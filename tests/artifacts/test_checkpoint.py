"""Whatever happens to a checkpoint's file is said in one line, and the run goes on from the one before or anew."""

import os
import random
import shutil
from collections import namedtuple

import pytest
import torch

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.errors import UserError

TENSORS = {
    "model.a": torch.arange(12.0).view(3, 4),
    "model.b": torch.ones(3, dtype=torch.bfloat16),
    "optimizer.0.step": torch.tensor(3.0),
    "empty": torch.zeros(0, 2),
    "flags": torch.tensor([True, False]),
    "numbers": torch.arange(5),
}
OLD, NEW = {"history": [{"epoch": 1}]}, {"history": [{"epoch": 1}, {"epoch": 2}]}


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints, the newer with NEW."""
    kept = Artifact("one", tmp_path / "one", {"epochs": 3}).making().__enter__().checkpoint("training")
    kept.save(TENSORS, OLD)
    kept.save(TENSORS, NEW)
    return kept


def goes_on_from(kept, state, capsys):
    """load() gives the right tensors and this state, and says in one line what it did not use."""
    capsys.readouterr()
    tensors, found = kept.load()
    assert found == state and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype for name, tensor in TENSORS.items())
    said = capsys.readouterr().out
    assert said == ("" if state == NEW else "training.checkpoint is damaged and not used\n")


def test_the_newest_that_is_whole_is_gone_on_from(saved, capsys):
    goes_on_from(saved, NEW, capsys)


def test_a_bit_turned_anywhere_is_noticed(saved, capsys):
    """Every region: the header's length, its JSON, the data. A blank that pads the header may turn into another."""
    whole = saved.path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(0)
    places = [*range(8), *chance.sample(range(8, header), 250), *range(header, len(whole))]
    for place in places:
        raw = bytearray(whole)
        raw[place] ^= 1 << chance.randrange(8)
        saved.path.write_bytes(raw)
        harmless = whole[place:header].isspace() and raw[place:header].isspace()
        goes_on_from(saved, NEW if place < header and harmless else OLD, capsys)


def test_a_file_cut_anywhere_is_noticed(saved, capsys):
    whole = saved.path.read_bytes()
    for length in {*range(0, len(whole), 7), len(whole) - 1}:
        saved.path.write_bytes(whole[:length])
        goes_on_from(saved, OLD, capsys)
    saved.path.write_bytes(whole + b"\0")
    goes_on_from(saved, OLD, capsys)


def as_folder(path):
    path.unlink()
    (path / "below").mkdir(parents=True)


def swapped_words(path):
    """Two tensors of one type and size exchanged: the JSON and the data are whole each."""
    path.write_bytes(path.read_bytes().replace(b'"model.a"', b'"model.x"').replace(b'"numbers"', b'"model.a"'))


HARMS = {
    "folder": as_folder,
    "garbage": lambda p: p.write_bytes(os.urandom(300)),
    "renamed": swapped_words,
    "another epoch": lambda p: p.write_bytes(p.read_bytes().replace(b'\\"epoch\\": 2', b'\\"epoch\\": 9')),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_what_else_lies_there_is_noticed_and_written_over(saved, capsys, harm):
    harm(saved.path)
    goes_on_from(saved, OLD, capsys)
    saved.save(TENSORS, NEW)
    goes_on_from(saved, NEW, capsys)


def test_both_damaged_is_a_new_start(saved, capsys):
    for path in (saved.path, saved.before):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert saved.load() is None and capsys.readouterr().out.count("damaged") == 2


def test_room_is_asked_for_in_units_that_suit(saved, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "total used free")(9000, 8300, 700))
    with pytest.raises(UserError, match="700 bytes are free and about 3.6 MB needed"):
        saved.require_room(1_200_000)
