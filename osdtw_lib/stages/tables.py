"""Notebook 06: accuracy by group of every row, every class and confusion of OSDTW's, run time a stage."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..artifacts.artifact import Writer
from ..evaluation import per_class
from ..evaluation.calibration import probabilities
from ..evaluation.metrics import accuracy_by_group
from ..evaluation.scores import predict
from . import CONTENTS
from .networks import rows, titles_of
from .run import Run
from .scores import scores_of
from .selection import chosen, selection


COLUMNS = ["method", "many", "medium", "few", "all", "seed", "class_mean", "worst_class", "harmonic_groups"]


def parameters(run: Run) -> dict:
    return {"methods": list(rows(run)), "chosen_by": chosen(run)["chosen_by"], "classes": "each"}


def make(run: Run, write: Writer) -> None:
    selected, found, labels = selection(run), [], run.test.labels
    for name in rows(run, selected["shared_depth"]):
        scores = scores_of(run, name)
        predicted = predict(scores)
        line = {"method": name} | accuracy_by_group(predicted, labels, run.groups) | {"seed": run.config.seed}
        found.append(line | per_class.further_accuracies(predicted, labels, run.groups))
    write.table("accuracy", pd.DataFrame(found, columns=COLUMNS))
    # the last row is OSDTW, refined
    write.table("classes", per_class.classes(predicted, labels, run.class_names, run.class_counts))
    write.table("confusion", per_class.confusions(predicted, labels, run.class_names))
    write.table("predictions", _predictions(scores, labels))
    write.table("runtime", runtime(run))
    write.json("selection", selected)
    write.notes |= {"caption": run.caption, "start": run.artifact("start").notes()["origin"], "titles": titles_of(run)}


def _predictions(scores: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """A line a test image, in their order: image, label and predicted (class numbers), probability of the predicted class,
    margin, how far it is above the next one's."""
    first, second = -np.partition(-probabilities(scores), 1, axis=1)[:, :2].T
    columns = {"image": range(len(labels)), "label": labels, "predicted": predict(scores)}
    return pd.DataFrame(columns | {"probability": first, "margin": first - second})


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
