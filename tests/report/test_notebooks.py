"""Several parameter files in one go, and what --from stands on."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from osdtw_lib.errors import UserError
from osdtw_lib.report import notebooks as batch
from osdtw_lib.report.notebooks import run_all
from osdtw_lib.stages import NOTEBOOKS, OPTIONAL


def test_from_a_notebook_without_its_predecessor_names_the_one_to_run(params, refused, tmp_path):
    line = refused("run", "--from", "05", params())
    assert "01_data_split" in line and "--from 01" in line
    assert not [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()]


def test_from_a_notebook_whose_predecessor_is_stale_is_refused_and_nothing_is_removed(finished_copy, refused, params):
    run = finished_copy()
    line = refused("run", "--from", "05", params(), "--set", "stage1.epochs=3")
    assert "stale: stage1.epochs 2 -> 3" in line and "03_stage1_fisher" in line
    assert (run.folder / "stage2" / "manifest.json").exists()


def test_from_a_notebook_whose_predecessor_is_damaged_is_refused(finished_copy, refused, params):
    run = finished_copy()
    (run.folder / "fisher" / "head.safetensors").write_bytes(b"")
    assert "head.safetensors" in refused("run", "--from", "06", params())
    assert (run.folder / "stage3" / "manifest.json").exists()


@pytest.mark.parametrize("first", ["99", "5", "1", "", "0", "stage1"])
def test_from_a_notebook_that_does_not_exist_names_those_that_do(params, refused, first):
    line = refused("run", "--from", first, params())
    assert "01, 02, 03, 04, 05, 06, 07" in line


@pytest.fixture
def executed(monkeypatch):
    """Which notebooks would run, without running any."""
    books = []
    monkeypatch.setattr(batch, "_execute", lambda book, *rest, **options: books.append(book))
    monkeypatch.setattr(batch.overview, "write_index", lambda folder: folder.parent / "index.html")
    return books


def test_from_redoes_that_notebook_and_what_follows(finished_copy, executed, params, command):
    run = finished_copy()
    _, _, err = command("run", "--from", "05", params())
    assert executed == ["05_stage2_joint", "06_stage3_tables", "07_theory", "10_predictor"], err
    gone = [s for book in executed for s in NOTEBOOKS[book]]
    assert not [s for s in gone if (run.folder / s / "manifest.json").exists()]
    assert [s for s in gone if (run.folder / s).exists()] == ["tables"]  # whose folder is not its own alone
    assert (run.folder / "proxy" / "manifest.json").exists()


def test_without_from_every_notebook_runs_and_nothing_is_removed(finished_copy, executed, params, command):
    run = finished_copy()
    status, out, _ = command("run", params())
    assert status == 0 and executed == list(NOTEBOOKS)
    assert f"notebook 01_data_split (1 of {len(NOTEBOOKS)})" in out and (run.folder / "stage3" / "manifest.json").exists()


def test_both_optional_notebooks_run_where_both_are_asked_for(finished_copy, executed, params, command):
    finished_copy()
    assert command("run", "--from", "09", "--ablations", params())[0] == 0
    assert executed == ["08_ablations", "09_verdict"]


def test_a_row_file_that_is_none_is_said_before_anything_is_removed(finished_copy, refused, params, tmp_path):
    run = finished_copy()
    odd = tmp_path / "\U0001f600.json"
    odd.write_text("{}")
    for first in ("03", "09"):
        line = refused("run", "--from", first, "--verdict", params(), "--with", odd)
        assert "\U0001f600.json: is no row file" in line or "U0001f600.json: is no row file" in line
        assert (run.folder / "stage1" / "manifest.json").exists()
    path = params({"verdict.others": ["mine.json"]})
    assert "has verdict.others already, mine.json" in refused("run", "--verdict", path, "--with", odd)


def test_the_ablations_run_only_where_they_are_asked_for(finished_copy, executed, params, command):
    run = finished_copy()
    (run.folder / "ablation" / "seed0").mkdir(parents=True)
    assert command("run", params(), "--ablations")[0] == 0
    assert executed == [*NOTEBOOKS, "08_ablations"] and (run.folder / "ablation" / "seed0").exists()
    executed.clear()
    assert command("run", "--from", "08", params())[0] == 0
    assert executed == ["08_ablations"] and not (run.folder / "ablation").exists()
    assert (run.folder / "stage3" / "manifest.json").exists()


def test_the_end_shows_the_accuracy_table_and_where_the_report_is(finished_copy, executed, params, command):
    run = finished_copy()
    _, out, _ = command("run", params())
    assert "OSDTW refined" in out and "100 test images" in out
    assert out.rstrip().endswith(f"report: {run.folder.parent / 'index.html'}")


def test_two_files_that_write_one_folder_are_refused(finished_copy, executed, params, command, tmp_path):
    finished_copy()
    path = params()
    (tmp_path / "twin.yaml").write_text(path.read_text())
    status, _, err = command("run", path, tmp_path / "twin.yaml")
    assert status == 2 and "twin.yaml" in err and "name" in err and err.count("\n") == 1
    assert executed == list(NOTEBOOKS)


def test_a_failure_that_is_nobodys_input_is_status_1_and_the_next_still_runs(finished_copy, monkeypatch, params, command):
    finished_copy()
    tried = []

    def fail(run, *_):
        tried.append(run.folder)
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(batch, "_run_one", fail)
    status, _, err = command("run", params(), params({"name": "other"}))
    assert status == 1 and len(tried) == 2 and err.count("ZeroDivisionError: by zero") == err.count("\n") == 2


@pytest.fixture
def book(monkeypatch, tmp_path):
    """book(source) runs a notebook of one cell as the batch does."""
    folder = tmp_path / "results"
    monkeypatch.setattr(batch, "FOLDER", tmp_path)

    def run(source):
        cells = [new_code_cell("params_file = ''", metadata={"tags": ["parameters"]}), new_code_cell(source)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "book.ipynb")
        batch._execute("book", tmp_path / "params.yaml", folder)
        return folder

    return run


def test_a_notebook_that_fails_is_kept_under_another_name(book, tmp_path, capsys):
    with pytest.raises(RuntimeError, match="ZeroDivisionError.*failed.ipynb"):
        book("print('so far')\n1 / 0")
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["book.failed.ipynb"]
    assert "  so far" in capsys.readouterr().out


def test_a_kernel_that_is_killed_says_so_in_one_line(book, tmp_path, capfd):
    with pytest.raises(RuntimeError, match="its process was killed, often for want of memory.*failed.ipynb") as error:
        book("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "\n" not in str(error.value) and capfd.readouterr().err == ""
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["book.failed.ipynb"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_half_notebook(book, tmp_path, monkeypatch):
    def full(_, half, **__):
        Path(half).write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    with pytest.raises(UserError, match="cannot be written .*No space left"):
        book("1")
    assert not list((tmp_path / "results").iterdir())


def test_a_user_error_in_a_notebook_stays_one_line(book):
    with pytest.raises(UserError, match="^say what$"):
        book("from osdtw_lib.errors import UserError\nraise UserError('say what')")


def test_a_notebook_is_given_the_parameter_file_and_leaves_a_page(book, tmp_path):
    folder = book("assert params_file.endswith('params.yaml'), params_file")
    assert sorted(p.name for p in folder.iterdir()) == ["book.html", "book.ipynb", "notebooks.json"]


def test_a_broken_first_file_is_told_and_the_order_does_not_matter(finished_copy, executed, params, tmp_path, capsys):
    finished_copy()
    path = str(params())
    (tmp_path / "broken.yaml").write_text("name: [")
    for files in ([str(tmp_path / "broken.yaml"), path], [path, str(tmp_path / "broken.yaml")]):
        executed.clear()
        assert run_all(files) == 2
        assert executed == list(NOTEBOOKS)
        assert "broken.yaml" in capsys.readouterr().err


def test_the_notebooks_are_those_of_the_table_of_stages(project):
    assert sorted(p.stem for p in (project / "notebooks").glob("*.ipynb")) == sorted(NOTEBOOKS | OPTIONAL)
    assert json.dumps(list(NOTEBOOKS)) == json.dumps(sorted(NOTEBOOKS))
