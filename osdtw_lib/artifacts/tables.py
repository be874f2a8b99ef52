"""Tables as CSV: one way to write them and one to read them, with the kind of every column known beforehand.

Nothing is guessed from the text: a class called NA, 00001, 1e5 or True stays what it is called. Names stand in the
file as they are, also one such as `=HYPERLINK(...)` that a spreadsheet would take for a formula: a program that
reads the file finds the class by its name. Import such a file as text.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

_FORM = ("form", "loss", "merge", "damping")
# Which columns of a table are text, by the table's name; every other holds numbers, an empty field being NaN.
TEXT = {
    "accuracy": ("method",),
    "calibration": ("method", "group", "measure"),
    "ceiling": ("what",),
    "cells": ("network",),
    "claims": ("claim", "paper", "here"),
    "classes": ("class", "task", "group", "taken_for"),
    "confusion": ("true", "predicted"),
    "cross": ("depth", "images"),
    "curves": ("phase",),
    "dependence": ("model",),
    "evidence": ("ridge",),
    "forms": _FORM,
    "grid": ("form",),
    "likelihoods": ("method", "likelihood"),
    "not_run": ("row", "budget", "seeds", "why"),
    "picks": ("form",),
    "predictions": ("file",),
    "posterior": ("images",),
    "ranking": _FORM,
    "rate": ("model", "regime"),
    "reliability": ("method", "when", "group"),
    "runtime": ("stage",),
    "scores": ("network",),
    "shifted_mixes": ("method", "mix"),
    "sets": ("thresholds", "group", "how"),
    "summary_epochs": ("row", "title"),
    "summary_osdtw": ("row", "title"),
    "summary_tuned": ("row", "title"),
    "temperatures": ("method", "group"),
    "theorem": ("model", "swept"),
    "tuning": ("row", "values"),
    "weights": ("tensor", "shape", "in_the_start", "shape_there", "what"),
    "who_wins_epochs": ("row", "other", "verdict"),
    "who_wins_osdtw": ("row", "other", "verdict"),
    "who_wins_tuned": ("row", "other", "verdict"),
}
TRUTH = {"claims": ("holds",), "temperatures": ("used",), "tuning": ("chosen",)} | {
    f"summary_{b}": ("ours",) for b in ("epochs", "osdtw", "tuned")
}  # True, False, or an empty field


def table_text(name: str, table: pd.DataFrame) -> str:
    """The CSV of the table called `name`. Raises ValueError where a column is not of the kind that table's has."""
    text, truth = TEXT.get(name, ()), TRUTH.get(name, ())
    for column, values in zip(table.columns, (table.iloc[:, i] for i in range(table.shape[1]))):
        if column in text and values.isna().any():
            raise ValueError(f"table '{name}': a text is missing in column '{column}'; it would be read as an empty one")
        kind_known = column in (*text, *truth) or not len(table)  # of no row, nothing is wrong
        if not kind_known and (values.dtype == bool or not pd.api.types.is_numeric_dtype(values.dtype)):
            raise ValueError(f"table '{name}': column '{column}' is no number; say in tables.py what it is")
    made = table.to_csv(index=False)
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC) if "\r" in made else made  # a bare one would end the row


def read_table(path: Path) -> pd.DataFrame:
    """The table NAME.csv as table_text wrote it: the same names, texts and numbers. Raises ValueError where it is another."""
    name = path.stem
    with path.open(encoding="utf-8", newline="") as file:
        heads = next(csv.reader(file))
        text = [i for i, head in enumerate(heads) if head in TEXT.get(name, ())]
        truth = [i for i, head in enumerate(heads) if head in TRUTH.get(name, ())]
        rest = io.StringIO(file.read(), newline="")
    places = range(len(heads))
    table = pd.read_csv(
        rest,
        header=None,
        names=places,
        index_col=False,
        keep_default_na=False,
        dtype=dict.fromkeys(text, str) | dict.fromkeys(truth, "boolean"),
        na_values={i: [""] for i in places if i not in text},
    )
    numbers = [i for i in places if i not in text and len(table)]  # of no row, nothing is wrong
    wrong = [heads[i] for i in numbers if not pd.api.types.is_numeric_dtype(table[i].dtype)]
    if wrong:
        raise ValueError(f"{path}: column '{wrong[0]}' is not all numbers")
    table.columns = heads
    return table
