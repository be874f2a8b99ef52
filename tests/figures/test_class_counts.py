"""Counts of classes by bars, and of thousands of classes by steps: every class is there, once, with its own count."""

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.figures.data import MOST_BARS, class_counts
from osdtw_lib.figures.style import plain
from osdtw_lib.longtail import head_tail_partition, shot_groups


def table(counts: np.ndarray) -> pd.DataFrame:
    names = pd.DataFrame({"class": [f"<b>{k}" for k in range(len(counts))], "training_images": counts})
    sets = {"task": dict(zip(("head", "tail"), head_tail_partition(counts))), "group": shot_groups(counts)}
    for column, members in sets.items():
        for name, chosen in members.items():
            names.loc[chosen, column] = name
    return names


def shuffled(n: int) -> np.ndarray:
    """n counts from 1,000 to 2, in no order."""
    return np.random.default_rng(0).permutation(np.geomspace(1000, 2, n).astype(int))


@pytest.mark.parametrize("n", [10, MOST_BARS])
def test_few_classes_have_a_bar_each(n):
    classes = table(shuffled(n))
    figure = class_counts(classes)
    assert {trace.type for trace in figure.data} == {"bar"} and sum(len(trace.x) for trace in figure.data) == n


def test_thousands_of_classes_are_areas_by_falling_count():
    classes = table(shuffled(8142))
    figure = class_counts(classes)
    assert [trace.name for trace in figure.data] == ["head, many", "head, medium", "tail, medium", "tail, few"]
    x, y, text = (np.concatenate([trace[key] for trace in figure.data]) for key in ("x", "y", "text"))
    assert x.tolist() == list(range(1, 8143)) and (np.diff(y) <= 0).all()
    count = dict(zip(plain(classes["class"]), classes["training_images"]))
    assert len(set(text)) == 8142 and all(count[name] == value for name, value in zip(text, y))
    low, high = figure.layout.yaxis.range
    assert figure.layout.yaxis.type == "log" and low < np.log10(2) and high > 3
    assert "logarithmic" in figure.layout.meta["caption"] and len(figure.to_json()) < 400_000
