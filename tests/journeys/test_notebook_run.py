"""The notebooks as they lie there, and every one of them run on the tiny configuration: results, figures, pages."""

import base64
import contextlib
import io
import json
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest

from osdtw_lib.__main__ import main
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages import NOTEBOOKS
from osdtw_lib.stages.networks import rows

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
BOOKS = list(NOTEBOOKS)
FIGURES = {
    "01_data_split": [
        "Training images a class",
        "Training images by group",
        "100 head images, 5 tail",
        "100 head images, 100 tail",
    ],
    "02_starting_point": ["Masked autoencoding", "Masked, reconstructed, original"],
    "03_stage1_fisher": ["Stage 1", "Fisher trace"],
    "04_proxy_explorer": ["“paper”", "“damped”", "“direct”", "bias", "Eq. (18)", "damped form", "direct form"],
    "05_stage2_joint": ["Stage 2"],
    "06_stage3_tables": ["Refinement", "ccuracy", "onfusion"],
    "07_theory": [
        "% of the simulated error",
        "Bias of Eq. (18)",
        "head weight",
        "mismatch",
        "How fast",
        "leaves out",
        "cross term",
        "Variance and bias",
        "ridge",
        "damping does",
    ],
    "10_predictor": ["Other class mixes", "Reliability", "named right least often"],
}
WIDGETS = {"01_data_split": 1, "04_proxy_explorer": 1}


def source(book):
    return nbformat.read(PROJECT / "notebooks" / f"{book}.ipynb", as_version=4)


# as they lie there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("book", BOOKS)
def test_a_source_is_valid_and_holds_no_output(book):
    notebook = source(book)
    nbformat.validate(notebook)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("book", BOOKS)
def test_a_source_has_one_parameters_cell_with_the_default_file(book):
    (cell,) = [c for c in source(book).cells if "parameters" in c.metadata.get("tags", [])]
    assert cell.cell_type == "code" and cell.source.strip() == 'params_file = "../params/mnist_lt.yaml"'
    assert (PROJECT / "notebooks" / "../params/mnist_lt.yaml").is_file()


@pytest.mark.parametrize("book", BOOKS)
def test_a_source_starts_with_its_title_and_its_versions(book):
    cells = source(book).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert (
        "versions()"
        in next(c for c in cells[1:] if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])).source
    )


# run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def run(batch):
    return batch[3]


def executed(run, book):
    return nbformat.read(run.folder / f"{book}.ipynb", as_version=4)


def outputs_of(run, book, kind):
    outputs = [o for c in executed(run, book).cells for o in c.get("outputs", [])]
    return [o["data"][kind] for o in outputs if kind in o.get("data", {})]


def test_a_broken_file_is_reported_the_next_still_runs_and_the_status_says_so(batch):
    status, out, err, _ = batch
    assert status == 2
    assert err.count("error: ") == 1 and "broken.yaml: unknown key 'stage_1'; did you mean 'stage1'" in err
    assert f"small: notebook {BOOKS[-1]} ({len(BOOKS)} of {len(BOOKS)})" in out


def test_a_person_sees_which_notebook_and_stage_runs_and_how_far_it_is(batch):
    _, out, _, run = batch
    for number, (book, stages) in enumerate(NOTEBOOKS.items(), start=1):
        assert f"notebook {book} ({number} of {len(BOOKS)})" in out
        assert all(f"  {s}: runs, no result yet" in out for s in stages if s != "baselines")
    assert "epoch 2/2" in out and "images/s" in out and " left" in out and "loss" in out
    assert "OSDTW refined" in out and f"report: {run.folder.parent / 'index.html'}" in out


def test_every_stage_is_done(run):
    for stages in NOTEBOOKS.values():
        for stage in stages:
            folders = [f"baselines/{m}" for m in run.config.baselines] if stage == "baselines" else [stage]
            assert all((run.folder / f / "manifest.json").exists() for f in folders), stage


def test_the_tables_hold_every_method_and_every_stage(run):
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv")
    further = ["class_mean", "worst_class", "harmonic_groups"]
    assert accuracy.columns.tolist() == ["method", "many", "medium", "few", "all", "seed", *further]
    assert accuracy["method"].tolist() == list(rows(run))
    assert accuracy["all"].between(0, 100).all()
    runtime = pd.read_csv(run.folder / "tables" / "runtime.csv")
    assert runtime.columns.tolist() == ["stage", "seconds", "passes"]
    assert runtime["stage"].tolist()[-1] == "total" and runtime[["seconds", "passes"]].ge(0).all(axis=None)


