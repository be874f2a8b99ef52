"""The benchmarks run with tiny sizes and write what benchmarks/README.md says. No time is looked at."""

import runpy
import subprocess
import sys
from importlib.util import find_spec

import pandas as pd
import pytest

FISHER = ["model", "device", "method", "ratio", "peak_memory_ratio", "max_relative_error", "tensors_covered", "tensors_total"]
PROXY = ["parameters", "weights", "seconds", "read_once_seconds", "peak_memory_ratio"]
DATA = ["path", "images_per_core_second", "ratio", "images_per_second", "cores_for_4000", "rounds"]
METHODS = {  # and the package it needs
    "diagonal_fisher": "torch",
    "one sample at a time": "torch",
    "torch.func vmap(grad)": "torch",
    "Opacus": "opacus",
    "Opacus, raw parameters frozen": "opacus",
    "BackPACK": "backpack",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory, project):
    """quick("fisher") runs the benchmark and returns its folder of results and what it printed."""

    def run(name):
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--out", str(folder)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return folder, done.stdout

    return run


@pytest.fixture
def quick_here(tmp_path, project, monkeypatch, capsys):
    """The same in this process, which has imported everything: for one that measures neither memory nor what a start takes."""
    monkeypatch.syspath_prepend(str(project / "benchmarks"))

    def run(name):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", "--out", str(tmp_path)])
        runpy.run_path(str(project / "benchmarks" / f"{name}.py"), run_name="__main__")
        return tmp_path, capsys.readouterr().out

    return run


def test_fisher(quick):
    folder, said = quick("fisher")
    table = pd.read_csv(folder / "fisher.csv")
    assert list(table.columns) == [*FISHER, "note"]
    assert all(word in said for word in ("Machine: ", "Versions: ", "torch ", "Compiled loops"))
    assert "not measured on a GPU" in said or "cuda" in set(table["device"])
    measured = table[table["device"] == "cpu"]
    assert measured["model"].nunique() == 2
    for _, rows in measured.groupby("model"):
        assert list(rows["method"]) == list(METHODS)
        ours = rows.iloc[0]
        assert ours["max_relative_error"] < 1e-3 and ours["tensors_covered"] == ours["tensors_total"] > 0
        for row in rows.itertuples():
            if not find_spec(METHODS[row.method]):
                assert row.note == "not installed: pip install -e .[bench]"
            elif not row.note.startswith("failed"):
                assert row.ratio > 0 and row.max_relative_error < 1e-3, row
    grown = pd.read_csv(folder / "fisher_growth.csv")
    assert list(grown["against"].unique()) == ["images", "tokens", "width"] and (grown["fisher_seconds"] > 0).all()


def test_proxy(quick):
    folder, said = quick("proxy")
    table = pd.read_csv(folder / "proxy.csv")
    assert list(table.columns) == [*PROXY, "form", "how"]
    assert all(word in said for word in ("Machine: ", "Versions: ", "Compiled loops", "ViT-L", "ViT-H"))
    assert (table[["seconds", "read_once_seconds"]] > 0).all(axis=None)
    measured, computed = (table[table["how"] == how] for how in ("measured", "computed"))
    assert set(measured["form"]) == {"paper", "damped"} and set(measured["weights"]) == {2, 11}
    assert sorted((computed["parameters"] / 1e6).round().unique()) == [304, 631]
    largest = measured[(measured["parameters"] == measured["parameters"].max()) & (measured["weights"] == 11)]
    for form, rows in computed.groupby("form"):
        base = largest[largest["form"] == form].iloc[0]
        for row in rows.itertuples():
            assert row.seconds / base["seconds"] == pytest.approx(row.parameters / base["parameters"])
    answers = pd.read_csv(folder / "explorer.csv")
    assert list(answers.columns) == ["what", "milliseconds", "note"] and (answers["milliseconds"] > 0).all()
    assert len(answers) == 4 and "bins; grid within" in answers["note"][0]


