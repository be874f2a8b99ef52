"""Notebook 10: a page for every ten classes, the rarest first, with their training images, hits, misses and doubts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..artifacts.artifact import Writer
from ..artifacts.files import remove
from ..data.image_files import ImageFiles
from ..legible import legible
from ..stages.run import Run
from . import pages

SHOWN = 6  # images of a kind
CLASSES = 10  # on a page


def parameters(run: Run) -> dict:
    named = {"pictures": "with their files"} if isinstance(run.test, ImageFiles) else {}
    return {"shown": SHOWN, "classes": CLASSES} | named


def make(run: Run, write: Writer) -> None:
    """Only the images that are shown are read, a page at a time."""
    tables = run.artifact("tables")
    classes, predictions = tables.table("classes"), tables.table("predictions")
    classes["group"] = run.artifact("split").table("classes")["group"]
    classes["number"] = range(len(classes))
    classes = classes.sort_values("training_images", kind="stable", ignore_index=True)
    classes["page"] = classes.index // CLASSES + 1
    for number, own in classes.groupby("page"):
        write.text(pages.file_of(number), pages.page(number, classes["page"].max(), _sections(run, own, predictions)))
    write.text("index.html", pages.overview(classes))
    for path in set(write.artifact.folder.glob("page_*.html")) - set(write.files.values()):
        remove(path)  # of a run of more classes


def _sections(run: Run, classes: pd.DataFrame, predictions: pd.DataFrame) -> list[dict]:
    """A dictionary a class: `about`, its line of the table; `rows`, [(heading, [(picture, what is under it, its file)])]."""
    chosen = [_chosen(run, line, predictions) for line in classes.to_dict("records")]
    training, tested = _read(run, run.train, [c["training"] for c in chosen]), _read(run, run.test, [c["test"] for c in chosen])
    sections = []
    for line, own in zip(classes.to_dict("records"), chosen):
        shown = [("Training images", [(training[i], "", _file(run.train, i)) for i in own["training"]])]
        for heading, places in own["kinds"].items():
            shown.append((heading, [(tested[i], _said(run, predictions.iloc[i]), _file(run.test, i)) for i in places]))
        sections.append({"about": line, "rows": [(heading, pictures) for heading, pictures in shown if pictures]})
    return sections


def _chosen(run: Run, line: dict, predictions: pd.DataFrame) -> dict:
    """Which images of a class are shown: places in the training and in the test part."""
    training = np.flatnonzero(run.train.labels == line["number"])[:SHOWN]
    own = predictions[predictions["label"] == line["number"]]
    right, wrong = own[own["predicted"] == own["label"]], own[own["predicted"] != own["label"]]
    kinds = {
        "Named right, the surest first": right.sort_values("margin", ascending=False, kind="stable"),
        "Named wrong, the surest first": wrong.sort_values("margin", ascending=False, kind="stable"),
        "Least sure": own.sort_values("margin", kind="stable"),
    }
    places = {heading: table.index[:SHOWN].tolist() for heading, table in kinds.items()}
    return {"training": training.tolist(), "test": sorted({i for found in places.values() for i in found}), "kinds": places}


def _read(run: Run, images, wanted: list[list[int]]) -> dict[int, str]:
    """{place: its picture as text for a page}, as evaluation sees it."""
    places = sorted({i for own in wanted for i in own})
    if not places:
        return {}
    pixels = run.batches(images, only=np.array(places)).pictures()
    return {place: pages.picture(one) for place, one in zip(places, pixels)}


def _file(images, place: int) -> str:
    return legible(images.names[place]) if isinstance(images, ImageFiles) else ""


def _said(run: Run, line: pd.Series) -> str:
    sure = f"{100 * line['probability']:.0f} %"
    return sure if line["predicted"] == line["label"] else f"{run.class_names[int(line['predicted'])]}, {sure}"
