"""Every class in pictures: what stands on the pages, how large they get, and how many images are read for them."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.data.source import LabelledImages
from osdtw_lib.pictures import pages, stage

ODD = "<!--<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(finished):
    return finished.artifact("pictures").require().folder


def test_every_class_has_its_place_and_every_link_leads_somewhere(folder, finished):
    overview = (folder / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="(page_\d+\.html)#(class\d+)"', overview)
    assert len(links) == len(finished.class_names)
    for page, place in links:
        assert f'id="{place}"' in (folder / page).read_text(encoding="utf-8")
    assert 'href="pictures/index.html"' not in overview and 'href="../index.html"' in overview


def test_a_miss_says_what_it_was_taken_for(folder, finished):
    tables = finished.artifact("tables")
    table, predictions = tables.table("classes"), tables.table("predictions")
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("page_*.html"))
    shown = sum(min(stage.SHOWN, int(own)) for own in table["test_images"] - table["right"])
    assert len(re.findall(r'<figure class="one wrong">', text)) == shown > 0
    wrong = predictions[predictions["label"] != predictions["predicted"]].iloc[0]
    assert f"<figcaption>{finished.class_names[int(wrong['predicted'])]}, " in text
    assert len(re.findall(r'<img src="data:image/png;base64,[^"]+" alt="[^"]+"', text)) == text.count("<img ")
    assert "http:" not in text and "https:" not in text


class Counting:
    """A run of many classes, of which is noted how many images are read."""

    def __init__(self, n_classes, folder):
        rng = np.random.default_rng(0)
        self.class_names = (ODD, *(f"class {k}" for k in range(1, n_classes)))
        self.read = 0
        labels = np.repeat(np.arange(n_classes), 8)
        self.train = self.test = LabelledImages(rng.integers(0, 255, (len(labels), 32, 32, 3), dtype=np.uint8), labels)
        predicted = np.where(np.arange(len(labels)) % 4 == 0, (labels + 1) % n_classes, labels)
        predictions = pd.DataFrame(
            {"label": labels, "predicted": predicted, "probability": 0.7, "margin": rng.random(len(labels))}
        )
        classes = pd.DataFrame({"class": self.class_names, "training_images": 8, "test_images": 8, "right": 6, "group": "few"})
        figures = dict.fromkeys(("recall", "recall_low", "recall_high", "precision"), 75.0)
        classes = classes.assign(**figures, taken_for="class 1", taken_for_images=2)
        classes.loc[1, ["recall", "recall_low", "recall_high"]] = np.nan
        self.tables = {"classes": classes, "predictions": predictions}

    def artifact(self, name):
        return SimpleNamespace(table=lambda table: self.tables[table].copy())

    def batches(self, images, only):
        self.read += len(only)
        return SimpleNamespace(pictures=lambda: images.subset(only).pixels)


@pytest.mark.journey
def test_a_thousand_classes_are_pages_of_bounded_size(tmp_path):
    run, written = Counting(1000, tmp_path), {}
    (tmp_path / "page_0400.html").write_text("of a run of more classes")
    stage.make(run, SimpleNamespace(text=written.__setitem__, files={}, artifact=SimpleNamespace(folder=tmp_path)))
    assert not list(tmp_path.iterdir())
    assert len(written) == 101 and max(map(len, written.values())) < 600_000
    assert run.read <= 1000 * 4 * stage.SHOWN
    assert "class 999" in written["index.html"] and ODD not in "".join(written.values())
    assert "&lt;!--&lt;script&gt;" in written["page_0001.html"] and "%" in written["page_0001.html"]


def test_a_picture_is_small_whatever_the_image():
    large = np.random.default_rng(0).integers(0, 255, (400, 300, 3), dtype=np.uint8)
    assert pages.picture(large).startswith("data:image/jpeg;base64,") and len(pages.picture(large)) < 6000
    assert pages.picture(large[:28, :28, :1]).startswith("data:image/png;base64,")
