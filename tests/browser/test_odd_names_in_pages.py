"""Names of classes that are markup or code: the page goes on after them, and its figures show them as they are."""

import nbformat
import pandas as pd
from nbformat.v4 import new_code_cell, new_notebook, new_output

from osdtw_lib.figures.data import class_counts
from osdtw_lib.figures.results import confusion
from osdtw_lib.report.page import PLOTLY, write_page

NAMES = ["<!--<script>", "</script>", "-->", "<b>x &amp; $y$ $z$", "00001", "1e5", "2024-01-01", "NA", "a", "a.1", "caf\\xe9"]


def test_every_name_stands_on_its_axis_and_what_follows_is_there(tmp_path, tab):
    classes = pd.DataFrame({"class": NAMES, "training_images": range(40, 40 - len(NAMES), -1), "task": "head", "group": "few"})
    counts = pd.DataFrame([(true, predicted, 1) for true in NAMES for predicted in NAMES], columns=["true", "predicted", "count"])
    cells = [
        new_code_cell("f", outputs=[new_output("display_data", {PLOTLY: f.to_plotly_json()})])
        for f in (class_counts(classes), confusion(counts, NAMES))
    ]
    cells.append(new_code_cell("g", outputs=[new_output("stream", name="stdout", text="and so on")]))
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_data_split.ipynb")
    page = tab(write_page(tmp_path / "01_data_split.ipynb", tmp_path / "01_data_split.html"))
    page.wait_for_selector(".js-plotly-plot .xtick text")
    for number, axes in ((0, ["xtick"]), (1, ["xtick", "ytick"])):
        for axis in axes:
            ticks = "[...document.querySelectorAll('.js-plotly-plot')[%d].querySelectorAll('.%s text')].map(t => t.textContent)"
            assert page.evaluate(ticks % (number, axis)) == (NAMES if axis == "xtick" else NAMES[::-1])  # y from below
    assert page.locator("text=and so on").count() == 1
