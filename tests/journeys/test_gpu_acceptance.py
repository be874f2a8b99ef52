"""The GPU's acceptance runs on a CPU at toy size, keeps what failed, and refuses what it cannot do. No speed is looked at."""

import os
import subprocess
import sys
import warnings

import pandas as pd
import pytest
import torch

COLUMNS = ["step", "quantity", "value", "unit", "bar", "passed", "card", "driver", "torch", "cuda", "date", "note"]
STEPS = ["correct", "waits", "mfu", "memory", "way", "several", "fisher", "search"]


@pytest.fixture(scope="module")
def script(project):
    """script("waits", "--quick") -> the finished process of gpu_acceptance.sh, to which no GPU is visible."""

    def run(*arguments):
        environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
        command = ["benchmarks/gpu_acceptance.sh", *map(str, arguments)]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="module")
def whole(script, tmp_path_factory):
    """Every step at toy size: (its rows, what it printed)."""
    folder = tmp_path_factory.mktemp("gpu")
    done = script("--device", "cpu", "--quick", "--out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_csv(folder / "gpu.csv", keep_default_na=False), done.stdout


@pytest.fixture
def acceptance(monkeypatch, project):
    """The module of the script, in this process."""
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    return pytest.importorskip("gpu_acceptance")


def values(rows, step, word):
    found = rows[(rows["step"] == step) & rows["quantity"].str.contains(word, regex=False)]
    assert len(found), f"{step}: no row of '{word}'"
    return found


def test_every_step_writes_its_rows(whole):
    rows, said = whole
    assert list(rows.columns) == COLUMNS and list(rows["step"].unique()) == STEPS
    assert (rows["card"] == "none").all() and (rows["torch"] == torch.__version__).all()
    assert not rows["note"].str.contains("failed: ").any()
    assert "Machine: " in said and " 0 missed" in said


def test_what_is_right_everywhere_has_a_bar_that_was_met(whole):
    rows, _ = whole
    for word in ("fp32 : float64", "= 4 parts of 1", "resumed = not killed: losses", "bf16 : fp32", "against float64", "failed"):
        assert set(values(rows, "correct", word)["passed"]) == {"True"}, word
    change = values(rows, "correct", "float64 on the CPU: change")["value"].astype(float)
    assert 0 < change.iloc[0] < 1e-5  # two precisions, so not the same computation twice
    assert set(values(rows, "way", "exit status")["passed"]) == {"True"}
    assert set(values(rows, "several", "the rest by one = one: losses")["passed"]) == {"True"}
    assert values(rows, "several", "processes left")["value"].astype(float).tolist() == [0]


def test_warnings_are_counted_and_named(whole, acceptance):
    rows, _ = whole
    counted = rows[rows["quantity"] == "warnings"]
    assert counted["step"].tolist() == STEPS and set(counted["bar"]) == {"<= 0"}
    shown = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *others: shown.append(str(message))
        warnings.simplefilter("always")
        with acceptance.rows.warned() as said:
            for text in ("a\nb", "a\nb", "c"):
                warnings.warn(text, stacklevel=1)
    assert shown == ["a\nb", "a\nb", "c"] and len(said) == 2 and all("UserWarning: " in line for line in said)


def test_a_speeds_bar_stands_there_and_is_not_judged_on_a_cpu(whole):
    rows, _ = whole
    for step, word, bar in (
        ("mfu", "the best size: MFU", ">= 0.45"),
        ("fisher", "time", "<= 1.05"),
        ("fisher", "memory", "<= 1.2"),
        ("way", "stage2 from cache: rate", ">= 2000"),
        ("search", "13 depths by 11 weights, damped", "<= 0.3"),
        ("memory", "peak by the plan's sum", "<= 1.15 and >= 0.85"),
    ):
        found = values(rows, step, word)
        assert bar in set(found["bar"]) and set(found["passed"]) == {""}, word
    assert set(values(rows, "waits", "20 parts: synchronisations")["note"]) == {"nothing to count on a CPU"}


def test_stages_are_measured_from_files_and_from_the_cache(whole):
    rows, _ = whole
    for where, stage in (("files", "stage1"), ("cache", "stage1"), ("cache", "stage3")):
        assert (values(rows, "way", f"{stage} from {where}: rate")["value"].astype(float) > 0).all()
        assert values(rows, "way", f"{stage} from {where}: waiting")["value"].astype(float).between(0, 100).all()


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["wait"], "no step 'wait'; there are correct, waits,"),
        (["--device", "cpu"], "--device cpu is for --quick alone"),
        ([], "sees no GPU; --device cpu --quick shows"),
    ],
)
def test_what_cannot_be_run_is_one_line(acceptance, capsys, monkeypatch, tmp_path, arguments, line):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert acceptance.main([*arguments, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and line in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "gpu.csv").exists()


def test_what_fails_is_a_row_and_the_rest_goes_on(acceptance, capsys, monkeypatch, tmp_path):
    from gpu import speed, waits

    def broken(step):
        step.add("before it failed", 1.0, "s")
        raise RuntimeError("no such thing")

    monkeypatch.setattr(waits, "waits", broken)
    monkeypatch.setattr(speed, "search", lambda step: step.add("found", 3.0, "s", most=2.0))
    given = ["waits", "search", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    assert acceptance.main(given) == 1
    monkeypatch.setattr(speed, "search", lambda step: step.add("found", 1.0, "s", most=2.0))
    assert acceptance.main(["search", *given[2:]]) == 0  # its own rows are replaced, the others' stay
    rows = pd.read_csv(tmp_path / "gpu.csv", keep_default_na=False)
    assert rows["quantity"].tolist() == ["before it failed", "the step", "warnings", "found", "warnings"]
    assert rows["passed"].tolist() == ["", "False", "", "True", ""]
    assert rows["note"][1] == "failed: RuntimeError: no such thing"
    assert "missed: waits: the step" in capsys.readouterr().out


def test_a_step_that_does_not_end_is_ended(acceptance, monkeypatch, tmp_path):
    from argparse import Namespace

    monkeypatch.setattr(acceptance, "LIMIT", 0.2)
    chosen = Namespace(device="cpu", quick=True, out=tmp_path)
    acceptance.own_process("search", chosen, tmp_path)
    (row,) = pd.read_csv(tmp_path / "gpu.csv").to_dict("records")
    assert (row["step"], row["passed"], row["note"]) == ("search", False, "did not end in 0.2 s")
