"""What the explorer shows, read from a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..config.paths import PROJECT
from ..longtail import TASKS
from ..models.vit import costs_by_depth
from ..stages.pipeline import require
from ..stages.proxy_inputs import load_summary, measured_bias
from ..stages.run import Run
from ..stages.selection import proposed, selection
from .state import Landscape


def load_landscape(run: Run) -> Landscape:
    """Everything the explorer shows."""
    (head, tail, single) = (
        costs_by_depth(run.config.model, outputs)
        for outputs in (*(run.likelihoods[task].n_outputs for task in TASKS), len(run.class_names))
    )
    costs = pd.DataFrame(
        [
            # a shared depth counts once; what each network has for itself, in both
            {"shared_depth": depth}
            | {what: sum(head[i]) + sum(tail[i][depth:]) for i, what in enumerate(("parameters", "flops"))}
            for depth in range(run.n_depths + 1)
        ]
    )
    return Landscape(
        summary=load_summary(run),
        measured_bias=measured_bias(run),
        by_depth=require(run, "proxy").table("by_depth"),
        selected=selection(run),
        proposed=proposed(run),
        costs=costs,
        single=(sum(single[0]), sum(single[1])),
        params_file=_from_here(run.folder / "params.yaml"),
    )


def _from_here(file: Path) -> str:
    """As one would name it in the project's folder."""
    return str(file.relative_to(PROJECT)) if file.is_relative_to(PROJECT) else str(file)
