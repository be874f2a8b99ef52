"""All notebooks on photographs named by list files in ImageNet-LT's form, two processes sharing the training."""

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from osdtw_lib import load_predictor
from osdtw_lib.__main__ import main
from osdtw_lib.config.load import load_config
from osdtw_lib.stages import NOTEBOOKS
from osdtw_lib.stages.run import Run

COUNTS = (28, 15, 9, 6, 4, 3)  # training images a class
TEST = 3


def photograph(path, label, rng):
    """A noisy picture whose colour tells the class, in the sizes and modes that real trees have."""
    height, width = rng.integers(36, 60, 2)
    base = np.array([(40 * label) % 256, (90 * label + 30) % 256, 255 - 40 * label])
    pixels = (base + rng.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert("CMYK" if rng.random() < 0.1 else "RGB").save(path, quality=90)


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """A folder with images/ and two list files in the published form."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for part, counts in (("train", COUNTS), ("val", [TEST] * len(COUNTS))):
        lines = []
        for label, count in enumerate(counts):
            for i in range(count):
                name = f"{part}/n0000000{label}/n0000000{label}_{i} copy.JPEG"
                photograph(folder / "images" / name, label, rng)
                lines.append(f"{name} {label}\n")
        (folder / f"LT_{part}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(lists):
    recipe = {
        "batch_size": 16,
        "micro_batch": 4,
        "random_crop": [0.5, 1.0],
        "flip": True,
        "rand_augment": [9, 0.5],
        "mixup": 0.8,
        "cutmix": 1.0,
        "random_erasing": 0.25,
        "layer_decay": 0.75,
    }
    values = {
        "name": "photographs",
        "outputs": str(lists / "outputs"),
        "workers": 2,
        "loader_workers": 1,
        "data": {
            "dataset": "files",
            "train": str(lists / "LT_train.txt"),
            "test": str(lists / "LT_val.txt"),
            "root": str(lists / "images"),
        },
        "model": {"image_size": 32, "patch_size": 16, "width": 16, "depth": 3, "heads": 2, "head_init_std": 2e-5},
        "recipe": recipe,
        "baselines": ["balanced_bce"],
        "stage0": {"epochs": 1, "warmup_epochs": 0, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
        "stage1": {"epochs": 1, "warmup_epochs": 0},
        "stage2": {"epochs": 1, "warmup_epochs": 0},
        "stage3": {"epochs": 1},
    }
    path = lists / "photographs.yaml"
    path.write_text(yaml.safe_dump(values))
    assert main(["run", str(path)]) == 0
    return Run(load_config(path))


def test_every_notebook_leaves_its_page(run):
    missing = [book for book in NOTEBOOKS if not (run.folder / f"{book}.html").exists()]
    assert missing == [] and (run.folder / "index.html").exists()


def test_tables_say_what_they_stand_on(run):
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()
    assert list(accuracy.index) == ["balanced_bce", "stage1", "stage2", "osdtw_assembled", "osdtw"]
    page = (run.folder / "index.html").read_text()
    line = next(line for line in page.splitlines() if "not run: " in line)
    assert "--from 06" in line and all(name in line for name in (" ce,", "logit_adjusted_ce,")) and "balanced_bce" not in line
    assert f"{sum(COUNTS)} training images" in page and f"test: {TEST * len(COUNTS)} images" in page
    assert "masked autoencoding of the 65 training images" in page


def test_the_predictor_names_the_class_of_a_file(run, lists, command):
    file = next((lists / "images" / "val" / "n00000000").iterdir())
    status, out, err = command("predict", run.folder, file, "--top", 2)
    assert status == 0 and out.count(str(file)) == 2, err
    (row,) = load_predictor(run.folder)([Image.open(file)])
    assert out.splitlines()[0].split("\t")[1] == run.class_names[row.argmax()]


def test_an_image_that_went_missing_is_named_before_anything_trains(run, lists, refused, tmp_path):
    values = yaml.safe_load((lists / "photographs.yaml").read_text())
    short = tmp_path / "short.txt"
    short.write_text((lists / "LT_train.txt").read_text() + "train/n00000000/gone.JPEG 0\n")
    values["data"]["train"], values["outputs"] = str(short), str(tmp_path / "outputs")
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(values))
    assert "gone.JPEG" in refused("split", tmp_path / "short.yaml")
