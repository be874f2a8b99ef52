"""A run's pages and the other runs beside it: none keeps another from its pages, nothing changed is shown."""

import json
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from osdtw_lib.artifacts.artifact import Artifact
from osdtw_lib.errors import UserError
from osdtw_lib.report.index import write_index
from osdtw_lib.report.written import remember
from osdtw_lib.stages import execute
from osdtw_lib.stages.selection import choose


def _edit(path):
    path.write_text(path.read_text().replace("0", "1"))


def _as_folder(path):
    path.unlink()
    path.mkdir()


def _older(path):
    """Whole, but by a version that kept other notes."""
    from osdtw_lib.artifacts.manifest import own_checksum

    manifest = json.loads(path.read_text()) | {"notes": {}}
    path.write_text(json.dumps(manifest | {"checksum": own_checksum(manifest)}))


@pytest.mark.parametrize(
    ("file", "harm", "said"),
    [
        ("tables/accuracy.csv", _edit, "accuracy.csv was changed"),
        ("tables/accuracy.csv", lambda p: p.unlink(), "accuracy.csv is missing"),
        ("tables/accuracy.csv", _as_folder, "run it again"),
        ("tables/manifest.json", lambda p: p.write_bytes(b"\xff{"), "its manifest is missing or damaged"),
        ("tables/manifest.json", _as_folder, "its manifest is missing or damaged"),
        ("tables/manifest.json", _older, "written by another version"),
        ("split/classes.csv", _edit, "classes.csv was changed"),
        ("split/manifest.json", lambda p: p.unlink(), "split: its manifest is missing"),
        ("01_data_split.ipynb", lambda p: p.write_text("{"), None),
    ],
)
def test_what_happened_to_another_run_is_a_line_and_no_more(finished_copy, capsys, file, harm, said):
    run = finished_copy()
    other = run.folder.parent / "other"
    shutil.copytree(run.folder, other)
    nbformat.write(new_notebook(), other / "01_data_split.ipynb")
    harm(other / file)
    index = write_index(run.folder).read_text()
    assert 'href="small/index.html"' in index and (run.folder / "index.html").exists()
    assert ('href="other/index.html"' in index) == (said is None)
    if said:
        assert '<p class="quiet">other is left out: ' in index and said in index and "left out" in capsys.readouterr().out


def test_the_folder_of_another_run_may_be_called_anything(finished_copy):
    run = finished_copy()
    for name in (b"caf\xe9", b"<img src=x>", b"50 % #1?"):
        shutil.copytree(run.folder, run.folder.parent / name.decode("utf-8", "surrogateescape"))
    index = write_index(run.folder).read_text(encoding="utf-8")
    assert "<img" not in index and "caf\\xe9" in index
    assert 'href="caf%E9/index.html"' in index and 'href="50%20%25%20%231%3F/index.html"' in index


def test_a_notebook_that_was_edited_tells_nothing(finished_copy, capsys):
    run = finished_copy()
    for book, words in (("01_data_split", "as it was"), ("02_starting_point", "unedited")):
        cell = new_markdown_cell(words, metadata={"tags": ["story"]})
        nbformat.write(new_notebook(cells=[cell]), run.folder / f"{book}.ipynb")
        remember(run.folder / f"{book}.ipynb")
    write_index(run.folder)
    page = run.folder / "index.html"
    assert "as it was" in page.read_text() and "unedited" in page.read_text()
    _edit(run.folder / "02_starting_point.ipynb")
    with (run.folder / "02_starting_point.ipynb").open("a") as file:
        file.write(" ")
    (run.folder / "03_stage1_fisher.ipynb").write_text("{")
    write_index(run.folder)
    text = page.read_text()
    assert "as it was" in text and "unedited" not in text and "02_starting_point.ipynb was changed after it was run" in text
    assert "03_stage1_fisher.ipynb has no checksum" in text and capsys.readouterr().out.count("left out of the report") == 2


