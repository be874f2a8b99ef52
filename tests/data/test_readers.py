"""Reading in pieces, ahead and in as many processes as there is room for; the pixels are those of one process."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_lib.backend import distributed
from osdtw_lib.config.schema import Config, Files, Recipe
from osdtw_lib.data import readers as module
from osdtw_lib.data.batches import Batches
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.data.readers import readers, with_room
from osdtw_lib.data.source import LabelledImages

PHOTO = {"random_crop": (0.3, 1.0), "flip": True, "rand_augment": (9.0, 0.5)}


@pytest.fixture
def photographs(tmp_path):
    """Ten PNGs of different sizes."""
    rng, paths = np.random.default_rng(0), [tmp_path / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + i, 25, 3), dtype=np.uint8)).save(path)
    return ImageFiles(np.array(list(map(str, paths))), np.arange(10) % 3, np.array([p.name for p in paths]))


def batches(images, workers=0, epochs=None, draw=0, **recipe):
    data = Files(dataset="files", train="x")
    config = Config.model_construct(seed=0, data=data, recipe=Recipe(batch_size=8, **recipe), loader_workers=workers)
    return Batches(images, config, (16, 16), 3, epochs=epochs, draw=draw)


def all_of(made):
    epochs = [part.images for number in (0, 1) for step in made.epoch(number) for part in step]
    return torch.cat([*epochs, *(images for images, _ in made)])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("piece", [1, 3, 8])
def test_images_come_out_the_same_in_pieces_of_any_size(monkeypatch, photographs, piece, workers):
    expected = all_of(batches(photographs, **PHOTO))
    monkeypatch.setattr(module, "PIECE", piece)
    assert torch.equal(all_of(batches(photographs, workers, **PHOTO)), expected)


def test_another_draw_augments_the_same_files_otherwise(photographs):
    first, again, other = (batches(photographs, draw=draw, **PHOTO) for draw in (0, 0, 1))
    assert torch.equal(all_of(first), all_of(again))
    seen = [{i: pixels for p in next(b.epoch(0)) for i, pixels in zip(p.indices.tolist(), p.images)} for b in (first, other)]
    both = seen[0].keys() & seen[1].keys()
    assert len(both) > 4 and not any(torch.equal(seen[0][i], seen[1][i]) for i in both)


def test_files_are_shifted_too(tmp_path):
    """One bright pixel in the middle goes up to so many pixels each way, and borders are repeated."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[8, 8] = 255
    Image.fromarray(image).save(tmp_path / "one.png")
    files = ImageFiles(np.array([str(tmp_path / "one.png")]), np.array([0]), np.array(["one.png"]))
    made = batches(files, random_shift=2)
    seen = [next(next(made.epoch(number))).images[0, 0] for number in range(60)]
    places = {tuple(np.unravel_index(int(pixels.argmax()), pixels.shape)) for pixels in seen}
    assert places <= {(i, j) for i in range(6, 11) for j in range(6, 11)} and len(places) > 15
    assert all((pixels == pixels.max()).sum() == 1 for pixels in seen)


def test_all_processes_work_on_the_first_part(monkeypatch, photographs):
    monkeypatch.setattr(module, "PIECE", 4)
    made = batches(photographs, 2, **PHOTO)
    asked = asked_of(made)
    next(next(made.epoch(0)))
    assert [len(piece) for piece in asked] == [4, 4, 2]  # a part of 8, one of 2: half of the first for each


def asked_of(made):
    """The list of what the readers of these batches are asked for, as it is."""
    asked, plan = [], made._reader.plan

    class Noting(type(plan)):
        def __iter__(self):
            for piece in plan.pieces:
                asked.append(piece)
                yield piece

    made._reader.loader.batch_sampler.__class__ = Noting
    return asked


def test_the_next_epoch_is_being_read_when_the_last_part_of_one_has_come(monkeypatch, photographs):
    monkeypatch.setattr(module, "AHEAD", 1)
    made = batches(photographs, 2, epochs=3, **PHOTO)
    asked = asked_of(made)
    for number in (0, 1, 2):
        for step in made.epoch(number):
            list(step)
        assert {epoch for piece in asked for _, epoch, _ in piece} == set(range(min(number + 2, 3)))
    assert len(asked) == 6  # each part once


