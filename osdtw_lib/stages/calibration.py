"""Notebook 10: whether the probabilities of every row are what they say, on the test set; and, where images were set aside for
it (`calibration.images`), temperatures that correct them and prediction sets.

Each row's probabilities are judged under the class mix of the test set, to which its scores are moved from the mix they stand
for: plain cross-entropy's would otherwise seem badly calibrated for being right about the training set's. Temperatures are fitted
under the mix a row stands for.

Temperatures and thresholds are fitted and chosen on the calibration part alone; correction.json holds them for the predictor.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..artifacts.artifact import Writer
from ..evaluation import calibration, conformal
from ..evaluation.class_mix import moved
from .networks import rows, share_ratios
from .run import Run
from .scores import of_every_row

COVERAGES = (0.8, 0.9, 0.95)
MISSING = "no calibration part; set calibration.images, for instance 0.2, for temperatures and prediction sets"


def parameters(run: Run) -> dict:
    return {"methods": list(rows(run)), "coverages": list(COVERAGES), "largest_share_to_smallest": share_ratios(run)}


def make(run: Run, write: Writer) -> None:
    found: dict[str, list[pd.DataFrame]] = {"calibration": [], "reliability": [], "temperatures": []}
    correction: dict = {"groups": {name: members.tolist() for name, members in run.groups.items()}, "methods": {}}
    labels, there = run.test.labels, len(run.calibration) > 0
    mix = np.bincount(labels, minlength=len(run.class_names)) / len(labels)
    for name, row, parts in of_every_row(run):
        raw = parts["test"]
        before, after = moved(raw, row.shares, mix), None
        if there:
            aside = parts["calibration"]
            judged = calibration.judged_temperatures(
                aside, run.calibration.labels, run.groups, row.shares, run.seed("calibration")
            )
            used = calibration.used_temperatures(judged)
            after = moved(calibration.scaled(raw, run.groups, used), row.shares, mix)
            own = conformal.scores_by_class(calibration.probabilities(aside), run.calibration.labels)
            correction["methods"][name] = {"temperatures": used, "set_scores": own}
            found["temperatures"].append(_named(judged, method=name))
            print(f"calibration: {name}: {_said(used)}", flush=True)
        seen = {"before": before} | ({"after": after} if there else {})
        for when, scores in seen.items():
            table = calibration.reliability_by_group(scores, labels, run.groups)
            found["reliability"].append(_named(table, method=name, when=when))
        found["calibration"].append(_named(calibration.compared(before, after, labels, run.groups), method=name))
    # the last row is OSDTW, refined
    if there:
        write.table("sets", _sets(run, calibration.probabilities(raw), own))
    else:
        print(f"calibration: {MISSING}", flush=True)
    for name, tables in found.items():
        if tables:
            write.table(name, pd.concat(tables, ignore_index=True))
    write.json("correction", correction)
    write.notes |= {"caption": run.caption, "calibration_images": len(run.calibration)}


def _sets(run: Run, probabilities: np.ndarray, own: list[list[float]]) -> pd.DataFrame:
    """A row a coverage (%), kind of thresholds and group; one threshold for all stands beside as what is usual."""
    labels, found = run.test.labels, []
    for coverage in COVERAGES:
        limits, how = conformal.thresholds(own, run.groups, coverage)
        single = conformal.threshold(np.concatenate(own), coverage)
        kinds = {"by class": (limits, how), "one for all": (np.full(len(limits), single), ["all"] * len(limits))}
        for kind, (used, whose) in kinds.items():
            table = conformal.coverage_by_group(conformal.sets(probabilities, used), labels, run.groups, whose)
            found.append(_named(table, coverage=100 * coverage, thresholds=kind))
    return pd.concat(found, ignore_index=True)


def _named(table: pd.DataFrame, **columns) -> pd.DataFrame:
    for column in reversed(columns):
        table.insert(0, column, columns[column])
    return table


def _said(used: dict[str, float]) -> str:
    kept = ", ".join(f"{group} {value:.2f}" for group, value in used.items() if value != 1)
    return f"temperatures used: {kept}" if kept else "no temperature helps on the calibration part, so none is used"
