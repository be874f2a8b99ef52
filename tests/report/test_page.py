"""Formulas, figures and pages that need no network."""

import json
import re
import xml.etree.ElementTree as xml

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from osdtw_lib.errors import UserError
from osdtw_lib.report import page as report
from osdtw_lib.report.index import write_index
from osdtw_lib.report.page import explorer_html, figure_html, formulas, in_script, write_page


def mathml(text):
    return xml.fromstring(text[text.index("<math") : text.rindex("</math>") + 7])


def test_an_inline_formula_becomes_inline_mathml():
    made = formulas("the depth $C \\le 12$ is shared")
    assert made.startswith("the depth <math") and made.endswith("</math> is shared")
    assert "$" not in made and mathml(made).get("display") == "inline"


def test_a_displayed_formula_becomes_block_mathml_also_over_several_lines():
    made = formulas("before\n\n$$\n\\sum_{n=1}^N x_n\n= 1\n$$\n\nafter")
    assert "$" not in made and "\\sum" not in made and mathml(made).get("display") == "block"
    assert "\n" not in made[made.index("<math") : made.rindex("</math>")]


def test_several_formulas_on_a_line_stay_apart():
    assert formulas("$A$ and $B$, $C$").count("<math") == 3


@pytest.mark.parametrize(
    "text",
    ["costs $5 and $6", "5$ and 6$", "a \\$x\\$ b", "US$x$y", "$ x $", "one $ alone", "from $5 to\n$6", "nothing"],
)
def test_dollar_signs_that_are_no_formula_stay(text):
    assert formulas(text) == text


def test_code_keeps_its_dollars():
    assert formulas("`echo $HOME$`") == "`echo $HOME$`"
    assert formulas("```\n$x$\n```") == "```\n$x$\n```"


def test_every_formula_of_the_notebooks_is_valid_mathml(project):
    count = 0
    for path in (project / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                made = formulas(cell.source)
                assert "$" not in made, (path.name, cell.source)
                for part in made.split("<math")[1:]:
                    xml.fromstring("<math" + part[: part.index("</math>") + 7])
                    count += 1
    assert count > 20


def figure(**layout):
    return {"data": [{"type": "bar", "x": ["</script><b>"], "y": [1]}], "layout": layout}


def test_a_figure_cannot_end_its_own_script():
    made = figure_html(figure(meta={"caption": "a < b"}))
    assert made.count("</script>") == 1 and "<figcaption>a &lt; b</figcaption>" in made


@pytest.mark.parametrize("name", ["<!--<script>", "</script>", "-->", "<\\/script>", "\u2028", "\udce9"])
def test_no_name_ends_or_swallows_a_script(name):
    made = in_script({"x": [name]})
    assert not set("<>\u2028\u2029") & set(made) and json.loads(made) == {"x": [name]}
    assert "<!--" not in figure_html({"data": [{"x": [name]}], "layout": {}})
    bare = {"start_damping": 1, "evidence": 1, "decades": 2, "n_depths": 1, "selected": {"shared_depth": 1, "head_weight": 0.5}}
    page = explorer_html(bare | {"figures": {"map": name}})
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert "<" not in data and json.loads(data)["figures"]["map"] == name


def test_a_figure_keeps_its_data():
    made = figure_html(figure())
    script = made[made.index("var f=") + 6 : made.index(";Plotly.newPlot")]
    assert json.loads(script)["data"][0]["x"] == ["</script><b>"]


@pytest.fixture
def page(tmp_path):
    cells = [
        new_code_cell("params_file = 1", metadata={"tags": ["parameters"]}),
        new_code_cell("params_file = 'x'", metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell("# Title of $C$\n\nwith $w_A$"),
        new_code_cell("figure", outputs=[new_output("display_data", {report.PLOTLY: figure(), "text/plain": "Figure"})]),
        new_code_cell("figure", outputs=[new_output("display_data", {report.PLOTLY: figure(), "text/plain": "Figure"})]),
        new_code_cell("slider", outputs=[new_output("display_data", {report.WIDGET: {"model_id": "1"}, "text/plain": "VBox"})]),
        new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text="said aloud")]),
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    nbformat.write(new_notebook(cells=cells), folder / "03_stage1_fisher.ipynb")
    return write_page(folder / "03_stage1_fisher.ipynb", folder / "03_stage1_fisher.html").read_text()


