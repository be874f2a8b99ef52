"""Notebook 03: the exact diagonal empirical Fisher of both tasks over the whole training set (Algorithm 1, line 4)."""

from __future__ import annotations

import time

from ..artifacts.artifact import Writer
from ..fisher.diagonal import diagonal_fisher
from ..models.flops import training_flops
from .networks import stage1_networks
from .pipeline import count_flops
from .run import Run

FITS_BY = "fisher.batch_size"


def parameters(run: Run) -> dict:
    return {"precision": run.config.recipe.precision}


def make(run: Run, write: Writer) -> None:
    settings = run.config.fisher
    batches = run.batches(run.train, settings.batch_size)
    for task, network in stage1_networks(run).items():
        started = time.monotonic()
        diagonal = diagonal_fisher(
            network,
            batches,
            run.likelihoods[task],
            buffer_megabytes=settings.buffer_megabytes,
            precision=run.config.recipe.precision,
            checkpoint=write.checkpoint(task, of_each=True),
        )
        seconds = time.monotonic() - started
        print(f"fisher: {task}, {len(run.train)} images, {len(run.train) / seconds:.0f} images/s", flush=True)
        write.tensors(task, diagonal)
        count_flops(write, len(run.train) * training_flops(run.config.model, run.likelihoods[task].n_outputs))
