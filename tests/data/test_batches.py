"""Batches that come out the same again, from arrays and from files, whatever the number of processes."""

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_lib.backend import distributed
from osdtw_lib.config.schema import Config, Digits, Files, Recipe
from osdtw_lib.data import readers as module
from osdtw_lib.data.batches import Batches, normalized
from osdtw_lib.data.image_files import ImageFiles
from osdtw_lib.data.source import LabelledImages
from osdtw_lib.errors import UserError

PHOTO = {"random_crop": (0.3, 1.0), "flip": True, "rand_augment": (9.0, 0.5), "random_erasing": 0.5}


def arrays(n=11, size=4, channels=1):
    rng = np.random.default_rng(0)
    return LabelledImages(rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8), np.arange(n) % 3)


@pytest.fixture
def photographs(tmp_path):
    """Ten JPEGs of different sizes."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"a photo {i}.jpg" for i in range(10)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).save(path)
    return ImageFiles(np.array(list(map(str, paths))), np.arange(10) % 3, np.array([p.name for p in paths]))


def batches(images=None, size=(4, 4), seed=0, batch_size=4, data=None, loader_workers=0, **recipe):
    images = arrays() if images is None else images
    data = data or Digits(dataset="digits")
    config = Config.model_construct(
        seed=seed, data=data, recipe=Recipe(batch_size=batch_size, **recipe), loader_workers=loader_workers
    )
    return Batches(images, config, size, 3)


def of_files(images, loader_workers=0, **recipe):
    data = Files(dataset="files", train="x", mean=[0.5] * 3, std=[0.5] * 3)
    return batches(images, (32, 32), data=data, loader_workers=loader_workers, **recipe)


def flat(made, epoch):
    parts = [part for step in made.epoch(epoch) for part in step]
    return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


def test_normalising_scales_each_channel():
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    expected = torch.tensor([-0.5 / 0.25, (1 - 0.1) / 0.2]).view(1, 2, 1, 1)
    torch.testing.assert_close(normalized(pixels, (0.5, 0.1), (0.25, 0.2)), expected)


def test_an_epoch_holds_every_image_once():
    made = batches()
    assert [[len(p.labels) for p in step] for step in made.epoch(0)] == [[4], [4], [3]] and len(made) == 3
    shuffled, labels = flat(made, 0)
    images, own = map(torch.cat, zip(*made))
    order = [int((images == x).flatten(1).all(1).nonzero()) for x in shuffled]
    assert sorted(order) == list(range(11)) and order != list(range(11))
    assert torch.equal(own[order], labels)


def test_an_epoch_is_shuffled_by_its_seed_and_number_alone():
    late = batches(random_shift=1)
    for number in range(3):
        flat(late, number)
    assert torch.equal(flat(late, 5)[0], flat(batches(random_shift=1), 5)[0])
    assert not torch.equal(flat(batches(), 5)[1], flat(batches(), 6)[1])
    assert not torch.equal(flat(batches(), 5)[1], flat(batches(seed=1), 5)[1])


def test_iterating_gives_the_images_in_order_each_time_whatever_the_recipe():
    made = batches(random_shift=2, mixup=0.8)
    expected = normalized(torch.from_numpy(arrays().pixels).permute(0, 3, 1, 2), (0.1307,), (0.3081,))
    for _ in range(2):
        x, y = map(torch.cat, zip(*made))
        assert torch.equal(x, expected) and y.tolist() == arrays().labels.tolist()


def test_every_second_batch_is_what_a_second_process_reads():
    made = batches()
    every = list(made)
    for first in (0, 1):
        for (x, y), (a, b) in zip(made.share(first, 2), every[first::2], strict=True):
            assert torch.equal(x, a) and torch.equal(y, b)


def test_parts_of_a_batch_add_up_to_it():
    made = batches(batch_size=8, micro_batch=3)
    steps = [list(step) for step in made.epoch(0)]
    assert [[len(p.labels) for p in parts] for parts in steps] == [[3, 3, 2], [3]]
    assert all(sum(p.share for p in parts) == pytest.approx(1) for parts in steps)
    assert [p.number for p in steps[0]] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["arrays", "files"])
def test_two_processes_have_the_parts_that_one_has(monkeypatch, photographs, kind):
    recipe = {"batch_size": 6, "micro_batch": 2, "mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5}

    def made():
        return batches(random_shift=1, **recipe) if kind == "arrays" else of_files(photographs, **recipe | PHOTO)

    whole = [list(step) for step in made().epoch(3)]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        for parts, all_parts in zip(made().epoch(3), whole, strict=True):
            for part, expected in zip(parts, [p for p in all_parts if p.number % 2 == rank], strict=True):
                assert torch.equal(part.images, expected.images) and torch.equal(part.labels, expected.labels)


def test_mixed_labels_are_distributions_over_all_classes():
    for step in batches(mixup=0.8, cutmix=1.0).epoch(0):
        for part in step:
            assert part.labels.shape == (len(part.images), 3)
            torch.testing.assert_close(part.labels.sum(1), torch.ones(len(part.images)))


def test_a_memory_map_gives_what_the_array_gives(tmp_path, monkeypatch):
    images = arrays(n=11, size=8, channels=3)
    np.save(tmp_path / "pixels.npy", images.pixels)
    data = Files(dataset="files", train="x", crop_share=0.5)
    options = {"size": (4, 4), "data": data, **PHOTO}
    expected = flat(batches(images, **options), 1)[0], torch.cat([x for x, _ in batches(images, **options)])
    monkeypatch.setattr(module, "ON_DEVICE_BYTES", 0)
    mapped = LabelledImages(np.load(tmp_path / "pixels.npy", mmap_mode="r"), images.labels)
    made = batches(mapped, **options)
    assert torch.equal(flat(made, 1)[0], expected[0]) and torch.equal(torch.cat([x for x, _ in made]), expected[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_files_come_out_the_same_however_many_processes_read_them(photographs, workers):
    made, alone = of_files(photographs, workers, **PHOTO), of_files(photographs, **PHOTO)
    assert torch.equal(flat(made, 2)[0], flat(alone, 2)[0])
    assert not torch.equal(flat(made, 2)[0], flat(made, 3)[0])
    x, y = map(torch.cat, zip(*made))
    assert x.shape == (10, 3, 32, 32) and y.tolist() == photographs.labels.tolist()
    assert torch.equal(x, torch.cat([x for x, _ in alone]))


def test_evaluation_sees_the_middle_of_a_photograph(photographs, tmp_path):
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 255  # the middle square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    one = ImageFiles(np.array([str(tmp_path / "wide.png")]), np.zeros(1, np.int64), np.array(["wide.png"]))
    ((x, _),) = of_files(one)
    assert x.min() == 1.0 and x.shape == (1, 3, 32, 32)  # white throughout, normalised


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_met_in_training_names_the_file(photographs, workers):
    path = photographs.paths[4]
    with open(path, "rb+") as file:
        file.truncate(200)
    with pytest.raises(UserError, match="a photo 4.jpg: cannot be read") as caught:
        flat(of_files(photographs, workers, **PHOTO), 0)
    assert "\n" not in str(caught.value)


def test_where_a_socket_has_no_room_images_are_read_all_the_same(photographs, tmp_path, monkeypatch, capsys):
    deep = tmp_path / ("temporary files " * 6)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    expected = [images for images, _ in batches(photographs, (8, 8), data=Files(dataset="files", train="here"))]
    found = [images for images, _ in batches(photographs, (8, 8), data=Files(dataset="files", train="here"), loader_workers=1)]
    assert all(map(torch.equal, expected, found)) and len(expected) == len(found)
    assert module.readers(2, torch.device("cpu")) == 0 and capsys.readouterr().out.count("set TMPDIR") == 1
