"""Which cell of a grid is picked where totals are the same, not finite, or least where a task is not trained."""

import numpy as np
import pandas as pd
import pytest
from test_exact import DEPTH_OF, N, statistics

from osdtw_lib.proxy import Proxy
from osdtw_lib.proxy.grid import Choice, Search, best_weight

WEIGHTS = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)


def grid(*rows):
    """A row of totals a depth, over WEIGHTS."""
    cells = [(depth, weight, total) for depth, row in enumerate(rows) for weight, total in zip(WEIGHTS, row)]
    return pd.DataFrame(cells, columns=["shared_depth", "head_weight", "total"])


def picked(*rows):
    choice = Search.select(grid(*rows))
    return choice.shared_depth, choice.head_weight


FLAT = [0.2] * 6


def test_a_flat_row_takes_the_best_weight_of_the_depth_beside():
    assert picked(FLAT, [9, 4, 3, 2, 1, 9]) == (0, 0.7)
    assert picked([9, 4, 3, 2, 1, 9], [9, 4, 1, 2, 3, 9], FLAT) == (2, 0.3)


def test_where_that_one_does_not_know_either_the_next_depth_says():
    assert picked(FLAT, [9, 1, 2, 2, 1, 9], [9] * 6, [9, 1, 2, 3, 4, 9]) == (0, 0.1)


def test_of_two_depths_as_near_the_smaller_says():
    assert picked([9, 1, 2, 3, 4, 9], FLAT, [9, 4, 3, 2, 1, 9]) == (1, 0.1)


def test_where_no_depth_knows_it_is_one_half_or_what_is_nearest():
    assert picked(FLAT) == picked(FLAT, [9] * 6) == (0, 0.5)
    assert picked([1, 0.2, 0.9, 0.9, 0.2, 1]) == (0, 0.7)
    both = grid([1, 9, 0.2, 9, 0.2, 1])  # 0.3 and 0.7 are as near
    assert (
        Search.select(both).head_weight == Search.select(both.assign(head_weight=both["head_weight"].round(3))).head_weight == 0.3
    )


def test_of_tied_weights_the_one_nearest_to_the_best_beside():
    assert picked([9, 0.2, 9, 0.2, 9, 9], [9, 9, 9, 9, 1, 9]) == (0, 0.5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e5])
def test_what_sums_of_floats_differ_by_is_no_difference(scale):
    noisy = np.array(FLAT) * (1 + np.array([0, 0, 3, 1, 2, 0]) * 1e-15)
    assert picked(scale * noisy, [9e5, 4e5, 3e5, 2e5, 1e5, 9e5]) == (0, 0.7)
    apart = np.array(FLAT) * (1 + np.array([0, 2, 1, 0, 3, 0]) * 1e-6)
    assert picked(scale * apart, [9e5, 4e5, 3e5, 2e5, 1e5, 9e5]) == (0, 0.5)


def test_of_two_depths_that_are_the_same_the_smaller_with_its_own_weight():
    assert picked([9] * 6, [9, 2, 1, 2, 2, 9], [9, 2, 2, 1, 2, 9]) == (1, 0.3)
    assert picked([9] * 6, [9, 2, 1 + 1e-14, 2, 2, 9], [9, 2, 2, 1, 2, 9]) == (1, 0.3)


def test_a_weight_that_leaves_a_task_untrained_is_never_picked():
    assert picked([0, 3, 2, 3, 3, 1]) == (0, 0.3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        picked([0, np.inf, np.nan, np.inf, np.nan, 1])


def test_totals_that_are_not_finite_neither_win_nor_tie():
    assert picked([np.nan] * 6, [9, np.nan, -np.inf, 3, np.inf, 9]) == (1, 0.5)
    assert picked(FLAT, [np.nan] * 6, [9, np.inf, 4, 3, 2, 9]) == (0, 0.7)
    table = grid([np.nan] * 6, FLAT)
    assert best_weight(table, 0) is None and table.at[best_weight(table, 1), "head_weight"] == 0.5
    assert best_weight(table, 7) is None
    with pytest.raises(ValueError, match="finite"):
        Search.select(grid([np.nan] * 6))


def test_negative_totals_tie_as_positive_ones():
    assert picked([-5 * (1 + 1e-13), -5, -5, -5, -5, -5], [9, 4, 3, 2, 1, 9]) == (0, 0.7)


def test_rows_in_any_order_and_under_any_label():
    table = grid(FLAT, [9, 4, 3, 2, 1, 9])
    shuffled = table.sample(frac=1, random_state=0).set_index(pd.Index(np.arange(100, 100 + len(table))))
    assert Search.select(shuffled) == Search.select(table) == Choice(0, 0.7, 0.2)


def test_a_proxy_that_shares_nothing_is_trained_at_the_weight_of_the_first_depth():
    head, tail, mismatch = statistics(0)
    far = {name: 100 * tensor for name, tensor in mismatch.items()}
    search = Proxy(head, tail, far, DEPTH_OF, N)
    cells = search.grid(form="damped", damping=0.01)
    assert cells.loc[cells["shared_depth"] == 0, "total"].nunique() == 1
    choice = search.select(cells)
    one = cells[(cells["shared_depth"] == 1) & cells["head_weight"].between(0.05, 0.95)]
    assert choice.shared_depth == 0 and choice.head_weight == one.loc[one["total"].idxmin(), "head_weight"]
