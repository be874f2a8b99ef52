"""What to expect on the way: losses and accuracies of a published training on the paper's data sets, epoch by epoch.

All from the training logs of LiVT, whose setup the paper keeps (Xu et al., CVPR 2023; github.com/XuZhengzhuo/LiVT, exp/, commit
cc76d1a). None was measured here. A loss is the mean over an epoch's augmented images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from ..config.schema import Config

ERROR, LOSS, ACCURACY = "error", "loss", "accuracy (%)"
COLUMNS = ["training", "epoch", "of", "quantity", "theirs", "not as here"]


class Log(NamedTuple):
    """training: "start" (Stage 0) or a method; epochs in all; values: {quantity: {epoch: value}}; otherwise: what they did
    in another way."""

    protocol: str
    size: int
    training: str
    epochs: int
    values: dict[str, dict[int, float]]
    otherwise: str


LOGS = (
    Log(
        "imagenet_lt",
        224,
        "start",
        800,
        {ERROR: {1: 1.222, 10: 0.618, 40: 0.490, 100: 0.455, 200: 0.442, 400: 0.431, 500: 0.427, 800: 0.419}},
        "batch 4096",
    ),
    Log(
        "imagenet_lt",
        224,
        "balanced_bce",
        100,
        {
            LOSS: {1: 6.201, 2: 5.450, 5: 4.852, 10: 4.448, 20: 4.071, 50: 3.613, 100: 3.296},
            ACCURACY: {1: 5.99, 2: 16.64, 5: 33.01, 10: 44.13, 20: 51.46, 50: 58.74, 100: 60.79},
        },
        "from 800 epochs of MAE on ImageNet-LT, batch 2048, 5 epochs of warm-up",
    ),
    Log(
        "imagenet_lt",
        384,
        "balanced_bce",
        100,
        {
            LOSS: {1: 6.266, 2: 5.506, 5: 4.838, 10: 4.366, 20: 3.949, 50: 3.367, 100: 3.010},
            ACCURACY: {1: 5.63, 2: 17.18, 5: 33.20, 10: 45.93, 20: 54.52, 50: 61.18, 100: 63.51},
        },
        "from MAE on ImageNet-LT",
    ),
    Log(  # its loss is scaled in another way
        "inaturalist2018",
        224,
        "balanced_bce",
        100,
        {ACCURACY: {1: 7.25, 2: 19.88, 5: 39.59, 10: 54.70, 20: 63.32, 30: 67.64, 100: 76.08}},
        "from MAE on iNaturalist at 128 pixels",
    ),
)


def milestones(config: Config) -> pd.DataFrame:
    """training, epoch, of (epochs in all), quantity, theirs, not as here; empty where nothing is known of such a run.

    Stage 0 only where this run makes its start from patches normalised as theirs.
    """
    protocol, rows = config.data.protocol, []
    made = config.model.init == "masked_autoencoding" and config.stage0.normalize_patches
    trained = {"start": made} | dict.fromkeys(config.baselines, True)
    for log in LOGS:
        if (log.protocol, log.size) == (protocol, config.model.image_size) and trained.get(log.training):
            for quantity, values in log.values.items():
                rows += [(log.training, epoch, log.epochs, quantity, value, log.otherwise) for epoch, value in values.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def beside(known: pd.DataFrame, curves: Mapping[str, pd.DataFrame], accuracies: Mapping[str, float]) -> pd.DataFrame:
    """`milestones` with what came out here: here, a training's loss after as many epochs, its accuracy after the last.

    curves: {training: its history}, whose one loss counts; accuracies: {method: percent}. NaN where this run has no such epoch.
    """

    def found(row) -> float:
        curve = curves.get(row.training)
        if curve is None:
            return float("nan")
        if row.quantity == ACCURACY:
            return accuracies.get(row.training, float("nan")) if row.epoch == curve["epoch"].max() else float("nan")
        (loss,) = curve.columns.difference(["epoch", "learning_rate", "phase"])
        at = curve.loc[curve["epoch"] == row.epoch, loss]
        return float(at.iloc[0]) if len(at) else float("nan")

    here = [found(row) for row in known.itertuples()]
    return known.assign(here=pd.Series(here, dtype=float))[[*COLUMNS[:5], "here", COLUMNS[5]]]
