"""How well a proxy ranks what was measured: rank correlation, regret and rank of its pick.

A grid has one row a cell: shared_depth, head_weight and a value. At C = 0 nothing is shared and the weight does not
matter, so its cells are one and count once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..proxy.grid import CELL, Search

HALVES = ["half_0", "half_1"]


def rank(measured: pd.DataFrame, totals: pd.DataFrame, value: str = "all", smaller_is_better: bool = False) -> dict:
    """How a proxy orders the cells that both tables have. measured: CELL and `value`; totals: CELL and total.

    spearman: rank correlation of the proxy's goodness with the measured one (1: the same order).
    over_weights: the same within one depth, mean over the depths: what is left when the depth is given.
    regret: the best cell's value minus the picked cell's, never negative. The best of many noisy cells is partly luck,
    so with HALVES in `measured` regret_held_out takes the best cell on one half of the test set and both values from
    the other; it can be negative. rank_of_pick: 1 for the best cell. A total that is not finite ranks last; the pick is that
    of Search.select. Raises ValueError where it finds none.
    """
    both = one_cell_at_zero(measured).merge(one_cell_at_zero(totals)[[*CELL, "total"]], on=CELL)
    goodness = both[value].to_numpy(float) * (-1 if smaller_is_better else 1)
    total = both["total"].to_numpy(float)
    total = np.where(np.isnan(total), np.inf, total)
    at_half = both["head_weight"].where(both["shared_depth"] > 0, 0.5)  # where nothing is shared both tasks are trained
    picked = Search.select(both.assign(head_weight=at_half))
    pick = int(((both["shared_depth"] == picked.shared_depth) & (at_half == picked.head_weight)).argmax())
    found = {
        "spearman": spearman(goodness, -total),
        "over_weights": _over_weights(both["shared_depth"], goodness, -total),
        "regret": float(goodness.max() - goodness[pick]),
        "rank_of_pick": int((goodness > goodness[pick]).sum()) + 1,
    }
    if set(HALVES) <= set(both.columns):
        halves = [both[half].to_numpy(float) for half in HALVES]
        gaps = [tested[chosen.argmax()] - tested[pick] for chosen, tested in (halves, halves[::-1])]
        found["regret_held_out"] = float(np.mean(gaps))
    return found


def spearman(a, b) -> float:
    """Spearman's rank correlation of two sequences; ties share their mean rank. NaN where one is constant."""
    ranks = [pd.Series(np.asarray(v, float)).rank().to_numpy() for v in (a, b)]
    if any((r == r[0]).all() for r in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def one_cell_at_zero(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the first of the cells at C = 0 alone, its weight set to 0; weights rounded, to be joined on."""
    table = table.assign(head_weight=table["head_weight"].astype(float).round(6))
    nothing = table["shared_depth"] == 0
    table.loc[nothing, "head_weight"] = 0.0
    return pd.concat([table[nothing].iloc[:1], table[~nothing]], ignore_index=True)


def _over_weights(depths: pd.Series, goodness: np.ndarray, promised: np.ndarray) -> float:
    """Mean over the depths of the rank correlation over the weights; 0 where the proxy is indifferent to them."""
    rows = [depths.to_numpy() == depth for depth in depths.unique()]
    found = [spearman(goodness[r], promised[r]) if (promised[r] != promised[r][0]).any() else 0.0 for r in rows if r.sum() > 1]
    return float(np.nanmean(found)) if found and not np.isnan(found).all() else float("nan")
