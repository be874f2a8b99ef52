"""The accuracy table as a reader sees it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..longtail import GROUPS

METHOD_NAMES = {
    "ce": "cross-entropy",
    "logit_adjusted_ce": "logit-adjusted cross-entropy",
    "balanced_bce": "balanced BCE (LiVT's loss)",
    "stage1": "Stage 1, two networks",
    "stage2": "Stage 2, joint network",
    "osdtw_assembled": "OSDTW assembled",
    "osdtw": "OSDTW refined",
}


def shown(accuracy: pd.DataFrame) -> pd.DataFrame:
    """The accuracy table for a reader: one decimal; "not run" for a method without results, "-" for an empty group."""
    table = accuracy.drop(columns="seed").assign(method=accuracy["method"].map(METHOD_NAMES))
    for group in (*GROUPS, "all"):
        cells = zip(accuracy[group], accuracy["all"].isna())
        table[group] = ["not run" if not_run else "-" if np.isnan(value) else f"{value:.1f}" for value, not_run in cells]
    return table


def how_to_run_missing(accuracy: pd.DataFrame) -> str:
    """One line that says how to fill the rows that were not run; empty where none is missing."""
    missing = accuracy.loc[accuracy["all"].isna(), "method"].tolist()
    return f"not run: {', '.join(missing)}; add them to `baselines` and ./run_all.sh --from 06" if missing else ""
