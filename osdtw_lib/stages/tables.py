"""Notebook 06: accuracy by group of every row, every class and confusion of OSDTW's, run time a stage."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..artifacts.artifact import Writer
from ..data.image_files import ImageFiles
from ..data.source import LabelledImages
from ..evaluation import per_class
from ..evaluation.calibration import probabilities
from ..evaluation.metrics import accuracy_by_group
from ..evaluation.scores import predict
from ..models.flops import passes
from . import CONTENTS
from .networks import rows, titles_of
from .run import Run
from .scores import of_every_row
from .selection import chosen, selection


COLUMNS = ["method", "many", "medium", "few", "all", "seed", "class_mean", "worst_class", "harmonic_groups"]


def parameters(run: Run) -> dict:
    named = {"predictions": "with their files"} if isinstance(run.test, ImageFiles) else {}
    return {"methods": list(rows(run)), "chosen_by": chosen(run)["chosen_by"], "classes": "each"} | named


def make(run: Run, write: Writer) -> None:
    selected, found, labels = selection(run), [], run.test.labels
    for name, _, parts in of_every_row(run):
        scores = parts["test"]
        predicted = predict(scores)
        line = {"method": name} | accuracy_by_group(predicted, labels, run.groups) | {"seed": run.config.seed}
        found.append(line | per_class.further_accuracies(predicted, labels, run.groups))
    write.table("accuracy", pd.DataFrame(found, columns=COLUMNS))
    # the last row is OSDTW, refined
    write.table("classes", per_class.classes(predicted, labels, run.class_names, run.class_counts))
    write.table("confusion", per_class.confusions(predicted, labels, run.class_names))
    write.table("predictions", _predictions(scores, run.test))
    write.table("runtime", runtime(run))
    write.json("selection", selected)
    write.notes |= {"caption": run.caption, "start": run.artifact("start").notes()["origin"], "titles": titles_of(run)}


def _predictions(scores: np.ndarray, images: LabelledImages | ImageFiles) -> pd.DataFrame:
    """A line a test image, in their order: image, label and predicted (class numbers), probability of the predicted class,
    margin, how far it is above the next one's; of image files the path as the data set gives it."""
    first, second = -np.partition(-probabilities(scores), 1, axis=1)[:, :2].T
    columns = {"image": range(len(images)), "label": images.labels, "predicted": predict(scores)}
    files = {"file": images.names} if isinstance(images, ImageFiles) else {}
    return pd.DataFrame(columns | {"probability": first, "margin": first - second} | files)


def runtime(run: Run) -> pd.DataFrame:
    """Where time and compute go: stage, seconds (as Table 3 counts them), passes (of one plain network over the training images;
    none where an earlier version has not counted them)."""
    trains_nothing = {"proxy"} if run.config.model.init == "masked_autoencoding" else {"proxy", "start"}
    lines = []
    for name, stage in CONTENTS.items():
        if stage.row:
            artifacts = [run.artifact(one) for one in run.artifacts_of(name)]
            seconds = sum(_counted(artifact, stage.row) for artifact in artifacts)
            unknown = 0.0 if name in trains_nothing else np.nan
            flops = sum(artifact.notes().get("flops", unknown) for artifact in artifacts)
            lines.append((stage.row, seconds, passes(flops, run.config.model, len(run.class_names), len(run.train))))
    table = pd.DataFrame(lines, columns=["stage", "seconds", "passes"])
    table.loc[len(table)] = ["total", *table[["seconds", "passes"]].sum(skipna=False)]
    return table.round(2)


def _counted(artifact, row: str) -> float:
    """The seconds of a stage, or of that part of it which it has counted as this row."""
    return artifact.notes().get(f"{row}_seconds", artifact.seconds())