def test_notebooks_and_stages_make_the_same_table(run, finished):
    for name in ("accuracy.csv", "confusion.csv"):
        assert (run.folder / "tables" / name).read_bytes() == (finished.folder / "tables" / name).read_bytes()


def test_the_selection_names_depth_weight_form_and_damping(run):
    selection = json.loads((run.folder / "selection.json").read_text())
    assert {"shared_depth", "head_weight", "form", "damping"} <= selection.keys()
    assert (selection["shared_depth"], selection["head_weight"], selection["form"]) == (2, 0.4, "damped")


@pytest.mark.parametrize("book", BOOKS)
def test_every_cell_ran_in_order_without_an_error(run, book):
    cells = [c for c in executed(run, book).cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not [o for c in cells for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("book", BOOKS)
def test_the_run_leaves_the_sources_as_they_were(run, book):
    assert not any(c.get("outputs") for c in source(book).cells)


def numbers(values):
    """A plotly array, plain or in base64, as numbers or words."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return np.asarray(values, dtype=object).ravel()


def holds_data(trace):
    if trace["type"] == "image":
        return bool(trace.get("source")) or len(numbers(trace.get("z", []))) > 0
    axes = [numbers(trace[axis]) for axis in ("x", "y", "z") if axis in trace]
    return len(axes) >= 2 and all(len(a) and any(v is not None and v == v for v in a) for a in axes)


def titles(figure):
    layout = figure["layout"]
    texts = [a.get("text", "") for a in layout.get("annotations", [])]
    return " ".join([layout.get("title", {}).get("text", ""), *texts])


@pytest.mark.parametrize("book", BOOKS)
def test_every_figure_is_there_with_its_title_caption_and_data(run, book):
    figures = outputs_of(run, book, PLOTLY)
    assert len(figures) == len(FIGURES[book]), [titles(f) for f in figures]
    for figure, title in zip(figures, FIGURES[book]):
        assert title in titles(figure)
        assert figure["layout"]["meta"]["caption"]
        traces = [t for t in figure["data"] if t.get("name") != "many" or title != "ccuracy"]  # no class is that large
        assert traces and all(holds_data(trace) for trace in traces), title


@pytest.mark.parametrize("book", BOOKS)
def test_the_live_explorers_are_there(run, book):
    assert len(outputs_of(run, book, WIDGET)) == WIDGETS.get(book, 0)


def test_the_curves_have_a_point_an_epoch(run):
    for book, lines in (("02_starting_point", 1), ("03_stage1_fisher", 2), ("05_stage2_joint", 2), ("06_stage3_tables", 2)):
        figure = outputs_of(run, book, PLOTLY)[0]
        assert [len(numbers(t["y"])) for t in figure["data"]] == [2] * lines, book


def test_the_class_counts_add_up_to_the_training_set(run):
    figure = outputs_of(run, "01_data_split", PLOTLY)[0]
    assert sum(int(v) for t in figure["data"] for v in numbers(t["y"])) == len(run.train) == 159


def test_the_heat_maps_show_the_whole_grid_and_the_chosen_cell(run):
    for figure in outputs_of(run, "04_proxy_explorer", PLOTLY)[:3]:
        table, *marks = figure["data"]
        assert (len(numbers(table["x"])), len(numbers(table["y"])), len(numbers(table["z"]))) == (4, 11, 44)
        (star,) = [m for m in marks if m["name"] == "selected"]
        assert (float(numbers(star["x"])[0]), float(numbers(star["y"])[0])) == (2, 0.4)


def test_the_theory_tests_every_claim_it_prints(run):
    cells = [c for c in executed(run, "07_theory").cells if c.cell_type == "code"]
    said = "".join(o.get("text", "") for c in cells for o in c.outputs)
    assert said.count("holds: ") >= 30 and "does not hold" not in said
    define = next(c.source for c in cells if c.source.startswith("def claim"))
    with pytest.raises(AssertionError, match="does not hold: water is dry"):
        exec(define + '\nclaim("water is dry", False)', {})


def test_the_theory_figures_show_simulation_and_formulas_of_every_model(run):
    glance = outputs_of(run, "07_theory", PLOTLY)[0]
    assert [t["name"] for t in glance["data"]] == ["simulated", "Eq. (18)", "exact bias", "without blocks"] * 4
    assert all(len(numbers(t["x"])) == len(numbers(t["y"])) == 5 for t in glance["data"])


def test_the_confusion_counts_every_test_image(run):
    table = outputs_of(run, "06_stage3_tables", PLOTLY)[-1]["data"][0]
    assert len(numbers(table["z"])) == 100


# pages ------------------------------------------------------------------------------------------------------


class Fetches(HTMLParser):
    """Addresses a browser would load, links within the report, and the text that is shown."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.styles, self.inside, self.shown = [], [], [], None, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.inside = tag
        if "src" in attributes and tag != "a":
            self.loaded.append(attributes["src"])
        if tag == "link":
            self.loaded.append(attributes.get("href", ""))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        self.styles.append(attributes.get("style") or "")

    def handle_data(self, text):
        if self.inside == "style":
            self.styles.append(text)
        elif self.inside != "script":
            self.shown += text


PAGES = [*(f"{book}.html" for book in BOOKS), "index.html", "../index.html"]


@pytest.fixture(params=PAGES)
def page(request, run):
    return run.folder / request.param


def test_a_page_needs_no_network(page):
    found = Fetches(page.read_text())
    assert not [a for a in found.loaded if a.startswith(("http:", "https:", "//"))]
    for style in found.styles:
        assert "@import" not in style and "url(http" not in style.replace('"', "").replace("'", "") and "url(//" not in style


def test_a_page_holds_plotly_at_most_once_and_only_for_figures(page):
    text = page.read_text()
    figures = text.count("Plotly.newPlot(box")
    assert text.count("* plotly.js v") == (1 if figures else 0)


def test_a_page_is_small_enough_to_send(page):
    assert page.stat().st_size < 10_000_000


def test_the_links_between_pages_lead_somewhere(page):
    for link in Fetches(page.read_text()).links:
        if not link.startswith(("#", "http")):
            assert (page.parent / link.split("#")[0]).exists(), link


@pytest.mark.parametrize("book", BOOKS)
def test_a_notebooks_page_shows_all_its_figures(run, book):
    text = (run.folder / f"{book}.html").read_text()
    assert text.count("Plotly.newPlot(box") == len(FIGURES[book])


@pytest.mark.parametrize("book", BOOKS)
def test_a_notebooks_page_draws_its_formulas_itself(run, book):
    text = (run.folder / f"{book}.html").read_text()
    markdown = [c.source for c in source(book).cells if c.cell_type == "markdown"]
    displayed = sum(s.count("$$") // 2 for s in markdown)
    inline = sum(s.replace("$$", "").count("$") // 2 for s in markdown)
    made = re.findall(r'<math[^>]*display="(\w+)"', text)
    assert (made.count("block"), made.count("inline")) == (displayed, inline)
    assert "$$" not in Fetches(text).shown and "\\frac" not in Fetches(text).shown


def test_the_data_sets_page_shows_table_selection_and_the_story(run):
    text = (run.folder / "index.html").read_text()
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")["all"]
    assert "OSDTW refined" in text and f"{accuracy['osdtw']:.1f}" in text
    assert "<math" in text and text.count("Plotly.newPlot(box") >= 6
    assert all(f'href="{book}.html"' in text for book in BOOKS)


def test_the_front_page_lists_the_run_with_its_headline(run):
    text = (run.folder.parent / "index.html").read_text()
    accuracy = pd.read_csv(run.folder / "tables" / "accuracy.csv").set_index("method")["all"]
    assert 'href="small/index.html"' in text and f"{accuracy['osdtw']:.1f}" in text


# again ------------------------------------------------------------------------------------------------------


def test_from_10_makes_the_last_notebook_anew_alone(batch):
    """What else `--from` removes and makes: tests/report/test_notebooks.py, without running any."""
    run = batch[3]
    before = {p: p.stat().st_mtime_ns for p in run.folder.rglob("manifest.json")}
    page = (run.folder / "10_predictor.html").stat().st_mtime_ns
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["run", "--from", "10", str(run.folder.parents[1] / "small.yaml")]) == 0
    assert "(1 of 1)" in out.getvalue() and "class_mix: runs, no result yet" in out.getvalue()
    again = {p.parent.relative_to(run.folder).parts[0] for p, t in before.items() if p.stat().st_mtime_ns != t}
    assert again == {"class_mix", "calibration", "pictures"} and (run.folder / "10_predictor.html").stat().st_mtime_ns != page
