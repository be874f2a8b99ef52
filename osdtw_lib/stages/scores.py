"""The scores of a row of the accuracy table over the test images, or others."""

from __future__ import annotations

import numpy as np

from ..evaluation.scores import scores_over
from .networks import rows
from .run import Run
from .selection import chosen


def scores_of(run: Run, name: str, images=None) -> np.ndarray:
    """(N, K) of the test images in their order, float32, in class order. name: a row, as `rows` names them.

    images: others instead, for instance run.calibration.
    Raises UserError where that row is not trained.
    """
    row = rows(run, chosen(run)["shared_depth"])[name]
    batches = run.batches(run.test if images is None else images)
    return scores_over(row.network(run.read), row.scores, batches, run.config.recipe.precision)