def test_a_page_shows_text_formulas_figures_and_what_was_printed(page):
    assert (
        "<h1" in page
        and page.count("<math display") == 2
        and ":math" not in page
        and page.count("Plotly.newPlot(box") == 2
        and "said aloud" in page
    )


def test_a_page_holds_plotly_once_and_leaves_parameters_and_widgets_out(page):
    assert page.count("* plotly.js v") == 1
    assert "params_file" not in page and "model_id" not in page and "Live in JupyterLab" in page


def test_a_page_links_its_neighbours(page):
    assert 'href="02_starting_point.html"' in page and 'href="index.html"' in page and 'href="../index.html"' in page


def test_an_index_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="tables: its manifest is missing"):
        write_index(tmp_path / "none")


def test_the_index_shows_the_headline_of_every_finished_run(finished_copy):
    run = finished_copy()
    (run.folder.parent / "half").mkdir()
    index = write_index(run.folder)
    accuracy = run.artifact("stage3") and (run.folder / "tables" / "accuracy.csv").read_text().splitlines()
    score = float(next(line for line in accuracy if line.startswith("osdtw,")).split(",")[4])
    text = index.read_text()
    assert 'href="small/index.html"' in text and f"{score:.1f}" in text and "half/" not in text
    assert f"{score:.1f}" in (run.folder / "index.html").read_text()


def test_edited_tables_are_not_reported(finished_copy):
    run = finished_copy()
    table = run.folder / "tables" / "accuracy.csv"
    table.write_text(table.read_text().replace("osdtw,", "osdtw,9"))
    with pytest.raises(UserError, match="accuracy.csv was changed"):
        write_index(run.folder)


def test_an_edited_selection_is_not_reported(finished_copy):
    run = finished_copy()
    shown = run.folder / "selection.json"
    shown.write_text(shown.read_text().replace("0.4", "0.8765"))
    write_index(run.folder)
    assert "0.8765" not in (run.folder / "index.html").read_text() + (run.folder.parent / "index.html").read_text()


def test_lines_of_a_training_that_came_one_by_one_are_folded_into_one(tmp_path):
    """As a kernel sends them: an output each."""
    said = [f"stage3: epoch {i}/3  loss head 0.{9 - i}  100 images/s  9s left\n" for i in (1, 2, 3)]
    streams = [("stdout", "stage3: runs\n"), *(("stdout", line) for line in said), ("stderr", "a warning\n"), ("stdout", "end\n")]
    outputs = [new_output("stream", name=name, text=text) for name, text in streams]
    notebook = new_notebook(cells=[new_code_cell("train()", outputs=outputs)])
    nbformat.write(notebook, tmp_path / "06_stage3_tables.ipynb")
    page = write_page(tmp_path / "06_stage3_tables.ipynb", tmp_path / "page.html").read_text()
    assert page.count('<details class="log">') == 1 and page.count("<summary><code>stage3: epoch 3/3") == 1
    assert all(line.strip() in page for _, line in streams)


def test_a_long_log_is_folded_and_loses_no_line():
    import nbformat

    short = nbformat.v4.new_output("stream", name="stdout", text="one\ntwo\n")
    assert report._folded(short) is short
    lines = [f"epoch {i} <done>" for i in range(40)]
    page = report._folded(nbformat.v4.new_output("stream", name="stdout", text="\n".join(lines))).data["text/html"]
    assert "log, 40 lines" in page and all(page.count(f"epoch {i} &lt;done&gt;") == (2 if i >= 35 else 1) for i in range(40))
