"""Notebook 07: Theorem 1 by Monte Carlo; no data set enters, only `theory.repetitions`."""

from __future__ import annotations

from ..artifacts.artifact import Writer
from ..theory import simulation as monte_carlo
from .run import Run

TABLES = ("theorem", "dependence", "rate", "ridge", "evidence")


def parameters(run: Run) -> dict:
    return {"repetitions": run.config.theory.repetitions}


def make(run: Run, write: Writer) -> None:
    for name in TABLES:
        write.table(name, getattr(monte_carlo, name)(run.config.theory.repetitions))
        print(f"simulation: {name}, {write.elapsed():.0f} s so far", flush=True)
