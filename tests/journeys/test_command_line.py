"""python -m osdtw_lib: what it offers, and what it says to a command it does not know."""

import contextlib
import os
import subprocess
import sys

import pytest
from PIL import Image

from osdtw_lib import __main__
from osdtw_lib.stages import CONTENTS, pipeline


def test_help_names_every_command(command):
    status, out, err = command("--help")
    assert (status, err) == (0, "")
    assert all(name in out for name in (*CONTENTS, "run", "plan", "predict", "lab"))


@pytest.mark.parametrize("name", [*CONTENTS, "run", "plan", "predict", "lab"])
def test_every_command_has_a_help_text(command, name):
    status, out, _ = command(name, "--help")
    assert status == 0 and out.startswith("usage:")


@pytest.mark.parametrize("arguments", [["--help"], ["stage1", "--help"]])
def test_help_says_the_order_of_the_stages(command, arguments):
    words = command(*arguments)[1].split("in their order", 1)[1].replace(",", " ").replace(".", " ").split()
    assert [word for word in words if word in CONTENTS][: len(CONTENTS)] == list(CONTENTS)


def test_a_stage_whose_input_is_missing_names_the_notebook_and_the_command(params, command, refused):
    path = params()
    command("split", path)
    line = refused("stage1", path)
    assert "run notebook 02_starting_point first" in line and "python -m osdtw_lib start and the same parameter file" in line


def test_a_reader_that_leaves_is_no_traceback(finished, project, tmp_path):
    image = tmp_path / "0.png"
    Image.fromarray(finished.test.pixels[0, ..., 0]).save(image)
    line = [sys.executable, "-m", "osdtw_lib", "predict", str(finished.folder), *[str(image)] * 100]
    with subprocess.Popen(line, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(120) == 141


def test_a_shell_sees_the_help_and_status_0(python):
    done = python("-m", "osdtw_lib", "--help")
    assert done.returncode == 0 and "predict" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["stage9"],
        ["plan", "--gpus", "two"],
        ["run", "--form", "05"],
        ["split", "--set"],
        ["predict"],
        ["predict", "folder"],
        ["predict", "f", "i", "--top", "x"],
    ],
)
def test_a_command_it_does_not_know_is_one_line(refused, arguments):
    assert "--help" in refused(*arguments)


def test_a_stage_runs_and_says_what_it_does(params, command, tmp_path):
    path = params()
    status, out, err = command("split", path)
    assert (status, err) == (0, "") and "split: runs, no result yet" in out
    assert (tmp_path / "outputs" / "small" / "split" / "manifest.json").exists()
    assert "split: up to date" in command("split", path)[1]


def test_set_reaches_the_stage(params, command, tmp_path):
    assert command("split", params(), "--set", "name=other", "--set", "data.largest=20")[0] == 0
    table = (tmp_path / "outputs" / "other" / "split" / "classes.csv").read_text()
    assert table.splitlines()[1].startswith("0,20,")


def test_lab_opens_the_first_notebook_from_the_projects_folder(monkeypatch, project, tmp_path):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(__main__.os, "execve", lambda program, arguments, environment: started.append((os.getcwd(), arguments)))
    __main__.main(["lab"])
    folder, arguments = started[0]
    assert folder == str(project) and "jupyterlab" in arguments
    page = next(a for a in arguments if "default_url" in a).split("/lab/tree/")[1]
    assert (project / page).is_file()


@contextlib.contextmanager
def clearing_up_fails():
    try:
        yield
    finally:
        [].pop()


@pytest.mark.parametrize("within", [contextlib.nullcontext, clearing_up_fails])
def test_an_interrupt_says_that_nothing_is_lost(monkeypatch, params, command, within):
    def interrupted(run, name, quiet):
        with within():
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "execute", interrupted)
    status, _, err = command("split", params())
    assert status == 130 and "goes on from the last checkpoint" in err and err.count("\n") == 1
    monkeypatch.setattr("osdtw_lib.data.inspection.inspect", lambda *_: interrupted(None, None, None))
    status, _, err = command("inspect", params())
    assert (status, err) == (130, "interrupted\n")


def test_a_python_without_the_libraries_is_one_line(params, command, monkeypatch):
    def lacking(*_):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr("osdtw_lib.config.load.load_config", lacking)
    status, out, err = command("split", params())
    assert status == 2 and err.startswith("error: this Python has no pandas; after ./run_all.sh: .venv/bin/python -m osdtw_lib")


def test_an_interruption_while_the_command_line_is_read_is_one_too(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("osdtw_lib.__main__._parser", interrupted)
    assert __main__.main(["stage1"]) == 130 and capsys.readouterr().err.startswith("interrupted; the same command goes on")
    assert __main__.main([]) == 130 and capsys.readouterr().err == "interrupted\n"
