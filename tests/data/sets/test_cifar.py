"""CIFAR-10 and CIFAR-100 in their own layout in miniature, read by torchvision's code: its checksums are the stand-in's."""

import hashlib
import io
import pickle
import tarfile
import urllib.error

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Cifar
from osdtw_lib.data import sets
from osdtw_lib.data.sets import cifar as module
from osdtw_lib.data.sets import load_source
from osdtw_lib.errors import UserError
from osdtw_lib.longtail import exponential_class_counts

EACH, TEST_EACH = 6, 2
LARGEST, RATIO = 5, 5.0
# the python version's names: batches of training images, of test images, names of the classes, and their keys
LAYOUT = {
    "cifar10": ([f"data_batch_{i}" for i in range(1, 6)], "test_batch", "batches.meta", "labels", "label_names"),
    "cifar100": (["train"], "test", "meta", "fine_labels", "fine_label_names"),
}


@pytest.fixture(params=LAYOUT)
def name(request):
    return request.param


@pytest.fixture
def kind(name):
    return module.KINDS[name]


def split_of(source, data, seed):
    return sets.of(data).split(source, data, seed)


def entries(classes: int, each: int, seed: int) -> dict:
    """As the python version stores a batch: rows of 3072 bytes, the red plane first."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), each))
    return {"data": rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8), "labels": labels}


@pytest.fixture
def archive(tmp_path, monkeypatch, name, kind):
    """The archive in miniature, its checksums made the published ones. No network: fetching fails."""
    reader, (batches, test, meta, key, names_key) = kind.reader, LAYOUT[name]
    assert [file for file, _ in reader.train_list] == batches and [file for file, _ in reader.test_list] == [test]
    made = tmp_path / "made" / reader.base_folder
    made.mkdir(parents=True)
    whole = entries(kind.classes, EACH, 0)
    parts = np.array_split(np.arange(len(whole["labels"])), len(batches))
    contents = {file: {part: whole[part][rows] for part in whole} for file, rows in zip(batches, parts)}
    contents[test] = entries(kind.classes, TEST_EACH, 1)
    contents = {file: {"data": batch["data"], key: batch["labels"].tolist()} for file, batch in contents.items()}
    contents[meta] = {names_key: [f"c{k}" for k in range(kind.classes)]}
    sums = {}
    for file, value in contents.items():
        data = pickle.dumps(value, protocol=2)
        (made / file).write_bytes(data)
        sums[file] = hashlib.md5(data).hexdigest()
    path = tmp_path / "made" / reader.filename
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(made, reader.base_folder)
    monkeypatch.setattr(reader, "train_list", [[file, sums[file]] for file in batches])
    monkeypatch.setattr(reader, "test_list", [[test, sums[test]]])
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": sums[meta]})
    monkeypatch.setattr(reader, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())

    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    return path


@pytest.fixture
def lying(archive, tmp_path):
    """A folder into which the archive was put by hand."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    (folder / archive.name).write_bytes(archive.read_bytes())
    return folder


@pytest.fixture
def data(name):
    """data(folder, key=value): the section, for the miniature."""
    small = {"dataset": name, "largest": LARGEST, "imbalance_ratio": RATIO}
    return lambda folder, **changes: Cifar(**small | {"folder": str(folder)} | changes)


def test_an_archive_put_there_by_hand_is_unpacked_and_read_offline(lying, data, kind):
    made = load_source(data(lying, download=False))
    expected = entries(kind.classes, EACH, 0)
    assert made.images.pixels.shape == (kind.classes * (EACH + TEST_EACH), 32, 32, 3) and made.images.pixels.dtype == np.uint8
    assert made.images.labels[: kind.classes * EACH].tolist() == expected["labels"].tolist()
    assert np.array_equal(made.images.pixels[17, :, :, 1].ravel(), expected["data"][17, 1024:2048])  # the green plane
    assert made.class_names[3] == "c3" and made.title == f"{kind.title}-IR5"
    (lying / kind.reader.filename).unlink()
    assert load_source(data(lying)).fingerprint() == made.fingerprint()  # unpacked once


def test_the_split_has_the_profile_and_the_data_sets_own_test_set(lying, data, kind):
    made, n = load_source(data(lying)), kind.classes
    train, test = split_of(made, data(lying), seed=0)
    counts = made.counts(train)
    assert counts.tolist() == [int(5 * 0.2 ** (k / (n - 1))) for k in range(n)]
    assert test.tolist() == list(range(n * EACH, n * (EACH + TEST_EACH))) and train.max() < n * EACH
    caption = f"{kind.title}-IR5, {counts.sum()} training images, {n} classes (5 to 1 a class); test: {2 * n} images"
    assert made.caption(train, test) == caption
    again, _ = split_of(made, data(lying), seed=0)
    other, _ = split_of(made, data(lying), seed=1)
    assert np.array_equal(train, again) and not np.array_equal(train, other)


@pytest.mark.parametrize(
    "name, ratio, images",  # as they stand in the field's papers
    [
        ("cifar10", 10, 20_431),
        ("cifar10", 50, 13_996),
        ("cifar10", 100, 12_406),
        ("cifar100", 10, 19_573),
        ("cifar100", 50, 12_608),
        ("cifar100", 100, 10_847),
    ],
)
def test_the_published_profiles_have_the_published_sizes(name, ratio, images):
    known = module.published(Cifar(dataset=name, imbalance_ratio=float(ratio)))
    assert known[:2] == (images, module.KINDS[name].classes)


