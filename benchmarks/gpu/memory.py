"""In what memory: the peak of a training step of Stages 0 to 3 in parts of 128, against the plan, and within 23 GB."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import torch
import train
from common import held_at_most
from steps import trainings

from osdtw_lib.backend.torch_compile import compile_networks
from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Config, Training
from osdtw_lib.planning import steps as plan
from osdtw_lib.training.loop import fit

from .pictures import SMALL
from .rows import Step

PART, CARD = 128, 23e9  # bytes: of a 24 GB card what is left to torch
NEAR = (0.85, 1.15)  # bar: the peak by the plan's sum


def memory(step: Step) -> None:
    classes, size = (8, 8) if step.quick else (1000, PART)
    changes = ["model.init=masked_autoencoding", f"recipe.batch_size={size}", "baselines=[]", *(SMALL if step.quick else ())]
    config = load_config(PROJECT / "params" / "imagenet_lt.yaml", changes)
    planned = {one.name: plan.memory_of(one, config, size, None)["sum, computed"] for one in plan.steps_of(config, classes)}
    for name, training in trainings(config, classes, step.device).items():
        step.add(f"{name}, parts of {size}: the plan's sum", planned[name], "GB")
        for compiled in (False,) if step.quick else (False, True):
            what = f"{name}, parts of {size}, {'compiled' if compiled else 'eager'}"
            with step.attempt(what):
                peak = peak_of(step, training, config, size, compiled)
                step.add(f"{what}: peak", peak, "GB")
                bar = {"least": NEAR[0], "most": NEAR[1]} if not compiled else {}  # what autograd keeps is counted eagerly
                step.add(f"{what}: peak by the plan's sum", peak / planned[name], "times", on="", **bar)
            with step.attempt(f"{what}, within {CARD / 1e9:.0f} GB"), limited(step):
                found, least = fits(step, training, config, size, compiled), 1 if compiled else None  # as the file says
                step.add(f"{what}: fits in {CARD / 1e9:.0f} GB", found, "1 is yes", least=least, on="")
        torch.compiler.reset()


def peak_of(step: Step, training: plan.Step, config: Config, size: int, compiled: bool) -> float:
    """GB, weights and all, of three steps by `fit`."""
    return held_at_most(lambda: three_steps(step, training, config, size, compiled), step.device) / 1e9


def three_steps(step: Step, training: plan.Step, config: Config, size: int, compiled: bool) -> None:
    network = training.prepared().to(step.device)
    if compiled:
        compile_networks(network)
    images, labels = plan.synthetic(network, size, step.device)
    phase = dataclasses.replace(training.phase, length=Training(epochs=1))
    with contextlib.redirect_stdout(io.StringIO()):
        batches = train.InMemory(images, labels, 1, 2)
        fit(network, phase, batches, config.recipe.model_copy(update=phase.recipe), train.Nowhere(), 0, "acceptance")


@contextlib.contextmanager
def limited(step: Step):
    """A smaller card."""
    if not step.on_gpu:
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, CARD / torch.cuda.get_device_properties(0).total_memory))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def fits(step: Step, training: plan.Step, config: Config, size: int, compiled: bool) -> int:
    try:
        three_steps(step, training, config, size, compiled)
    except torch.OutOfMemoryError:
        return 0
    return 1
