"""`data.cache: auto`: decoded once for a GPU where the disk has room; on a CPU, and where results are there, nothing changes."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from osdtw_lib.config.load import load_config
from osdtw_lib.data import decoded_cache
from osdtw_lib.stages import execute
from osdtw_lib.stages.run import Run

Disk = namedtuple("Disk", "free")


@pytest.fixture
def opened(files_params, tree):
    """opened("auto") -> the Run of image files with this `data.cache`."""
    images = tree({"a": 6, "b": 4, "c": 3})

    def call(cache, **data) -> Run:
        return Run(load_config(files_params(None, train=images, test_per_class=1, cache=cache, **data)))

    return call


@pytest.fixture
def gpu(monkeypatch):
    """From then on a GPU seems to be here."""

    def call():
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    return call


def same_key(one: Run, other: Run) -> bool:
    return all(one.artifact(name).key == other.artifact(name).key for name in ("split", "stage1", "tables"))


def test_on_a_cpu_it_is_as_false_and_leaves_every_key(opened):
    run = opened("auto")
    assert run.config.data.cache is False and same_key(run, opened(False)) and not same_key(run, opened(True))


def test_on_a_gpu_it_is_as_true(opened, gpu, capsys):
    gpu()
    run = opened("auto")
    assert run.config.data.cache is True and same_key(run, opened(True)) and capsys.readouterr().out == ""


def test_on_a_gpu_without_room_it_is_as_false_and_says_so(opened, gpu, monkeypatch, capsys):
    gpu()
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda path: Disk(decoded_cache.SPARE + 5000))
    run = opened("auto")
    assert run.config.data.cache is False and same_key(run, opened(False))
    said, images = capsys.readouterr().out, len(run.train) + len(run.test)
    assert said.startswith("data.cache: auto: images are read from their files") and said.count("\n") == 1
    assert f"5.0 kB free and decoded they take {images * 32 * 32 * 3 / 1000:.1f} kB" in said


def test_what_is_decoded_already_needs_no_more_room(opened, gpu, monkeypatch):
    run = opened(True)
    for images in (run.train, run.test):
        run.batches(images)
    gpu()
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda path: Disk(decoded_cache.SPARE + 100))
    assert opened("auto").config.data.cache is True


@pytest.mark.parametrize("made", [True, False])
def test_results_that_are_there_stay_done_wherever_they_are_opened(opened, gpu, made):
    execute(opened(made), "split")
    for _ in range(2):
        run = opened("auto")
        assert run.config.data.cache is made and run.artifact("split").why_not_done() is None
        gpu()


def test_results_of_other_data_decide_nothing(opened, gpu):
    execute(opened(False), "split")
    gpu()
    assert opened("auto", crop_share=0.75).config.data.cache is True


def test_a_few_of_the_decoded_images_are_the_same_pixels_as_among_all(opened):
    run = opened(True)
    whole = torch.cat([images for images, _ in run.batches(run.train)])
    few = torch.cat([images for images, _ in run.batches(run.train, only=np.array([0, 3, 4]))])
    assert torch.equal(few, whole[[0, 3, 4]])