def test_the_published_profile_asks_for_more_than_the_miniature_has(lying, name, data):
    full = Cifar(dataset=name)
    with pytest.raises(UserError, match=f"class 'c0' has 6 images, {full.largest} for training were asked for"):
        split_of(load_source(data(lying)), full, 0)


def test_a_ratio_that_would_empty_a_class_is_one_line(name, data, tmp_path):
    with pytest.raises(UserError, match="^data: largest 5 at imbalance_ratio 6.0 leaves the smallest class without an image"):
        module.published(data(tmp_path, imbalance_ratio=6.0))


def test_what_is_left_out_is_the_sets_own_and_the_key_holds_the_values():
    left_out = [Cifar(dataset=name).model_dump(mode="json") for name in ("cifar10", "cifar100")]
    ten, hundred = ({key: one[key] for key in ("dataset", "folder", "download", "largest")} for one in left_out)
    assert ten == {"dataset": "cifar10", "folder": "data/cifar10", "download": True, "largest": 5000}
    assert hundred == {"dataset": "cifar100", "folder": "data/cifar100", "download": True, "largest": 500}


@pytest.mark.parametrize("params, images", [("cifar10_ir100", 12_406), ("cifar100_ir100", 10_847)])
def test_the_parameter_files_ask_for_the_published_profile(params, images):
    data = load_config(PROJECT / "params" / f"{params}.yaml").data
    assert module.published(data)[0] == images and data.folder == f"data/{data.dataset}"


def test_it_is_fetched_once_where_there_is_a_network(archive, data, kind, tmp_path, monkeypatch, capsys):
    class Answer(io.BytesIO):
        url, length = None, archive.stat().st_size

    asked = []

    def urlopen(request, *_, **__):
        asked.append(request.full_url)
        return Answer(archive.read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    for _ in range(2):
        assert len(load_source(data(tmp_path / "new" / "cifar")).images) == kind.classes * (EACH + TEST_EACH)
    assert asked == 2 * [kind.reader.url]  # where it lies, then it
    assert f"fetching {kind.title} ({kind.megabytes} MB)" in capsys.readouterr().out


def test_without_a_network_it_says_which_file_to_put_where(archive, data, kind, tmp_path):
    with pytest.raises(UserError) as refused:
        module.load(data(tmp_path / "none"))
    said = str(refused.value)
    assert f"{kind.title} is not in {tmp_path}/none, and could not be fetched" in said and "no route to host" in said
    assert f"fetch {kind.reader.url} ({kind.megabytes} MB) and put it into {tmp_path}/none" in said and "\n" not in said


def test_where_it_may_not_be_fetched_it_says_so(archive, data, kind, tmp_path):
    with pytest.raises(UserError, match=f"{kind.title} is not in .*or set data.download: true"):
        module.load(data(tmp_path / "none", download=False))


@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_archive_is_named(lying, data, kind, download):
    path = lying / kind.reader.filename
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{path} is damaged or cut short.*fetch "):
        module.load(data(lying, download=download))


def test_a_damaged_folder_is_healed_from_the_archive_or_named(lying, data, name, kind):
    load_source(data(lying))
    batch = lying / kind.reader.base_folder / LAYOUT[name][0][-1]
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-5])
    load_source(data(lying, download=False))
    assert batch.read_bytes() == whole
    batch.write_bytes(whole[:-5])
    (lying / kind.reader.filename).unlink()
    with pytest.raises(UserError, match=f"{kind.reader.base_folder} is incomplete or damaged; fetch "):
        module.load(data(lying, download=False))


def test_the_time_limit_of_other_connections_is_left_alone(archive, data, tmp_path):
    before = module.socket.getdefaulttimeout()
    with pytest.raises(UserError):
        module.load(data(tmp_path / "none"))
    assert module.socket.getdefaulttimeout() == before


@pytest.mark.journey
def test_the_parameter_file_trains(lying, train, name, kind):
    """Its recipe on the archive in miniature, a tiny network from masked autoencoding, one epoch a stage.

    CIFAR-10's recipe is CIFAR-100's, so that its other stages would show nothing more.
    """
    small = f"data.folder={lying}", "data.download=false", f"data.largest={LARGEST}", f"data.imbalance_ratio={RATIO}"
    stages = ("split", "start", "baselines") if name == "cifar10" else ()
    run, n = train(f"{name}_ir100", *small, "model.init=masked_autoencoding", stages=stages), kind.classes
    assert len(run.train) == exponential_class_counts(LARGEST, RATIO, n).sum() and len(run.test) == n * TEST_EACH
    if stages:
        assert run.read("baselines/balanced_bce", "network")["head.weight"].isfinite().all()
    else:
        accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
        assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()


def test_both_parameter_files_have_one_recipe():
    ten, hundred = (load_config(PROJECT / "params" / f"{name}_ir100.yaml") for name in LAYOUT)
    left = {"name", "data"}
    assert ten.model_dump(exclude=left) == hundred.model_dump(exclude=left)
