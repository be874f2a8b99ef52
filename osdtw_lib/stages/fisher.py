"""Notebook 03: the exact diagonal empirical Fisher of both tasks over the whole training set (Algorithm 1, line 4)."""

from __future__ import annotations

import time

from ..artifacts.artifact import Writer
from ..fisher.diagonal import diagonal_fishers
from ..models.flops import training_flops
from .networks import stage1_networks
from .pipeline import count_flops
from .run import Run

FITS_BY = "fisher.batch_size"


def parameters(run: Run) -> dict:
    return {"precision": run.config.recipe.precision}


def make(run: Run, write: Writer) -> None:
    settings, started = run.config.fisher, time.monotonic()
    diagonals = diagonal_fishers(
        stage1_networks(run),
        run.batches(run.train, settings.batch_size),
        run.likelihoods,
        buffer_megabytes=settings.buffer_megabytes,
        precision=run.config.recipe.precision,
        checkpoint=write.checkpoint(f"fisher_by_{settings.batch_size}", of_each=True),  # which counts batches
    )
    seconds = time.monotonic() - started
    print(f"fisher: both tasks, {len(run.train)} images, {len(run.train) / seconds:.0f} images/s", flush=True)
    for task, diagonal in diagonals.items():
        write.tensors(task, diagonal)
        count_flops(write, len(run.train) * training_flops(run.config.model, run.likelihoods[task].n_outputs))
