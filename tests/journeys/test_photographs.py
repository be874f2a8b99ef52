"""Every stage, the report and the predictor on photographs named by list files in ImageNet-LT's form."""

import pandas as pd
import pytest
import yaml
from PIL import Image
from small_photographs import COUNTS, RECIPE, TEST, write_photographs

from osdtw_lib import load_predictor
from osdtw_lib.config.load import load_config
from osdtw_lib.report.index import write_index
from osdtw_lib.stages import CONTENTS, execute
from osdtw_lib.stages.run import Run


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """A folder with images/ and two list files in the published form."""
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def run(lists):
    values = {
        "name": "photographs",
        "outputs": str(lists / "outputs"),
        "loader_workers": 1,
        "data": write_photographs(lists),
        "model": {"image_size": 32, "patch_size": 16, "width": 16, "depth": 3, "heads": 2, "head_init_std": 2e-5},
        "recipe": RECIPE,
        "baselines": ["balanced_bce"],
        "stage0": {"epochs": 1, "warmup_epochs": 0, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
        "stage1": {"epochs": 1, "warmup_epochs": 0},
        "stage2": {"epochs": 1, "warmup_epochs": 0},
        "stage3": {"epochs": 1},
        "theory": {"repetitions": 400, "images": 40},
    }
    path = lists / "photographs.yaml"
    path.write_text(yaml.safe_dump(values))
    run = Run(load_config(path))
    for name in (name for name, stage in CONTENTS.items() if not stage.optional):
        execute(run, name)
    write_index(run.folder)
    return run


def test_tables_say_what_they_stand_on(run):
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")
    assert accuracy.loc[["balanced_bce", "stage1", "stage2", "osdtw"], "all"].between(0, 100).all()
    assert list(accuracy.index) == ["balanced_bce", "stage1", "stage2", "osdtw_assembled", "osdtw"]
    page = (run.folder / "index.html").read_text()
    line = next(line for line in page.splitlines() if "not run for this table: " in line)
    assert "--from 06" in line and all(name in line for name in (" ce,", "logit_adjusted_ce,")) and "balanced_bce" not in line
    assert f"{sum(COUNTS)} training images" in page and f"test: {TEST * len(COUNTS)} images" in page
    assert "masked autoencoding of the 65 training images" in page


def test_predictions_and_pictures_name_their_files(run):
    predictions = run.artifact("tables").table("predictions")
    assert predictions["file"].tolist() == run.test.names.tolist() and len(set(predictions["file"])) == len(run.test)
    page = (run.folder / "pictures" / "page_0001.html").read_text(encoding="utf-8")
    wrong = predictions[predictions["label"] != predictions["predicted"]]["file"]
    shown = [f'title="{file}"' in page for file in wrong]
    assert sum(shown) == page.count('<figure class="one wrong">') > 0


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
