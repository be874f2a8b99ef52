"""How well a proxy ranks what was measured: rank correlation, regret and rank of the pick; and the paper's claims.

A grid has one row a cell: shared_depth, head_weight and a value. At C = 0 nothing is shared and the weight does not
matter, so its cells are one and count once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

CELL = ["shared_depth", "head_weight"]


def rank(measured: pd.DataFrame, totals: pd.DataFrame, value: str = "all", smaller_is_better: bool = False) -> dict:
    """spearman, regret, rank_of_pick of a proxy on the cells that both tables have.

    measured: CELL and `value`; totals: CELL and total, smaller is better. spearman is of the measured value with the
    proxy's goodness (1: the same order, ties share their ranks; NaN where either is constant). regret: the best cell's
    value minus the picked cell's, never negative. rank_of_pick: 1 for the best cell. A total that is not finite ranks last.
    Raises ValueError where no cell has a finite total.
    """
    both = one_cell_at_zero(measured)[[*CELL, value]].merge(one_cell_at_zero(totals)[[*CELL, "total"]], on=CELL)
    goodness = both[value].to_numpy(float) * (-1 if smaller_is_better else 1)
    total = both["total"].to_numpy(float)
    total = np.where(np.isnan(total), np.inf, total)
    if not np.isfinite(total).any():
        raise ValueError("no cell that was measured has a finite total")
    pick = int(total.argmin())
    regret, better = float(goodness.max() - goodness[pick]), int((goodness > goodness[pick]).sum())
    return {"spearman": spearman(goodness, -total), "regret": regret, "rank_of_pick": better + 1, "cells": len(both)}


def spearman(a, b) -> float:
    """Spearman's rank correlation of two sequences; ties share their mean rank. NaN where one is constant."""
    ranks = [pd.Series(np.asarray(v, float)).rank().to_numpy() for v in (a, b)]
    if any(np.ptp(r) == 0 for r in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def one_cell_at_zero(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the first of the cells at C = 0 alone, its weight set to 0; weights rounded, to be joined on."""
    table = table.assign(head_weight=table["head_weight"].astype(float).round(6))
    nothing = table["shared_depth"] == 0
    table.loc[nothing, "head_weight"] = 0.0
    return pd.concat([table[nothing].iloc[:1], table[~nothing]], ignore_index=True)
