"""Where does the processor wait for the GPU? Synchronising calls of a training step, as torch counts them, by line."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import warnings
from pathlib import Path

import torch
import train
from steps import trainings

from osdtw_lib.config.paths import PROJECT
from osdtw_lib.stages.run import Run
from osdtw_lib.training.loop import fit
from osdtw_lib.training.phase import Phase

from .pictures import opened
from .rows import Step

FIRST, PARTS = 2, 20  # steps before counting begins, parts counted
SAYS = "called a synchronizing CUDA operation"  # torch's warning
LINES = 12  # of the most frequent


def waits(step: Step) -> None:
    """The bar: none."""
    size = [] if step.quick else ["recipe.batch_size=256", "recipe.micro_batch=128"]
    for where, cache in (("files", "false"), ("cache", "true")):
        for stage in ("stage1", "start"):
            with step.attempt(f"{stage} from {where}"):
                run = opened(step, f"data.cache={cache}", *size)
                training = trainings(run.config, len(run.class_names), run.device)[stage]
                found = counted(step, run, training.prepared().to(run.device), training.phase)
                note = "" if step.on_gpu else "nothing to count on a CPU"
                step.add(f"{stage} from {where}, {PARTS} parts: synchronisations", found.total(), "calls", most=0, note=note)
                for line, count in found.most_common(LINES):
                    step.add(f"{stage} from {where}: {line}", count, "calls")


def counted(step: Step, run: Run, network: torch.nn.Module, phase: Phase) -> collections.Counter:
    """Synchronising calls by line, from step FIRST on, over PARTS parts."""
    recipe = run.config.recipe.model_copy(update=phase.recipe)
    last = FIRST + PARTS // (recipe.batch_size // recipe.micro_batch)

    def switch(number: int) -> None:
        if step.on_gpu and number in (FIRST, last):
            torch.cuda.set_sync_debug_mode("warn" if number == FIRST else "default")
        reached.append(number)

    reached: list[int] = []
    batches = train.Watched(run.batches(run.train, recipe=recipe), switch)
    length = phase.length.model_copy(update={"epochs": -(-last // len(batches)), "warmup_epochs": 0.0})
    phase = dataclasses.replace(phase, length=length)
    with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        try:
            fit(network, phase, batches, recipe, train.Nowhere(), 0, "acceptance")
        finally:
            if step.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
    if max(reached) < last:
        raise RuntimeError(f"the data ended after {max(reached)} steps, {last} were to be watched")
    return collections.Counter(f"{short(one.filename)}:{one.lineno}" for one in said if SAYS in str(one.message))


def short(path: str) -> str:
    """From the project's folder, or from the package on."""
    file = Path(path)
    return str(file.relative_to(PROJECT)) if file.is_relative_to(PROJECT) else "/".join(file.parts[-3:])
