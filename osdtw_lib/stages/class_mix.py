"""Notebook 10: accuracy under other class mixes than the test set's, uncorrected and corrected, of every row."""

from __future__ import annotations

import pandas as pd

from ..artifacts.artifact import Writer
from ..evaluation.class_mix import accuracies_under, shifted_mixes
from .networks import rows, share_ratios
from .run import Run
from .scores import of_every_row


def parameters(run: Run) -> dict:
    return {"methods": list(rows(run)), "largest_share_to_smallest": share_ratios(run)}


def make(run: Run, write: Writer) -> None:
    mixes, found = shifted_mixes(run.class_counts), []
    for name, row, scores in of_every_row(run):
        for mix, shares in mixes.items():
            found.append({"method": name, "mix": mix} | accuracies_under(scores["test"], run.test.labels, row.shares, shares))
    write.table("shifted_mixes", pd.DataFrame(found, columns=["method", "mix", "none", "true", "estimated"]))