@pytest.mark.parametrize("kind", ["files", "files, processes", "memory map"])
def test_what_is_read_ahead_are_the_same_images_whatever_else_is_read(monkeypatch, photographs, kind):
    monkeypatch.setattr(module, "ON_DEVICE_BYTES", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    images = LabelledImages(pixels, np.arange(10) % 3) if kind == "memory map" else photographs

    def of(made, number):
        return torch.cat([part.images for step in made.epoch(number) for part in step])

    plain, workers = batches(images, **PHOTO), 2 * (kind == "files, processes")
    expected = {number: of(plain, number) for number in range(4)}
    made = batches(images, workers, epochs=3, **PHOTO)
    for number in (0, 1, 2, 1, 2, 0, 3):
        assert torch.equal(of(made, number), expected[number]), number
    assert torch.equal(of(made, 0), expected[0])
    next(next(made.epoch(1)))  # left in its middle
    assert torch.equal(of(made, 1), expected[1])
    assert torch.equal(torch.cat([x for x, _ in made]), torch.cat([x for x, _ in plain]))  # between two epochs
    assert torch.equal(of(made, 2), expected[2])


@pytest.mark.parametrize("threads", [1, 4])
def test_items_are_fetched_in_order_and_so_many_at_once(threads):
    working, most, lock = [0], [0], threading.Lock()

    def fetch(item):
        with lock:
            working[0] += 1
            most[0] = max(most[0], working[0])
        time.sleep(0.02 if item % 3 else 0.05)
        with lock:
            working[0] -= 1
        return item

    assert list(module._ahead(fetch, range(20), threads)) == list(range(20)) and most[0] == threads
    assert list(module._ahead(fetch, [], threads)) == []


def test_a_memory_map_is_waited_for_and_an_array_on_the_device_is_not(monkeypatch):
    images = LabelledImages(np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), np.arange(20) % 3)
    whole = batches(images, flip=True)
    monkeypatch.setattr(module, "ON_DEVICE_BYTES", 0)
    mapped = batches(images, flip=True)
    assert torch.equal(all_of(whole), all_of(mapped)) and whole.waited == 0 < mapped.waited


def test_the_time_of_the_readers_is_counted_and_that_of_the_training_is_not(monkeypatch, photographs):
    read = ImageFiles.read

    def slowly(self, index, side=None):
        time.sleep(0.01)
        return read(self, index, side)

    monkeypatch.setattr(ImageFiles, "read", slowly)
    made = batches(photographs)
    for step in made.epoch(0):
        for _ in step:
            time.sleep(0.5)
    assert 0.1 <= made.waited < 0.9


@pytest.mark.parametrize("cores, processes, gpu, cpu", [(64, 1, 64, 63), (64, 8, 8, 7), (2, 4, 0, 0), (1, 1, 1, 0)])
def test_there_are_as_many_readers_as_cores(monkeypatch, cores, processes, gpu, cpu):
    monkeypatch.setattr(module, "cores", lambda: cores)
    monkeypatch.setattr(distributed, "local_world_size", lambda: processes)
    assert readers("auto", torch.device("cuda")) == gpu and readers("auto", torch.device("cpu")) == cpu
    assert readers(3, torch.device("cuda")) == 3


class Disk:
    def __init__(self, free):
        self.free = free


def test_shared_memory_that_is_too_small_is_said_before_it_is_full(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "SHARED", tmp_path)
    image = 3 * 224 * 224
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Disk(64 * 2**20))
    assert with_room(16, image) == 3
    said = capsys.readouterr().out
    expected = f"3 of 16 processes will read images: together they need 308.3 MB of {tmp_path}, 67.1 MB are free"
    assert said.count("\n") == 1 and expected in said
    monkeypatch.setattr(distributed, "local_world_size", lambda: 4)  # they share it
    assert with_room(16, image) == 0
    monkeypatch.setattr(distributed, "local_world_size", lambda: 1)
    monkeypatch.setenv("OSDTW_AT_ONCE", "3")  # so do other jobs' processes
    assert with_room(16, image) == 1
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Disk(2**34))
    capsys.readouterr()
    assert with_room(16, image) == 16 and with_room(0, image) == 0
    monkeypatch.setattr(module, "SHARED", tmp_path / "there is none")
    assert with_room(16, image) == 16 and capsys.readouterr().out == ""
