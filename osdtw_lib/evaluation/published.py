"""The numbers of the paper's tables, as data. Every one is the paper's; none was measured here."""

from __future__ import annotations

import pandas as pd

_ACCURACY = ["method", "backbone", "many", "medium", "few", "all"]

# Table 1. Top-1 accuracy (%) on ImageNet-LT.
_IMAGENET_LT = [
    ("CB", "ResNet50", 64.0, 33.8, 5.8, 41.6),
    ("LDAM", "ResNet50", 60.4, 46.9, 30.7, 49.8),
    ("Logit Adj.", "ResNet50", 61.1, 47.5, 27.6, 50.1),
    ("RIDE(4E)", "ResNet50", 68.3, 53.5, 35.9, 56.8),
    ("MiSLAS", "ResNet50", 62.9, 50.7, 34.3, 52.7),
    ("DisAlign", "ResNet50", 61.3, 52.2, 31.4, 52.9),
    ("PaCo", "ResNet50", 68.0, 56.4, 37.2, 58.2),
    ("GCL", "ResNet50", 63.0, 52.7, 37.1, 54.5),
    ("MAE", "ViT-B", 74.7, 48.2, 19.4, 54.5),
    ("DeiT", "ViT-B", 70.4, 40.9, 12.8, 48.4),
    ("DeiT-LT", "ViT-B", 66.6, 58.3, 40.0, 59.1),
    ("PaCo", "ViT-B", 70.4, 57.0, 43.5, 60.3),
    ("LiVT", "ViT-B", 75.8, 56.2, 32.1, 60.9),
    ("OSDTW", "ViT-B", 76.3, 58.3, 34.9, 62.0),
]

# Table 2. Top-1 accuracy (%) on Places-LT.
_PLACES_LT = [
    ("CB", "ResNet152", 45.7, 27.3, 8.2, 30.2),
    ("Focal", "ResNet152", 41.1, 34.8, 22.4, 34.6),
    ("DisAlign", "ResNet152", 40.4, 42.4, 30.1, 39.3),
    ("LADE", "ResNet152", 42.8, 39.0, 31.2, 38.8),
    ("RSG", "ResNet152", 41.9, 41.4, 32.0, 39.3),
    ("TADE", "ResNet152", 43.1, 42.4, 33.2, 40.9),
    ("PaCo", "ResNet152", 36.1, 47.9, 35.3, 41.2),
    ("GCL", "ResNet152", None, None, None, 40.6),
    ("MAE", "ViT-B", 48.9, 24.6, 8.7, 30.3),
    ("DeiT", "ViT-B", 51.6, 31.0, 9.4, 34.2),
    ("PaCo", "ViT-B", 51.6, 32.6, 13.2, 35.5),
    ("LiVT", "ViT-B", 48.1, 40.6, 27.5, 40.8),
    ("OSDTW", "ViT-B", 49.7, 41.8, 30.9, 42.5),
]

# What the paper leaves open about them.
PARTS = {
    1: "The paper names neither the edition of the images nor the part; the data set's own test images are ImageNet's 50,000 of "
    "validation.",
    2: "The paper does not name the part: Places-LT has 7,300 images of validation and 36,500 of test, and PaCo's authors list "
    "the former, so that row may be of those.",
}

TABLES = {
    1: ("ImageNet-LT", pd.DataFrame(_IMAGENET_LT, columns=_ACCURACY)),
    2: ("Places-LT", pd.DataFrame(_PLACES_LT, columns=_ACCURACY)),
}

# Table 3. Run time of ViT-B (seconds) on 4 NVIDIA GeForce RTX 4090.
RUNTIME = pd.DataFrame(
    [
        ("CIFAR-100-IR100", 178.51, 1.18, 160.03, 38.62, 378.34),
        ("ImageNet-LT", 7874.79, 1.22, 7157.64, 2162.29, 17195.94),
        ("Places-LT", 1193.07, 1.14, 1015.74, 316.25, 2526.20),
    ],
    columns=["data set", "Stage 1", "Search", "Stage 2", "Refinement", "Total"],
)


def of(name: str) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """(accuracy, run time) the paper gives for the data set a run is named after, as imagenet_lt; None where it gives none."""

    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    named = {plain(title): table for title, table in TABLES.values()}
    times = RUNTIME[RUNTIME["data set"].map(plain) == plain(name)]
    return named.get(plain(name)), None if times.empty else times


def accuracy(number: int):
    """The paper's Table 1 or 2, marked as the paper's: a DataFrame, or a Styler in a notebook."""
    name, table = TABLES[number]
    return _marked(table, f"The paper's Table {number}: top-1 accuracy (%) on {name}. Not measured here. {PARTS[number]}")


def runtime():
    """The paper's Table 3, marked as the paper's."""
    return _marked(RUNTIME, "The paper's Table 3: run time of ViT-B in seconds, 4 RTX 4090. Not measured here.")


def _marked(table: pd.DataFrame, caption: str):
    return table.style.set_caption(caption).format(precision=2, na_rep="-").hide(axis="index")