def test_a_notebook_of_a_choice_that_was_taken_back_tells_nothing(finished_copy, capsys):
    """As after a choice by hand and `--from 05`: notebook 04 is as it was run, and the choice is another."""
    run = finished_copy({"selection.shared_depth": None, "selection.head_weight": None, "selection.form": "damped"})
    for stage in ("proxy", "selection", "stage2", "stage3", "tables"):
        execute(run, stage)
    for book in ("02_starting_point", "04_proxy_explorer"):
        cell = new_markdown_cell(f"told by {book}", metadata={"tags": ["story"]})
        nbformat.write(new_notebook(cells=[cell]), run.folder / f"{book}.ipynb")
        (run.folder / f"{book}.html").write_text("a page")
        remember(run.folder / f"{book}.ipynb")
    write_index(run.folder)
    page = run.folder / "index.html"
    assert "told by 04" in page.read_text() and "other results" not in capsys.readouterr().out
    choose(run, 3, 0.25, "damped", 0.01)
    for stage in ("selection", "stage2", "stage3", "tables"):
        execute(run, stage)
    write_index(run.folder)
    assert "told by 02" in page.read_text() and "told by 04" not in page.read_text()
    assert "04_proxy_explorer.ipynb is of other results" in page.read_text()


def test_this_runs_own_tables_must_be_whole(finished_copy):
    run = finished_copy()
    _edit(run.folder / "split" / "classes.csv")
    with pytest.raises(UserError, match="classes.csv was changed"):
        write_index(run.folder)
    assert not (run.folder / "index.html").exists()


@pytest.mark.parametrize("name", ["index.html", "INDEX.HTML", "cache"])
def test_a_run_is_not_called_what_lies_beside_runs(params, refused, tmp_path, name):
    assert "name: is what outputs/ itself needs" in refused("split", params({"name": name}))
    assert not (tmp_path / "outputs").exists()


def _told(run):
    for book in ("01_data_split", "02_starting_point"):
        cell = new_markdown_cell(f"story of {book}", metadata={"tags": ["story"]})
        nbformat.write(new_notebook(cells=[cell]), run.folder / f"{book}.ipynb")
        (run.folder / f"{book}.html").write_text("a page")
        remember(run.folder / f"{book}.ipynb")


def test_an_optional_notebook_of_other_settings_is_not_told_and_a_sentence_is(finished_copy, capsys):
    run = finished_copy()
    cell = new_code_cell("said", metadata={"tags": ["story"]})
    cell.outputs = [new_output("display_data", {"text/markdown": "**It loses** to <b>mine"})]
    nbformat.write(new_notebook(cells=[cell]), run.folder / "09_verdict.ipynb")
    remember(run.folder / "09_verdict.ipynb")
    made = Artifact("verdict", run.folder / "verdict", {"seeds": [0, 1, 2], "quick": True}, ())
    with made.making("cpu") as write:
        write.json("verdict", {"epochs": "OSDTW loses to <all>. OSDTW refined names 50 %, so it is."})
    write_index(run.folder)
    page = run.folder / "index.html"
    first = "Over 2 seeds, notebook 09: OSDTW loses to &lt;all&gt;. At the run&#39;s own seed: OSDTW refined names"
    assert first in page.read_text() and "so it is" not in page.read_text()
    assert "<strong>It loses</strong> to &lt;b&gt;mine" in page.read_text() and "other results" not in capsys.readouterr().out
    manifest = run.folder / "stage3" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(run.artifact("stage3").key, "0" * 64))
    write_index(run.folder)
    assert "It loses" not in page.read_text() and "Over 2 seeds" not in page.read_text()
    assert "09_verdict.ipynb is of other results" in page.read_text()
    assert "left out of the report, of other results" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("01_data_split.html", lambda p: p.unlink(), "01_data_split.html is not there any more"),
        ("01_data_split.html", lambda p: p.unlink() or p.mkdir(), "01_data_split.html is not there any more"),
        ("01_data_split.ipynb", lambda p: p.unlink(), "01_data_split.ipynb cannot be read (No such file"),
        ("01_data_split.ipynb", lambda p: p.unlink() or p.mkdir(), "01_data_split.ipynb cannot be read (Is a directory"),
    ],
)
def test_what_a_run_had_and_lost_is_a_line(finished_copy, capsys, name, harm, said):
    run = finished_copy()
    _told(run)
    write_index(run.folder)
    assert "story of 01" in (run.folder / "index.html").read_text() and "left out" not in capsys.readouterr().out
    harm(run.folder / name)
    write_index(run.folder)
    page = (run.folder / "index.html").read_text()
    assert said in page and "story of 02" in page and str(run.folder / name) in capsys.readouterr().out
    assert ("story of 01" in page) == name.endswith(".html") and ('href="01_data_split.html"' in page) == name.endswith(".ipynb")
