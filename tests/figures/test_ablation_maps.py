"""The maps of notebook 08: where the white box lies, and what is said of it."""

import itertools

import pandas as pd

from osdtw_lib.figures.ablation import maps
from osdtw_lib.proxy.grid import CELL, Choice


def table(best):
    """Totals that are alike at C = 0 and smallest at `best`."""
    cells = list(itertools.product((0, 1, 2), (0.1, 0.5, 0.9)))
    totals = [0.0 if (c if best == 0 else (c, w)) == best else 1.0 + c for c, w in cells]
    return pd.DataFrame(cells, columns=CELL).assign(total=totals)


def box(figure):
    shape = figure.layout.shapes[0]
    return (shape.x0, shape.x1), (shape.y0, shape.y1), figure.layout.annotations[0].text


def test_the_best_cell_has_the_box():
    across, up, said = box(maps({"a": (table((1, 0.5)), "total", True)}, "", ""))
    assert across == up == (0.5, 1.5) and said.endswith("best: C = 1, w_A = 0.5</sup>")


def test_where_nothing_is_shared_no_weight_is_named():
    across, up, said = box(maps({"a": (table(0), "total", True)}, "", ""))
    assert across == (-0.5, 0.5) and up == (-0.5, 2.5) and said.endswith("best: C = 0</sup>")


def test_a_pick_has_the_box_in_place_of_the_smallest():
    across, up, said = box(maps({"a": (table((1, 0.5)), "total", True, Choice(2, 0.9, 3.0))}, "", ""))
    assert across == up == (1.5, 2.5) and said.endswith("pick: C = 2, w_A = 0.9</sup>")
