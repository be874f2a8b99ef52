"""What the figures of results say of themselves, and how they name classes."""

import numpy as np
import pandas as pd

from osdtw_lib.evaluation.metrics import accuracy_by_group
from osdtw_lib.figures.data import class_counts
from osdtw_lib.figures.results import accuracy, confusion
from osdtw_lib.figures.style import plain
from osdtw_lib.figures.verdict import who_wins


def test_the_caption_says_which_share_is_shown():
    """Nine of ten images of class 0 right, none of class 1's one: 82 % of the images, 45 % on the mean over classes."""
    labels, predicted = np.array([0] * 10 + [1]), np.array([0] * 9 + [1, 0])
    groups = {"many": np.array([0]), "medium": np.array([], int), "few": np.array([1])}
    found = accuracy_by_group(predicted, labels, groups)
    assert round(found["all"], 1) == round(100 * 9 / 11, 1) != 45.0
    caption = accuracy(pd.DataFrame([{"method": "osdtw"} | found]), {}).layout.meta["caption"]
    assert "balanced" not in caption and "share of its test images" in caption and "not the mean over classes" in caption


def test_classes_are_categories_whatever_they_are_called():
    names = ["1e5", "00001", "2024-01-01", "NA", "<b>x", "a&amp;b", "$x$ $y$"]
    table = pd.DataFrame({"class": names, "training_images": 5, "task": "tail", "group": "few"})
    hits = pd.DataFrame({"true": names, "predicted": names, "count": 1})
    bars, map_ = class_counts(table), confusion(hits, names)
    assert {bars.layout.xaxis.type, map_.layout.xaxis.type, map_.layout.yaxis.type} == {"category"}
    assert list(bars.data[0].x) == list(map_.data[0].x) == list(map_.data[0].y) == plain(names)
    assert plain(names)[4:] == ["&lt;b&gt;x", "a&amp;amp;b", "&#36;x&#36; &#36;y&#36;"]


def test_of_many_classes_the_commonest_confusions_are_shown():
    names = [f"class {k}" for k in range(60)]
    rows = [(names[k], names[k], 90) for k in range(60)] + [(names[k], names[59 - k], k + 1) for k in range(55)]
    (bars,) = confusion(pd.DataFrame(rows, columns=["true", "predicted", "count"]), names).data
    assert len(bars.y) == 50 and bars.y[0] == "class 54 → class 5" and list(bars.x) == list(range(55, 5, -1))


def test_two_rows_without_a_common_seed_have_no_cell_and_no_error():
    pairs = [(a, b, 1.0, 0.5, 1.5, "wins") for a, b in ("ao", "bo")] + [
        (b, a, -1.0, -1.5, -0.5, "loses") for a, b in ("ao", "bo")
    ]
    wins = pd.DataFrame(pairs, columns=["row", "other", "difference", "low", "high", "verdict"])
    (cells,) = who_wins(wins, {"a": "A", "b": "B", "o": "OSDTW"}, "title", "caption").data
    assert list(cells.text[0]) == ["", "", "+1.0"] and np.isnan(cells.z[0][1])
