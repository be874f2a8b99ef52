"""Notebook 08, run by itself on the tiny configuration: tables, figures, the page."""

import contextlib
import io

import nbformat
import pandas as pd
import pytest

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.report import notebooks as batch
from osdtw_lib.stages.run import Run

PLOTLY = "application/vnd.plotly.v1+json"
TITLES = [
    "Measured",
    "Measured before the refinement",
    "Forms of the proxy",
    "Rank correlation and regret",
    "Accuracy over w_A",
    "Likelihoods and single networks",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory, write_params):
    """(the executed notebook, the Run)."""
    changes = {
        "selection.shared_depth": None,
        "selection.head_weight": None,
        "ablation.depths": [2],
        "ablation.head_weights": [0.5, 0.7],
        "ablation.seeds": [0, 1],
        "baselines": ["ce"],
    }
    path = write_params(tmp_path_factory.mktemp("ablations"), changes)
    run = Run(load_config(path))
    with contextlib.redirect_stdout(io.StringIO()):
        batch._execute("08_ablations", path, run.folder)
    return nbformat.read(run.folder / "08_ablations.ipynb", as_version=4), run


def test_the_source_has_its_parameters_and_no_output():
    notebook = nbformat.read(PROJECT / "notebooks" / "08_ablations.ipynb", as_version=4)
    nbformat.validate(notebook)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert cell.source == 'params_file = "../params/mnist_lt.yaml"' and notebook.metadata["kernelspec"]["name"] == "python3"
    assert not any(c.get("outputs") for c in notebook.cells)


def test_every_cell_ran_and_only_the_stages_cell_trained(executed):
    cells = [c for c in executed[0].cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not [o for c in cells for o in c.outputs if o.output_type == "error" or o.get("name") == "stderr"]
    trained = [c.source for c in cells if any("images/s" in o.get("text", "") for o in c.outputs)]
    assert trained == ['made = execute(run, "ablation")']


def test_every_figure_has_title_caption_and_data(executed):
    figures = [o["data"][PLOTLY] for c in executed[0].cells for o in c.get("outputs", []) if PLOTLY in o.get("data", {})]
    assert len(figures) == len(TITLES)
    for figure, title in zip(figures, TITLES):
        assert figure["layout"]["title"]["text"].startswith(title) and figure["layout"]["meta"]["caption"] and figure["data"]
    forms = figures[2]
    assert len(forms["data"]) == len(forms["layout"]["shapes"]) == 7  # a white box a map


def test_each_claim_has_a_verdict(executed):
    claims = pd.read_csv(executed[1].folder / "ablation" / "claims.csv")
    text = (executed[1].folder / "08_ablations.html").read_text()
    assert len(claims) >= 8 and claims["holds"].isin([True, False]).any()
    assert text.count("holds here") + text.count("does not hold here") + text.count("not measured") >= len(claims)
    assert all(claim in text for claim in claims["claim"].str.replace("'", "&#39;") if "&#39;" not in claim)
