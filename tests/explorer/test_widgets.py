"""The explorer without a browser: what the sliders show, what goes into the page, a choice by hand."""

import fcntl
import json

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.explorer import widgets as explorer
from osdtw_lib.explorer.load import load_landscape
from osdtw_lib.explorer.state import marginal, marginal_rule
from osdtw_lib.methods.osdtw import two_branches
from osdtw_lib.models.two_branch import TwoBranchViT
from osdtw_lib.models.vit import costs_by_depth
from osdtw_lib.stages import execute
from osdtw_lib.stages import selection as selected_by
from osdtw_lib.stages.proxy_inputs import load_summary, measured_bias
from osdtw_lib.stages.selection import choose, proposed, selection


@pytest.fixture
def live(finished_copy):
    run = finished_copy()
    return run, explorer.proxy_explorer(run)


def test_the_views_follow_the_sliders(live):
    run, shown = live
    shown.depth.value, shown.weight.value, shown.form.value = 1, 0.7, "direct"
    grid = load_summary(run).grid([1], [0.7], "direct", shown.damping.value, measured_bias(run)).iloc[0]
    current = shown.figures["map"].data[2]
    assert (list(current.x), list(current.y)) == ([1], [0.7])
    assert "C = 1, w_A = 0.70" in shown.cell.value and f"{grid['total']:.4g} nats" in shown.cell.value
    over_depth, over_weight = shown.figures["over_depth"].data, shown.figures["over_weight"].data
    assert over_depth[3].y[1] == over_weight[3].y[70] == pytest.approx(grid["total"], rel=1e-12)
    assert over_depth[5].y[0] == over_weight[5].y[0] == over_depth[3].y[1]
    assert "Sharing block 2 saves" in shown.rule.value and "1 shared blocks" in shown.network.value


def test_the_paper_form_has_no_damping_and_the_evidence_button_sets_it(live):
    _, shown = live
    shown.form.value = "paper"
    assert shown.damping.disabled
    shown.form.value, shown.damping.value = "damped", 10.0
    shown.evidence.click()
    assert shown.damping.value == shown.landscape.summary.evidence() and not shown.damping.disabled


def test_a_choice_without_damping_opens_without_it_until_the_slider_is_moved(finished_copy):
    run = finished_copy({"selection.form": "damped", "selection.damping": 0.0, "selection.head_weight": 0.125})
    for stage in ("proxy", "selection"):
        execute(run, stage)
    at = load_summary(run).grid([2], [0.125], "damped", 0.0).iloc[0]
    assert selection(run)["total"] == pytest.approx(at["total"], rel=1e-3)  # of this cell, between two of the grid
    shown = explorer.proxy_explorer(run)
    page = shown.landscape.page()
    assert shown.position == (2, page["selected"]["head_weight"], "damped", 0.0) == (2, 0.12, "damped", page["start_damping"])
    shown.damping.value *= 10
    assert shown.position[3] == shown.damping.value > 0


def test_the_page_gets_the_numbers_and_little_else(live):
    _, shown = live
    data = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    page = data[explorer.PAGE]
    assert len(json.dumps(page, allow_nan=False)) < 500_000
    assert sum(page["encoder"]["rows"]) == len(shown.landscape.summary.alive)
    assert len(page["schematics"]) == len(page["bias"]["bias"]) == page["n_depths"] + 1


def test_the_marginal_rule_is_the_change_of_the_terms(live):
    _, shown = live
    cells = shown.landscape.over_depth("damped", 1e-3, 0.4)
    steps = marginal(cells)
    assert np.allclose(steps["costs"] - steps["saves"], np.diff(cells["total"]), atol=1e-15)
    assert marginal_rule(cells, 3) == "All 3 blocks are shared; there is no next one."
    made = pd.DataFrame(
        {"shared_depth": [0, 1], "encoder_variance": [0, 0.3], "encoder_bias": [0, 0.034], "decoder_variance": [0.5, 0.179]}
    )
    assert marginal_rule(made, 0) == "Sharing block 1 saves 0.021 and costs 0.034 nats: not worth it."
    made["encoder_variance"] = [0, np.inf]
    assert "not finite" in marginal_rule(made, 0)


