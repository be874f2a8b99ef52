"""The accuracy table as a reader sees it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

HEADS = {"class_mean": "class mean", "worst_class": "worst class", "harmonic_groups": "harmonic mean of groups"}


def shown(accuracy: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """The accuracy table for a reader: one decimal, "-" for an empty group; titles: {method: what a reader calls it}."""
    table = accuracy.drop(columns="seed").assign(method=[titles.get(name, name) for name in accuracy["method"]])
    for column in table.columns[1:]:
        table[column] = ["-" if np.isnan(value) else f"{value:.1f}" for value in accuracy[column]]
    return table.rename(columns=HEADS)


def how_to_run_missing(accuracy: pd.DataFrame, known: Iterable[str]) -> str:
    """One line that says which of the known methods have no row and how to give them one; empty where none is missing."""
    missing = [name for name in known if name not in set(accuracy["method"])]
    how = "name them in baselines of the parameter file, then ./run_all.sh --from 06 with it, or all over seeds: --verdict"
    return f"not run for this table: {', '.join(missing)}; to add them {how}" if missing else ""
