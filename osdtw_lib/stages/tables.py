"""Notebook 06: accuracy by group of every row, confusion matrix, run time a stage."""

from __future__ import annotations

import pandas as pd

from ..artifacts.artifact import Writer
from ..evaluation.metrics import accuracy_by_group, confusion
from ..evaluation.scores import predict
from . import CONTENTS
from .networks import rows, titles_of
from .run import Run
from .scores import scores_of
from .selection import chosen, selection


def parameters(run: Run) -> dict:
    return {"methods": list(rows(run)), "chosen_by": chosen(run)["chosen_by"]}


def make(run: Run, write: Writer) -> None:
    selected, found = selection(run), []
    for name in rows(run, selected["shared_depth"]):
        predicted = predict(scores_of(run, name))
        found.append({"method": name} | accuracy_by_group(predicted, run.test.labels, run.groups) | {"seed": run.config.seed})
    write.table("accuracy", pd.DataFrame(found, columns=["method", "many", "medium", "few", "all", "seed"]))
    # the last row is OSDTW, refined
    counts = confusion(predicted, run.test.labels, len(run.class_names))
    write.table("confusion", pd.DataFrame(counts, columns=run.class_names))
    write.table("runtime", runtime(run))
    write.json("selection", selected)
    write.notes |= {"caption": run.caption, "start": run.artifact("start").notes()["origin"], "titles": titles_of(run)}


def runtime(run: Run) -> pd.DataFrame:
    """Seconds a stage took, as Table 3 counts them: stage, seconds."""
    rows = {
        stage.row: sum(_counted(run.artifact(one), stage.row) for one in run.artifacts_of(name))
        for name, stage in CONTENTS.items()
        if stage.row
    }
    rows["total"] = sum(rows.values())
    return pd.DataFrame({"stage": rows.keys(), "seconds": [round(s, 2) for s in rows.values()]})


def _counted(artifact, row: str) -> float:
    """The seconds of a stage, or of that part of it which it has counted as this row."""
    return artifact.notes().get(f"{row}_seconds", artifact.seconds())