def test_train(quick_here):
    folder, said = quick_here("train")
    table = pd.read_csv(folder / "train.csv")
    assert list(table.columns) == ["model", "device", "method", "ratio", "images_per_second", "mfu", "note"]
    assert all(word in said for word in ("Machine: ", "Versions: ", "torch "))
    assert "not measured on a GPU" in said or "cuda" in set(table["device"])
    quick_rows = table[table["model"].str.contains("quick")]
    one, two = (quick_rows[quick_rows["method"].str.endswith("two networks") == pair] for pair in (False, True))
    methods = ["plain eager loop", "plain eager loop, attention written out", "training.fit", "training.fit, torch.compile"]
    assert list(one["method"]) == methods
    assert list(two["method"]) == [f"{m}, Stage 1's two networks" for m in (methods[0], *methods[2:])]
    for rows in (one, two):
        assert rows.iloc[0]["ratio"] == 1 and list(rows["note"])[-1] == "not run with --quick"
        assert (rows.iloc[:-1][["ratio", "images_per_second"]] > 0).all(axis=None)
    assert quick_rows["mfu"].isna().all()  # a CPU has none


def test_data(quick_here):
    folder, said = quick_here("data")
    table, passes = pd.read_csv(folder / "data.csv"), pd.read_csv(folder / "data_passes.csv")
    assert list(table.columns) == DATA and "Machine: " in said and "generated JPEGs of 500 x 375" in said
    assert (table[DATA[1:5]] > 0).all(axis=None) and table["ratio"][0] == 1
    assert table["path"].str.startswith("JPEG").sum() == table["path"].str.startswith("cache").sum() == 3
    small = pd.read_csv(folder / "data_reading.csv")
    assert list(small["images"]) == ["PNG, 28 px"] * 2 + ["JPEG, 500 x 375"] * 2
    assert list(small["recipe"]) == ["read only", "crop, flip, RandAug"] * 2 and "PNG, 28 px, read only: " in said
    assert (small["ratio"] > 0).all() and (small["training_ms"] > 0).all()
    assert list(passes["once a data set"]) == ["check of all files", "building the cache"]
    assert (passes[["images_per_core_second", "images_per_second"]] > 0).all(axis=None)


def test_busy(quick):
    folder, said = quick("busy")
    table = pd.read_csv(folder / "busy.csv")
    assert list(table["threads_wait"]) == ["libgomp's own spin", "as set by osdtw_lib"] and "load before: " in said
    assert (table[["idle_steps_per_second", "busy_steps_per_second", "busy_ratio"]] > 0).all(axis=None)
    assert table["idle_ratio"][0] == 1 and said.count("; at most ") == 2


def test_steps(quick_here):
    folder, said = quick_here("steps")
    table = pd.read_csv(folder / "steps.csv")
    assert list(table.columns) == ["stage", "device", "loop", "ratio", "images_per_second", "note"]
    assert list(table["stage"].unique()) == ["start", "stage1", "stage2", "stage3"]
    assert list(table["loop"]) == ["plain loop", "training.fit"] * 4 and "Machine: " in said
    assert (table["ratio"][::2] == 1).all() and (table[["ratio", "images_per_second"]] > 0).all(axis=None)


def test_stacked(quick_here):
    folder, said = quick_here("stacked")
    table = pd.read_csv(folder / "stacked.csv")
    assert list(table.columns) == ["networks", "ratio", "milliseconds_a_network", "largest_difference", "note"]
    assert "Machine: " in said and (table["ratio"] > 0).all() and (table["largest_difference"] < 1e-4).all()


def test_end_to_end(quick):
    folder, said = quick("end_to_end")
    table = pd.read_csv(folder / "end_to_end.csv").set_index("part")
    assert list(table.columns) == ["seconds", "share", "gflops"] and "Machine: " in said
    stages = ["split", "start", "stage1", "fisher"]
    assert list(table.index) == [*stages, "sum of the stages", "no stage at work", "wall", "wall, everything found done"]
    seconds = table["seconds"]
    assert seconds["sum of the stages"] == pytest.approx(seconds[stages].sum())
    assert 0 <= seconds["no stage at work"] <= seconds["wall"]
    assert (table["gflops"][["start", "stage1", "fisher"]] > 0).all() and table["share"]["wall"] == 1


def test_stages_beside_each_other_count_once(project, monkeypatch):
    monkeypatch.syspath_prepend(str(project / "benchmarks"))
    at_work = runpy.run_path(str(project / "benchmarks" / "end_to_end.py"))["at_work"]
    done = {"a": (10, 10), "beside a, beyond it": (8, 15), "within that": (2, 12), "after a gap": (5, 30)}  # seconds, when done
    assert at_work([(name, seconds, 0.0, at) for name, (seconds, at) in done.items()]) == 15 + 5


