"""CIFAR-100 in its own layout in miniature, read by torchvision's own code: its checksums replaced by the stand-in's."""

import hashlib
import io
import pickle
import tarfile
import urllib.error

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.config.schema import Cifar100
from osdtw_lib.data import sets
from osdtw_lib.data.sets import cifar100 as module
from osdtw_lib.data.sets import load_source
from osdtw_lib.data.sets.cifar100 import CIFAR100
from osdtw_lib.errors import UserError
from osdtw_lib.longtail import exponential_class_counts

CLASSES, EACH, TEST_EACH = 100, 6, 2
SMALL = {"dataset": "cifar100", "largest": 5, "imbalance_ratio": 5.0}


def split_of(source, data, seed):
    return sets.of(data).split(source, data, seed)


def entry(each: int, seed: int) -> dict:
    """As the python version stores a batch: rows of 3072 bytes, the red plane first."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), each)).tolist()
    return {
        "data": rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8),
        "fine_labels": labels,
        "coarse_labels": [k // 5 for k in labels],
        "filenames": [f"{i}.png" for i in range(len(labels))],
    }


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive in miniature, its checksums made the published ones. No network: fetching fails."""
    made = tmp_path / "made" / CIFAR100.base_folder
    made.mkdir(parents=True)
    names = {"fine_label_names": [f"c{k}" for k in range(CLASSES)]}
    contents = {"train": entry(EACH, 0), "test": entry(TEST_EACH, 1), "meta": names}
    sums = {}
    for name, value in contents.items():
        data = pickle.dumps(value, protocol=2)
        (made / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()
    path = tmp_path / "made" / CIFAR100.filename
    with tarfile.open(path, "w:gz") as tar:
        tar.add(made, CIFAR100.base_folder)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": sums["meta"]})
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())

    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    return path


@pytest.fixture
def lying(archive, tmp_path):
    """A folder into which the archive was put by hand."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    (folder / CIFAR100.filename).write_bytes(archive.read_bytes())
    return folder


def data(folder, **changes):
    return Cifar100(**SMALL | {"folder": str(folder)} | changes)


def test_an_archive_put_there_by_hand_is_unpacked_and_read_offline(lying):
    made = load_source(data(lying, download=False))
    expected = entry(EACH, 0)
    assert made.images.pixels.shape == (CLASSES * (EACH + TEST_EACH), 32, 32, 3) and made.images.pixels.dtype == np.uint8
    assert made.images.labels[: CLASSES * EACH].tolist() == expected["fine_labels"]
    assert np.array_equal(made.images.pixels[7, :, :, 1].ravel(), expected["data"][7, 1024:2048])  # the green plane
    assert made.class_names[3] == "c3" and made.title == "CIFAR-100-IR5"
    (lying / CIFAR100.filename).unlink()
    assert load_source(data(lying)).fingerprint() == made.fingerprint()  # unpacked once


def test_the_split_has_the_profile_and_the_data_sets_own_test_set(lying):
    made = load_source(data(lying))
    train, test = split_of(made, data(lying), seed=0)
    counts = made.counts(train)
    assert counts.tolist() == [int(5 * 0.2 ** (k / 99)) for k in range(CLASSES)]
    assert test.tolist() == list(range(CLASSES * EACH, CLASSES * (EACH + TEST_EACH))) and train.max() < CLASSES * EACH
    caption = f"CIFAR-100-IR5, {counts.sum()} training images, 100 classes (5 to 1 a class); test: 200 images"
    assert made.caption(train, test) == caption
    again, _ = split_of(made, data(lying), seed=0)
    other, _ = split_of(made, data(lying), seed=1)
    assert np.array_equal(train, again) and not np.array_equal(train, other)


def test_the_published_profile_asks_for_10847_images(lying):
    with pytest.raises(UserError, match="class 'c0' has 6 images, 500 for training were asked for"):
        split_of(load_source(data(lying)), Cifar100(dataset="cifar100"), 0)
    full = Cifar100(dataset="cifar100")
    assert exponential_class_counts(full.largest, full.imbalance_ratio, 100).sum() == 10_847


def test_it_is_fetched_once_where_there_is_a_network(archive, tmp_path, monkeypatch, capsys):
    class Answer(io.BytesIO):
        url, length = None, archive.stat().st_size

    asked = []

    def urlopen(request, *_, **__):
        asked.append(request.full_url)
        return Answer(archive.read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    for _ in range(2):
        assert len(load_source(data(tmp_path / "new" / "cifar")).images) == CLASSES * (EACH + TEST_EACH)
    assert asked == 2 * [CIFAR100.url] and "fetching CIFAR-100 (169 MB)" in capsys.readouterr().out  # where it lies, then it


def test_without_a_network_it_says_which_file_to_put_where(archive, tmp_path):
    with pytest.raises(UserError) as refused:
        module.load(data(tmp_path / "none"))
    said = str(refused.value)
    assert f"CIFAR-100 is not in {tmp_path}/none, and could not be fetched" in said and "no route to host" in said
    assert f"fetch {CIFAR100.url} (169 MB) and put it into {tmp_path}/none" in said and "\n" not in said


def test_where_it_may_not_be_fetched_it_says_so(archive, tmp_path):
    with pytest.raises(UserError, match="CIFAR-100 is not in .*or set data.download: true"):
        module.load(data(tmp_path / "none", download=False))


@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_archive_is_named(lying, download):
    path = lying / CIFAR100.filename
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{path} is damaged or cut short.*fetch "):
        module.load(data(lying, download=download))


def test_a_damaged_folder_is_healed_from_the_archive_or_named(lying):
    load_source(data(lying))
    batch = lying / CIFAR100.base_folder / "train"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-5])
    load_source(data(lying, download=False))
    assert batch.read_bytes() == whole
    batch.write_bytes(whole[:-5])
    (lying / CIFAR100.filename).unlink()
    with pytest.raises(UserError, match="cifar-100-python is incomplete or damaged; fetch "):
        module.load(data(lying, download=False))


def test_the_time_limit_of_other_connections_is_left_alone(archive, tmp_path):
    before = module.socket.getdefaulttimeout()
    with pytest.raises(UserError):
        module.load(data(tmp_path / "none"))
    assert module.socket.getdefaulttimeout() == before


def test_the_parameter_file_trains(lying, train):
    """Its recipe on the archive in miniature, a tiny network from masked autoencoding, one epoch a stage."""
    small = [f"data.{key}={value}" for key, value in SMALL.items() if key != "dataset"]
    run = train("cifar100_ir100", f"data.folder={lying}", "data.download=false", *small, "model.init=masked_autoencoding")
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()
    assert len(run.train) == exponential_class_counts(5, 5.0, CLASSES).sum() and len(run.test) == CLASSES * TEST_EACH
