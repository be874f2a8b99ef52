"""Ranks, regret and the rank of a pick on grids small enough to count by hand; Spearman beside scipy's."""

import numpy as np
import pandas as pd
import pytest

from osdtw_lib.ablation.ranking import one_cell_at_zero, rank, spearman

scipy_stats = pytest.importorskip("scipy.stats")


def table(values, name):
    """values: {(C, w): value}."""
    return pd.DataFrame([{"shared_depth": c, "head_weight": w, name: v} for (c, w), v in values.items()])


@pytest.mark.parametrize("seed", range(5))
def test_spearman_is_scipys_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=30), rng.integers(0, 6, 30)
    assert spearman(a, b) == pytest.approx(scipy_stats.spearmanr(a, b).statistic, abs=1e-12)
    assert np.isnan(spearman(a, np.ones(30)))


MEASURED = table({(0, 0.3): 80, (0, 0.7): 80, (2, 0.3): 85, (2, 0.7): 84, (4, 0.3): 70, (4, 0.7): 75}, "all")


def test_by_hand():
    # C = 0 is one cell: goodness 80, 85, 84, 70, 75 against totals 3, 2, 1, 5, 4
    totals = table({(0, 0.3): 3, (0, 0.7): 3, (2, 0.3): 2, (2, 0.7): 1, (4, 0.3): 5, (4, 0.7): 4}, "total")
    found = rank(MEASURED, totals)
    # ranks 3 5 4 1 2 against 3 4 5 1 2: 1 - 6 * 2 / (5 * 24)
    assert found["spearman"] == pytest.approx(0.9)
    assert found["regret"] == 1 and found["rank_of_pick"] == 2
    assert found["over_weights"] == pytest.approx((-1 + 1) / 2)  # wrong at C = 2, right at C = 4


def test_a_loss_is_better_when_small():
    measured = MEASURED.assign(nll=-MEASURED["all"])
    totals = table({(0, 0.3): 3, (0, 0.7): 3, (2, 0.3): 1, (2, 0.7): 2, (4, 0.3): 5, (4, 0.7): 4}, "total")
    found = rank(measured, totals, "nll", smaller_is_better=True)
    assert (found["spearman"], found["regret"], found["rank_of_pick"]) == (pytest.approx(1), 0, 1)


def test_infinite_and_undefined_totals_rank_last_and_are_never_picked():
    totals = table({(0, 0.3): 3, (0, 0.7): 3, (2, 0.3): np.nan, (2, 0.7): np.inf, (4, 0.3): 5, (4, 0.7): 4}, "total")
    found = rank(MEASURED, totals)
    assert found["regret"] == 5 and found["rank_of_pick"] == 3
    assert found["spearman"] < 0
    with pytest.raises(ValueError, match="finite"):
        rank(MEASURED, totals.assign(total=np.inf))


def test_indifference_to_the_weight_is_worth_nothing_over_weights():
    assert rank(MEASURED, MEASURED.assign(total=MEASURED["shared_depth"]))["over_weights"] == 0


def test_held_out_regret_compares_on_the_half_that_did_not_choose():
    halves = {(2, 0.3): (90, 70), (2, 0.7): (80, 80), (4, 0.3): (70, 85)}
    measured = table({c: sum(v) / 2 for c, v in halves.items()}, "all")
    measured["half_0"], measured["half_1"] = zip(*halves.values())
    totals = table({(2, 0.3): 2, (2, 0.7): 1, (4, 0.3): 3}, "total")
    found = rank(measured, totals)  # the pick is (2, 0.7): 80 on both halves
    assert found["regret"] == 0
    # half 0 prefers (2, 0.3): 70 - 80 on half 1; half 1 prefers (4, 0.3): 70 - 80 on half 0
    assert found["regret_held_out"] == -10


def test_cells_are_matched_by_name_not_by_row_and_only_where_both_have_them():
    totals = table({(4, 0.7): 2, (2, 0.3): 1, (6, 0.1): 0, (0, 0.5): 3}, "total").iloc[::-1]
    found = rank(MEASURED, totals)
    assert (found["regret"], found["rank_of_pick"]) == (0, 1)
    assert found["spearman"] == pytest.approx(0.5)  # 75, 85, 80 against 2, 1, 3


def test_one_cell_at_zero():
    assert one_cell_at_zero(MEASURED)[["shared_depth", "head_weight"]].values.tolist() == [
        [0, 0.0],
        [2, 0.3],
        [2, 0.7],
        [4, 0.3],
        [4, 0.7],
    ]


def test_the_pick_is_the_searchs():
    totals = table({(0, 0.3): 1, (0, 0.7): 1, (2, 0.3): 2, (2, 0.7): 2, (4, 0.3): 5, (4, 0.7): 4}, "total")
    assert rank(MEASURED, totals)["regret"] == 5  # nothing shared, whatever weight its one cell goes by
    ends = {(0, 0.3): 80, (2, 0.0): 30, (2, 0.3): 85, (2, 1.0): 40}
    totals = table({(0, 0.3): 3, (2, 0.0): 0, (2, 0.3): 2, (2, 1.0): 1}, "total")
    assert rank(table(ends, "all"), totals)["rank_of_pick"] == 1  # a task that is not trained is never picked
    with pytest.raises(ValueError, match="finite"):
        rank(table(ends, "all").iloc[1:2], totals)
