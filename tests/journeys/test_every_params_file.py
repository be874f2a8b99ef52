"""Each parameter file trained on a stand-in in its data set's own format: its recipe, a tiny network, one epoch a stage.

CIFAR's stand in test_cifar.py, beside the archives in miniature.
"""

import json
import zlib
from pathlib import Path

import pandas as pd
import pytest
import torch

from osdtw_lib import load_predictor
from osdtw_lib.artifacts.files import read_tensors
from osdtw_lib.config.schema import Model
from osdtw_lib.models.vit import build_vit

COUNTS = (130, 24, 8, 3)  # training images a class
EACH = {"val": 2, "test": 3}


@pytest.fixture
def published(tmp_path, picture):
    """published(tree, lists) writes images and the three list files of a published long-tailed set, returns the overrides.

    Both are functions of (part, class, number): where an image lies, and what the list calls it.
    """

    def write(title: str, tree, listed) -> list[str]:
        overrides = [f"data.root={tmp_path / 'images'}", "data.protocol=null"]  # the counts are not the published ones
        for part in ("train", "val", "test"):
            lines = []
            for k, count in enumerate(COUNTS):
                for i in range(count if part == "train" else EACH[part]):
                    path = tmp_path / "images" / tree(part, k, i)
                    picture(path, size=(44, 36), seed=zlib.crc32(f"{part}/{k}/{i}".encode()))
                    lines.append(f"{listed(part, k, i)} {k}\n")
            path = tmp_path / f"{title}_{part}.txt"
            path.write_text("".join(lines))
            overrides.append(f"data.{part}={path}")
        return overrides

    return write


@pytest.fixture
def weights(tmp_path) -> str:
    """A file of starting weights, as `model.init` names one."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 16, "width": 16, "depth": 3, "heads": 2}
    network = build_vit(Model(**sizes, pooling="avg", class_token=True), 7)
    torch.save({"model": network.state_dict()}, tmp_path / "mae.pth")
    return f"model.init={tmp_path / 'mae.pth'}"


def check(run, training_images: int, test_images: int) -> None:
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()
    assert len(run.train) == training_images and len(run.test) == test_images
    moved = read_tensors(run.artifact("stage1").folder / "head.safetensors")
    start = read_tensors(run.artifact("start").folder / "weights.safetensors")
    assert all(torch.isfinite(t).all() for t in moved.values())
    assert any(not torch.equal(moved[name], start[name]) for name in start if name.startswith("blocks."))


def imagenet(part: str, k: int, i: int) -> str:
    """ImageNet-LT's val list names training images; its test list validation images."""
    if part == "test":
        return f"val/n0144000{k}/ILSVRC2012_val_{9 * i + k:08}.JPEG"
    return f"train/n0144000{k}/n0144000{k}_{i + 1000 * (part == 'val')}.JPEG"


@pytest.mark.parametrize("class_folders", [True, False])
def test_imagenet_lt(train, published, weights, class_folders):
    """The validation images as ILSVRC ships them, without class folders, or sorted into them."""

    def tree(part, k, i):
        path = Path(imagenet(part, k, i))
        return path if class_folders or part != "test" else Path("val") / path.name

    run = train("imagenet_lt", *published("ImageNet_LT", tree, imagenet), weights)
    check(run, sum(COUNTS), EACH["test"] * len(COUNTS))


def test_imagenet_lt_from_nothing(train, published):
    """Its one row alone: LayerScale learns, and the loss is not adjusted."""
    files = published("ImageNet_LT", imagenet, imagenet)
    run = train("imagenet_lt_deit3", *files, "recipe.batch_size=64", stages=("split", "start", "baselines"))
    row = run.methods["balanced_bce"]
    assert run.artifact("start").notes()["origin"].startswith("random weights") and not row.likelihood().adjustment.any()
    start, moved = run.read("start", "weights"), run.read("baselines/balanced_bce", "network")
    assert len(learnt := [name for name in moved if name.endswith(".gamma")]) == 6
    assert all(torch.isfinite(moved[name]).all() and not torch.equal(moved[name], start[name]) for name in learnt)


def test_imagenet_lt_at_384_pixels(train, published, weights):
    """What it has of its own: twice the side of its start, so that positions are resampled; the whole square evaluated."""
    files = published("ImageNet_LT", imagenet, imagenet)
    stages = ("split", "start", "baselines")
    run = train("imagenet_lt_384", *files, weights, "model.image_size=64", stages=stages)
    assert "position embedding resampled from 2 x 2 to 4 x 4" in run.artifact("start").notes()["origin"]
    trained, start = run.read("baselines/balanced_bce", "network"), run.read("start", "weights")
    assert trained["pos_embed"].shape == (1, 17, 16) and not torch.equal(trained["pos_embed"], start["pos_embed"])
    assert len(run.train) == sum(COUNTS) and len(run.test) == EACH["test"] * len(COUNTS)


def test_inaturalist2018(train, tmp_path, picture, weights):
    """Annotations as published, images where the archive puts them; the categories are in no order of their images."""
    overrides = [f"data.root={tmp_path}", "data.protocol=null"]  # the counts are not the published ones
    categories = [{"id": k, "name": f"species {9 - k}", "supercategory": "Aves"} for k in range(len(COUNTS))]
    for part, first in (("train", 0), ("val", 500_000)):
        images, annotations = [], []
        for k, count in enumerate(COUNTS):
            for _ in range(count if part == "train" else 3):
                number = first + len(images)
                name = f"train_val2018/Aves/{k}/{zlib.crc32(str(number).encode()):032x}.jpg"
                picture(tmp_path / name, size=(44, 36), seed=number)
                images.append({"id": number, "width": 44, "height": 36, "file_name": name})
                annotations.append({"id": number, "image_id": number, "category_id": k})
        path = tmp_path / f"{part}2018.json"
        path.write_text(json.dumps({"images": images[::-1], "categories": categories, "annotations": annotations}))
        overrides.append(f"data.{part}={path}")
    run = train("inaturalist2018", *overrides, weights, "fisher.batch_size=64")
    check(run, sum(COUNTS), 3 * len(COUNTS))
    assert run.class_names == ("species 9", "species 8", "species 7", "species 6") and run.class_counts.tolist() == list(COUNTS)
    assert run.caption.startswith("train2018, 165 training images, 4 classes (130 to 3 a class); val: 12 images")


PLACES = ("airfield", "airport_terminal", "apartment_building/outdoor", "yard")


def test_places_lt(train, published, weights):
    """The lists' names (data_256/a/... and val/...), the folders of the download (data_256/ and val_256/)."""

    def listed(part, k, i):
        name = PLACES[k]
        if part == "test":
            return f"val/{name}/Places365_val_{10 * k + i:08}.jpg"
        return f"data_256/{name[0]}/{name}/{i + 1000 * (part == 'val'):08}.jpg"

    def tree(part, k, i):
        path = Path(listed(part, k, i))
        return Path("val_256") / path.name if part == "test" else path

    run = train("places_lt", *published("Places_LT", tree, listed), weights)
    check(run, sum(COUNTS), EACH["test"] * len(COUNTS))


def test_own_images(train, tree):
    counts = {"a dog": 30, "cat": 14, "emu": 6, "fox": 3}
    run = train("own_images", f"data.train={tree(counts, suffix='.png')}", "data.test_per_class=2")
    check(run, sum(counts.values()) - len(run.test), len(run.test))
    assert load_predictor(run.folder).class_names == tuple(counts)