def test_costs_are_those_of_the_network(finished):
    landscape = load_landscape(finished)
    for depth in range(finished.n_depths + 1):
        network = two_branches(finished.problem, depth)
        assert isinstance(network, TwoBranchViT)
        assert landscape.costs.loc[depth, "parameters"] == sum(p.numel() for p in network.parameters())
    parameters, flops = costs_by_depth(finished.config.model, 5)
    tokens, width = 4, 16  # qkv, projection and the two layers of the MLP; then the two products of attention
    assert flops[1] == 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    assert flops[0] - flops[1] == 2 * tokens * 14**2 * width and flops[-1] == 2 * width * 5
    assert sum(parameters) == sum(p.numel() for p in finished.vit(5).parameters())


def test_a_choice_by_hand_is_used_by_the_stages_and_said(live, capsys):
    run, shown = live
    shown.depth.value, shown.weight.value = 1, 0.43
    shown.use.click()
    chosen = json.loads((run.folder / "selection.json").read_text())
    assert selection(run) == chosen and chosen["chosen_by"] == "hand"
    assert (chosen["shared_depth"], chosen["head_weight"], chosen["form"]) == (1, 0.43, "damped")
    assert "C = 1, w_A = 0.43: chosen by hand" in shown.choice.value
    for stage in ("proxy", "stage2", "stage3", "tables"):
        execute(run, stage)
    said = capsys.readouterr().out
    assert "shared_depth 1, head_weight 0.43, chosen by hand" in said and "stale: head_weight 0.4 -> 0.43" in said
    assert json.loads((run.folder / "tables" / "selection.json").read_text()) == chosen
    shown.back.click()
    assert selection(run) == proposed(run) and "C = 2, w_A = 0.40" in shown.choice.value


@pytest.mark.parametrize(
    "change",
    [
        {"shared_depth": 2},
        {"head_weight": 0.47},
        {"shared_depth": 4},
        {"shared_depth": -1},
        {"shared_depth": 1.0},
        {"shared_depth": True},
        {"head_weight": 1.2},
        {"head_weight": "0.4"},
        {"head_weight": None},
        {"form": "other"},
        {"damping": -1},
        {"damping": float("nan")},
        {"chosen_by": "me"},
        {"proxy": "of another run"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_choice_that_does_not_fit_is_put_right(finished_copy, change, capsys):
    run = finished_copy()
    chosen = choose(run, 1, 0.43, "damped", 1e-3)
    (run.folder / "selection.json").write_text(json.dumps(chosen | change))
    execute(run, "selection")
    assert selection(run) == proposed(run)
    assert "put right" in capsys.readouterr().out
    assert json.loads((run.folder / "selection.json").read_text()) == proposed(run)


def test_a_choice_while_another_process_works_is_refused_in_words(live, monkeypatch):
    run, shown = live
    before = (run.folder / "selection.json").read_text()
    holder = {"token": "x", "pid": 17, "host": "elsewhere", "command": "a notebook", "since": "today"}
    (run.folder / ".lock").write_text(json.dumps(holder))
    with (run.folder / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        shown.use.click()
    assert "in use by process 17 on elsewhere since today (a notebook)" in shown.choice.value
    assert (run.folder / "selection.json").read_text() == before


def test_a_choice_made_for_another_proxy_is_dropped(finished_copy):
    run = finished_copy()
    choose(run, 1, 0.43, "damped", 1e-3)
    other = finished_copy({"selection.damping": 0.01})
    execute(other, "direct"), execute(other, "proxy")
    assert selection(other)["chosen_by"] == "parameters"


def test_a_choice_where_the_proxy_is_infinite_can_be_made_and_read(finished_copy, monkeypatch):
    run = finished_copy()
    summary = load_summary(run)
    summary.encoder.loc[0, ["a", "b"]] = [0.0, 1.0]  # no information for the head, which has all the weight
    monkeypatch.setattr(selected_by, "load_summary", lambda run: summary)
    assert choose(run, 3, 1.0, "paper", 0.0)["total"] is None
    assert selection(run)["head_weight"] == 1.0
