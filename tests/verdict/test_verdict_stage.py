"""The verdict on the tiny run: what is trained, what is found again, what is shown of it half done."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from osdtw_lib.config.load import load_config
from osdtw_lib.errors import DivergedError
from osdtw_lib.stages import baselines, execute
from osdtw_lib.stages.run import Run
from osdtw_lib.stages.proxy_inputs import load_proxy
from osdtw_lib.stages.selection import choose, selection
from osdtw_lib.verdict import cells as cells_module
from osdtw_lib.verdict import measure, stage
from osdtw_lib.verdict.cells import Cell, at_osdtws_budget, cells, of_method, of_osdtw
from osdtw_lib.verdict.rows import read, taken_from_elsewhere
from osdtw_lib.verdict.seed_run import SeedRun

pytestmark = pytest.mark.journey

ASKED = {"baselines": ["ce"], "verdict.methods": ["ce", "logit_adjusted_ce"], "verdict.seeds": [0, 1]}


@pytest.fixture
def in_one_process(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.fixture(scope="module")
def measured(chain):
    """A finished run with its verdict. For reading only."""
    run = chain(ASKED | {"verdict.budgets": ["epochs", "osdtw"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1)
        execute(run, "verdict")
    return run


def test_every_row_asked_for_is_there_at_every_seed_and_budget(measured):
    rows = stage.rows_of(measured)
    found = {(row["row"], row["budget"]): 0 for row in rows}
    for row in rows:
        found[row["row"], row["budget"]] += 1
        assert len(row["predicted"]) == len(measured.test)
    ours = ("stage1", "stage2", "osdtw_assembled", "osdtw", "osdtw_joint", "osdtw_eq18")
    ours += ("stage1_categorical", "osdtw_categorical")
    assert found == dict.fromkeys([(name, b) for name in (*ours, "ce", "logit_adjusted_ce") for b in ("epochs", "osdtw")], 2)
    assert not len(stage.missing(measured, rows))


def test_the_runs_own_seed_is_what_the_run_has_made(measured):
    own = SeedRun(measured, 0)
    assert [own.artifact(name).folder for name in ("stage3", "baselines/ce")] == [
        measured.artifact(name).folder for name in ("stage3", "baselines/ce")
    ]
    table = pd.read_csv(measured.folder / "tables" / "accuracy.csv").set_index("method")["all"]
    rows = {row["row"]: row for row in stage.rows_of(measured) if row["seed"] == 0 and row["budget"] == "epochs"}
    for name in ("ce", "stage1", "stage2", "osdtw_assembled", "osdtw"):
        assert rows[name]["metrics"]["all"] == pytest.approx(table[name])


def test_seeds_share_the_test_images_and_differ_in_what_they_predict(measured):
    one, two = (SeedRun(measured, seed) for seed in (0, 1))
    assert np.array_equal(one.indices[1], two.indices[1]) and np.array_equal(one.indices[0], two.indices[0])
    assert one.artifact("start").key != two.artifact("start").key
    rows = [r for r in stage.rows_of(measured) if r["row"] == "osdtw" and r["budget"] == "epochs"]
    assert rows[0]["predicted"] != rows[1]["predicted"]


def test_drawn_training_images_differ_and_never_test(measured, params):
    run = Run(load_config(params(ASKED | {"verdict.training_images": "drawn"})))
    train, test = SeedRun(run, 1).indices
    assert np.array_equal(test, run.indices[1]) and not set(train) & set(test)
    assert len(set(train) & set(run.indices[0])) < len(train) == len(set(train))
    assert np.array_equal(np.bincount(run.source.images.labels[train]), run.class_counts)
    assert SeedRun(run, 1).artifact("split").key != SeedRun(measured, 1).artifact("split").key


def test_as_published_c_and_w_a_are_eq_18s_and_the_measured_bias_is_not_paid_for(measured):
    for seed in (0, 1):
        own = SeedRun(measured, seed)
        [published] = [cell for cell in of_osdtw(own) if cell.name == "osdtw_eq18"]
        search = load_proxy(own)
        pick = search.select(search.grid(form="paper"))
        found = selection(published.run)
        assert (found["shared_depth"], found["head_weight"]) == (pick.shared_depth, pick.head_weight)
        assert found["form"] == "paper" and selection(own)["form"] != "paper"
        assert published.run.artifact("stage1").folder == own.artifact("stage1").folder
        assert published.run.artifact("stage3").folder != own.artifact("stage3").folder
        flops = sum(published.run.artifact(n).notes()["flops"] for n in ("stage1", "fisher", "stage2", "stage3"))
        assert published.result()["cost"]["flops"] == flops


def test_osdtws_compute_buys_an_ensemble_longer_trainings_or_more_networks(params, monkeypatch):
    run, one = SeedRun(Run(load_config(params({"verdict.methods": ["ensemble"]}))), 0), 100
    costs = {"osdtw": 4.3 * one, "ensemble": 2 * one}
    monkeypatch.setattr(cells_module, "_flops", lambda cell: costs[cell.name])
    pair, many = at_osdtws_budget(run, "ensemble")
    assert (pair.name, pair.run.asked["ensemble"][1].networks) == ("ensemble", 2)
    assert (many.name, many.run.asked["ensemble"][1].networks) == ("ensemble_as_many", 4)
    epochs = run.config.stage2.epochs
    assert pair.run.config.stage2.epochs == int(2.15 * epochs) and many.run.config.stage2.epochs == int(4.3 / 4 * epochs)
    assert many.title.startswith("4 networks") and many.artifact().folder != pair.artifact().folder
    assert many.run.artifact("start").folder == run.artifact("start").folder
    costs["ensemble"] = 4 * one
    assert [cell.name for cell in at_osdtws_budget(run, "ensemble")] == ["ensemble"], "no third network for so little"


def test_cost_is_what_was_counted(measured):
    rows = {(r["row"], r["budget"]): r["cost"] for r in stage.rows_of(measured) if r["seed"] == 0}
    epochs = measured.config.stage2.epochs
    assert rows["ce", "epochs"]["passes"] == pytest.approx(epochs, rel=0.1)  # its first layer needs no gradient of its input
    assert rows["ce", "epochs"]["forwards"] == pytest.approx(1, rel=0.05)
    assert rows["stage1", "epochs"]["passes"] == pytest.approx(2 * rows["ce", "epochs"]["passes"], rel=0.05)
    assert rows["osdtw", "epochs"]["passes"] > rows["stage2", "epochs"]["passes"] > rows["stage1", "epochs"]["passes"]
    for name in ("ce", "logit_adjusted_ce"):
        longer, theirs = rows[name, "osdtw"]["passes"], rows["osdtw", "epochs"]["passes"]
        assert 0.8 * theirs < longer <= theirs


def test_how_long_it_will_take_is_counted_before_anything_is_trained(measured, monkeypatch):
    run, places = Run(measured.config), [None]
    monkeypatch.setattr(measure, "places_of", lambda run, jobs: places[:jobs])
    stage2, own = run.artifact("stage2"), SeedRun(run, 0)
    per_flop = stage2.seconds() / stage2.notes()["flops"] / 3600
    ce, start = (own.artifact(name).notes()["flops"] for name in ("baselines/ce", "start"))
    flops = {name: own.artifact(name).notes()["flops"] for name in ("stage1", "fisher", "direct", "stage2", "stage3")}
    whole, again = sum(flops.values()), flops["stage2"] + 2 * flops["stage3"]
    hours = measure.hours_of
    assert hours(run, [("method", 0, "ce")]) == pytest.approx(ce * per_flop)
    both = [("method", 1, "ce"), ("chain", 1, "categorical")]
    assert hours(run, both) == pytest.approx((ce + whole + start) * per_flop)
    assert hours(run, [("chain", 0, "bernoulli")]) == pytest.approx((whole + again) * per_flop), "at Eq. (18)'s choice too"
    assert hours(run, [("longer", 0, "ce")]) == pytest.approx(whole * per_flop)
    assert hours(run, [("tuned", 0, "ce")]) == pytest.approx((9 * ce + start) * per_flop)
    assert hours(run, []) == 0
    places.append(None)
    assert run.by_one_thread and hours(run, both) == pytest.approx((ce + whole + start) * per_flop / 2), "two for one"
    monkeypatch.setitem(run.__dict__, "by_one_thread", False)
    assert hours(run, both) == pytest.approx((ce + whole + start) * per_flop), "Stage 2 had both"


def test_what_was_tuned_elsewhere_is_tried_out_no_more_here(measured, monkeypatch):
    run = Run(measured.config)
    given = {(name, "tuned", seed): {} for name in ("osdtw", "ce") for seed in (0, 1)}
    monkeypatch.setattr(measure, "taken_from_elsewhere", lambda run: given)
    jobs = [("tuned", seed, name) for seed in (0, 1) for name in ("osdtw", "ce", "logit_adjusted_ce")]
    assert {name for _, _, name in measure._to_do(run, jobs)} == {"logit_adjusted_ce"}


def test_a_second_time_everything_is_found(measured, capsys, in_one_process):
    capsys.readouterr()
    execute(Run(measured.config), "verdict")
    assert capsys.readouterr().out.startswith("verdict: up to date")


def test_tables_lie_with_the_runs_tables(measured):
    folder = measured.folder / "tables"
    assert len(pd.read_csv(folder / "verdict_summary_epochs.csv")) == len(pd.read_csv(folder / "verdict_summary_osdtw.csv")) == 10
    assert len(pd.read_csv(folder / "verdict_who_wins_epochs.csv")) == 10 * 9
    assert (folder / "verdict_summary_epochs.tex").read_text().startswith("\\begin{tabular}")
    assert (folder / "verdict_summary_epochs.md").read_text().count("\n| ") == 10 + 1
    assert set(json.loads((measured.folder / "verdict" / "verdict.json").read_text())) == {"epochs", "osdtw"}


def test_stopped_half_way_it_shows_what_is_there_and_goes_on(finished_copy, monkeypatch, in_one_process):
    run = finished_copy({"verdict.methods": ["ce"], "verdict.seeds": [0], "baselines": ["ce"]})
    make, made = Cell.make, []

    def make_two_and_stop(cell):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(cell.name)
        make(cell)

    monkeypatch.setattr(Cell, "make", make_two_and_stop)
    with pytest.raises(KeyboardInterrupt):
        execute(run, "verdict")
    rows = stage.rows_of(run)
    assert [row["row"] for row in rows] == made
    assert set(stage.missing(run, rows)["row"]) >= {"osdtw_assembled", "osdtw", "ce"}
    monkeypatch.setattr(Cell, "make", make)
    execute(run, "verdict")
    assert len(stage.rows_of(run)) == 8 + len(SeedRun(run, 0).asked)


def test_one_method_that_diverges_keeps_no_other_from_its_row(finished_copy, monkeypatch, in_one_process):
    run = finished_copy({"verdict.methods": ["ce", "focal"], "verdict.seeds": [0]})
    make = Cell.make

    def diverges(cell):
        if cell.name == "ce":
            raise DivergedError("the loss is not finite in epoch 1; lower the learning rate")
        make(cell)

    monkeypatch.setattr(Cell, "make", diverges)
    execute(run, "verdict")
    assert {row["row"] for row in stage.rows_of(run)} >= {"osdtw", "focal"}
    (line,) = stage.missing(run, stage.rows_of(run)).to_dict("records")
    assert (line["row"], line["seeds"]) == ("ce", "0") and "not finite in epoch 1" in line["why"]
    monkeypatch.setattr(Cell, "make", make)
    assert measure._to_do(run, [("method", 0, "ce")]) == []  # the same would come of it


def test_a_network_that_diverges_takes_only_those_with_it_that_stand_on_it(finished_copy, monkeypatch, in_one_process):
    run = finished_copy({"baselines": [], "verdict.methods": ["crt", "focal"], "verdict.seeds": [1]})
    train = baselines.train

    def diverges(run, write, network, phases, purpose, label):
        if label == "baselines/ce":
            raise DivergedError("the loss is not finite in epoch 1; lower the learning rate")
        train(run, write, network, phases, purpose, label)

    monkeypatch.setattr(baselines, "train", diverges)
    execute(run, "verdict")
    assert {row["row"] for row in stage.rows_of(run)} >= {"osdtw", "focal"}
    lines = {line["row"]: line["why"] for line in stage.missing(run, stage.rows_of(run)).to_dict("records")}
    assert lines.keys() == {"ce", "crt"} and all("not finite in epoch 1" in why for why in lines.values())


def test_another_depth_is_another_assembled_row(finished_copy):
    keys = set()
    for changes in ({}, {"selection.shared_depth": 1}, {"stage3.decoders": "stage2"}):
        own = SeedRun(finished_copy({"verdict.methods": ["ce"]} | changes), 0)
        keys.add(next(cell for cell in of_osdtw(own) if cell.name == "osdtw_assembled").artifact().key)
    assert len(keys) == 3


def test_redone_it_finds_its_rows_again(finished_copy, monkeypatch, in_one_process):
    run = finished_copy({"verdict.methods": ["ce"], "verdict.seeds": [0], "baselines": ["ce"]})
    execute(run, "verdict")
    rows = {path: path.stat().st_mtime_ns for path in (run.folder / "verdict").rglob("row.json")}
    from osdtw_lib.report.notebooks import _books_from

    assert _books_from(run, "09", ()) == ["09_verdict"]
    assert run.artifact("verdict").why_not_done() == "no result yet"
    execute(run, "verdict")
    assert rows == {path: path.stat().st_mtime_ns for path in (run.folder / "verdict").rglob("row.json")}


def test_the_runs_tables_made_anew_leave_the_verdicts_beside_them(measured, finished_copy):
    run, rows = finished_copy(), measured.folder / "tables" / "verdict_rows.json"
    beside = run.folder / "tables" / "verdict_rows.json"
    beside.write_bytes(rows.read_bytes())
    for page in ("01_data_split", "02_starting_point"):
        (run.folder / f"{page}.html").touch()
    from osdtw_lib.report.notebooks import _books_from

    _books_from(run, "06", ())
    assert run.artifact("tables").why_not_done() == "no result yet" and not (run.folder / "stage3").exists()
    assert beside.read_bytes() == rows.read_bytes()


def test_quick_is_the_first_two_seeds(params):
    run = Run(load_config(params({"verdict.seeds": [5, 6, 7], "verdict.quick": True})))
    assert {cell.run.config.seed for cell in cells(run)} == {5, 6}


def test_quick_leaves_out_what_costs_most_and_the_other_likelihood_unless_methods_are_named(params, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(measure, "everywhere", lambda run, function, jobs: trained.extend(job[-1] for job in jobs))
    changes = {"verdict.seeds": [5, 6], "verdict.quick": True, "baselines": ["ce", "ride"]}
    run = Run(load_config(params(changes)))
    execute(run, "split")
    out = measure.left_out(run)
    dear = {"bbn", "ensemble", "sade", "rsg"}
    assert dear <= out and not out & {"ce", "ride", "crt", "ldam_drw", "osdtw", "stage1", "osdtw_joint"}
    assert {"osdtw_categorical", "stage1_categorical"} <= out, "and ride, which the run itself asks for, stays"
    measure.measure(run)
    assert not out & set(trained) and {"ce", "ride", "ldam_drw", "bernoulli"} <= set(trained) and "categorical" not in trained
    assert "--quick leaves out" in capsys.readouterr().out
    table = stage.missing(run, []).set_index("row")["why"]
    assert {table[name] for name in out} == {"left out by --quick"} and table["ce"] == "not yet"
    assert not measure.left_out(Run(load_config(params(changes | {"verdict.methods": ["bbn"]}))))
    assert not measure.left_out(Run(load_config(params(changes | {"verdict.quick": False}))))


def opened_with_both(run):
    values = run.config.verdict.model_copy(update={"methods": {"ce": {}, "logit_adjusted_ce": {}}})
    return Run(run.config.model_copy(update={"verdict": values}), source=run.source)


def test_a_row_made_elsewhere_is_not_trained_again_here(measured, finished_copy, tmp_path, in_one_process):
    theirs = of_method(SeedRun(measured, 0), "logit_adjusted_ce", "epochs").artifact().folder / "row.json"
    (row,) = read(theirs)
    assert row["row"] == "logit_adjusted_ce"
    run = finished_copy({"verdict.methods": ["ce"], "verdict.seeds": [0], "verdict.others": [str(theirs)], "baselines": ["ce"]})
    assert list(taken_from_elsewhere(run)) == [("logit_adjusted_ce", "epochs", 0)]
    jobs = [("method", 0, name) for name in ("ce", "logit_adjusted_ce")]
    assert measure._to_do(opened_with_both(run), jobs) == jobs[:1]


def test_rows_of_another_choice_than_the_one_made_by_hand_here_are_left_out(measured, finished_copy):
    theirs = measured.folder / "tables" / "verdict_rows.json"
    values = {"verdict.methods": ["ce"], "verdict.seeds": [0, 1], "verdict.others": [str(theirs)], "baselines": ["ce"]}
    run = finished_copy(values)
    there = {at[:2] for at in taken_from_elsewhere(run) if at[2] == 0}
    assert {("osdtw", "epochs"), ("ce", "osdtw")} <= there
    choose(run, 1, 0.5, "damped", 0.01)
    again = Run(run.config, source=run.source)
    left = {at[:2] for at in taken_from_elsewhere(again) if at[2] == 0}
    assert there - left >= {("osdtw", "epochs"), ("stage2", "epochs"), ("ce", "osdtw")} and ("stage1", "epochs") in left
    assert ("ce", "epochs") in left and {at for at in taken_from_elsewhere(again) if at[2] == 1 and at[0] == "osdtw"}


def test_the_file_of_all_rows_makes_the_same_table_elsewhere(measured, finished_copy, in_one_process):
    theirs = measured.folder / "tables" / "verdict_rows.json"
    assert read(theirs) == stage.measured_rows(measured)
    values = {"verdict.methods": ["ce", "logit_adjusted_ce"], "verdict.seeds": [0, 1], "verdict.budgets": ["epochs", "osdtw"]}
    run = finished_copy(values | {"verdict.others": [str(theirs)], "baselines": ["ce"]})
    jobs = [(kind, seed, name) for kind in ("method", "longer") for seed in (0, 1) for name in ("ce", "logit_adjusted_ce")]
    assert measure._to_do(run, jobs) == [], "what was trained there is not trained again, longer trainings too"
    execute(run, "verdict")
    assert not (run.folder / "verdict" / "seed1" / "start").exists(), "nor is its start made"
    for table in ("verdict_summary_epochs.csv", "verdict_summary_osdtw.csv", "verdict_who_wins_osdtw.csv"):
        assert (run.folder / "tables" / table).read_text() == (measured.folder / "tables" / table).read_text()


def test_a_seed_whose_rows_all_come_from_elsewhere_needs_no_network_to_stand_on(finished_copy, monkeypatch, in_one_process):
    values = {"verdict.methods": ["ce", "tau_norm"], "verdict.seeds": [0, 1], "verdict.budgets": ["epochs", "osdtw"]}
    run = finished_copy(values | {"baselines": ["ce"]})
    ours = [(cell.name, "epochs") for kind in cells_module.LIKELIHOODS for cell in of_osdtw(SeedRun(run, 1, kind))]
    theirs = [(name, budget) for name in ("ce", "tau_norm") for budget in ("epochs", "osdtw")]
    given = {(*place, 1): {"cost": {"flops": 2 if place[0] == "osdtw" else 1}} for place in ours + theirs}
    for module in (measure, cells_module):
        monkeypatch.setattr(module, "taken_from_elsewhere", lambda run: given)
    measure.measure(run)
    assert {(cell.name, cell.budget) for cell in cells(run) if cell.done() and not cell.run.config.seed} >= set(theirs)
    assert not (run.folder / "verdict" / "seed1").exists()


def test_what_was_counted_elsewhere_says_how_long_osdtws_compute_is(measured, finished_copy, tmp_path):
    rows = [row for row in stage.measured_rows(measured) if row["budget"] == "epochs"]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    values = {"verdict.methods": ["ce"], "verdict.seeds": [1], "verdict.budgets": ["epochs", "osdtw"]}
    run = finished_copy(values | {"verdict.others": [str(tmp_path / "rows.json")], "baselines": ["ce"]})
    assert of_osdtw(SeedRun(run, 1))[0].done() is None, "OSDTW is not trained here at this seed"
    [one], [theirs] = (at_osdtws_budget(SeedRun(of, 1), "ce") for of in (run, measured))
    assert one.run.config.stage2 == theirs.run.config.stage2
    one.make()
    assert one.result()["predicted"] == theirs.result()["predicted"] and "by_hand" not in one.result()["parameters"]


def test_options_of_the_verdict_alone_are_refused_without_it(refused, params):
    assert "add --verdict" in refused("run", params(), "--quick")
    assert "add --verdict" in refused("run", params(), "--with", "a.json")
    assert "add --verdict" in refused("run", params(), "--tuned")
    line = refused("run", "--verdict", "--with", "a.json", params())
    assert "is a parameter file; name parameter files before --with" in line


def test_budgets_without_the_one_they_stand_on_are_refused(refused, params):
    assert "verdict.budgets" in refused("split", params({"verdict.budgets": ["osdtw"]}))


def test_a_row_file_that_is_none_is_refused_before_anything_is_trained(refused, params, tmp_path):
    (tmp_path / "odd.json").write_text("{}")
    path = params({"verdict.others": [str(tmp_path / "odd.json")]})
    assert "odd.json: is no row file" in refused("verdict", path)