def test_growth(quick_here):
    folder, said = quick_here("growth")
    table = pd.read_csv(folder / "growth.csv")
    assert list(table.columns) == ["against", "value", "ms_per_image", "ratio", "rounds"] and "Machine: " in said
    assert [list(rows["value"]) for _, rows in table.groupby("against", sort=False)] == [[64, 128], [10, 8142], [1, 2]]
    assert (table["ratio"][::2] == 1).all() and (table[["ms_per_image", "ratio"]] > 0).all(axis=None)


def test_held_out_bias(quick_here):
    folder, said = quick_here("held_out_bias")
    table = pd.read_csv(next(folder.glob("held_out_bias_*.csv")))
    assert table["where"].nunique() == 4 and table["excess"].notna().all()
    assert (table.loc[table["shared_depth"] == 0, "excess"] == 0).all() and (table["excess"] != 0).any()
    assert "nats by merging up to a depth" in said


def test_sensitivity(quick_here):
    folder, said = quick_here("sensitivity")
    table, cells = (pd.read_csv(next(folder.glob(f"sensitivity_*{end}.csv"))) for end in ("lt", "cells"))
    assert table.groupby("value")["form"].apply(list).tolist() == [["paper", "damped", "direct"]] * 2
    best = cells.groupby("value")["all"].max()
    assert (table["best_all"] == table["value"].map(best)).all()
    assert (table["regret"] - (table["best_all"] - table["pick_all"])).abs().max() < 1e-9
    assert "MNIST digits" in said and said.count("start: epoch 1/1") == 1  # what the factor does not touch is trained once


def test_several_groups(quick_here):
    from osdtw_lib.config.load import load_config
    from osdtw_lib.stages import execute
    from osdtw_lib.stages.proxy_inputs import load_proxy, measured_bias
    from osdtw_lib.stages.run import Run

    folder, said = quick_here("several_groups")
    cells, table = (pd.read_csv(folder / f"several_groups_mnist_lt{end}.csv") for end in ("_cells", ""))
    assert table.groupby("groups")["form"].apply(list).tolist() == [["eq18", "exact", "damped", "direct"]] * 2
    assert (table["regret"] - (table["best_all"] - table["pick_all"])).abs().max() < 1e-9 and "Machine: " in said
    assert sorted(cells.groupby("groups").size()) == [3 * 2 + 1, 4 * 2 + 1]

    # with two groups it is the method, to the last form of its proxy
    quick = runpy.run_path("benchmarks/several_groups.py")["QUICK"]
    run = Run(load_config("params/mnist_lt.yaml", [*quick, f"outputs={folder}"]))
    for stage in ("stage1", "fisher", "direct"):
        execute(run, stage, quiet=True)
    two = cells[cells["groups"] == 2]
    head = two["weights"].str.split(" : ").str[0].astype(float).map(lambda w: round(6 * w) / 6)
    for ours, form, damping in (("eq18", "paper", 0), ("exact", "damped", 0), ("damped", "damped", "evidence")):
        grid = load_proxy(run).grid(two["shared_depth"].unique(), sorted(head.unique()), form, damping)
        there = grid.set_index(["shared_depth", "head_weight"])["total"]
        wanted = [there[depth].iloc[abs(there[depth].index - w).argmin()] for depth, w in zip(two["shared_depth"], head)]
        assert two[ours].tolist() == pytest.approx(wanted, rel=1e-6), ours
    half = two[head == 0.5]
    assert (half["direct"] - half["damped"]).abs().max() > 0
    proxy = load_proxy(run).grid(form="direct", damping="evidence", measured_bias=measured_bias(run))
    there = proxy[proxy["head_weight"] == 0.5].set_index("shared_depth")["total"]
    assert half["direct"].tolist() == pytest.approx(there[half["shared_depth"]].tolist(), rel=1e-5)


def test_more_images(quick_here):
    folder, said = quick_here("more_images")
    table, judged = (pd.read_csv(folder / f"{name}.csv") for name in ("more_images", "more_images_judged"))
    assert table[["measured", "curve", "count", "cuts", "fisher_1"]].notna().all(axis=None) and table["class"].is_unique
    assert (table["curve_low"] <= table["curve"]).all() and (table["curve"] <= table["curve_high"]).all()
    assert judged["expected_by"].tolist() == ["curve", "count", "cuts", "fisher_0.01", "fisher_1", "fisher_100"]
    assert "10 images more" in said
