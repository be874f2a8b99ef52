"""A training step of Stages 0 to 3 against a plain PyTorch loop of the same networks and losses.

    python benchmarks/steps.py [--quick] [--out FOLDER]

Synthetic images in memory, so nothing waits for data; everything in one run, in interleaved rounds. A ratio is the
median over the rounds of images/s by those of the plain loop in the same round: above 1 is faster. Columns:
benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import contextlib
import copy
import dataclasses
import io
import math
from collections.abc import Callable
from statistics import median

import pandas as pd
import torch
from common import arguments, machine, show, write
from torch import nn
from train import InMemory, Nowhere, in_turns

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.config.schema import Config, Training
from osdtw_lib.planning.steps import Step, steps_of, synthetic
from osdtw_lib.training.loop import fit
from osdtw_lib.training.phase import means

COLUMNS = ["stage", "device", "loop", "ratio", "images_per_second", "note"]
STAGES = ("start", "stage1", "stage2", "stage3")
PLAIN, OURS = "plain loop", "training.fit"
SMALL = ("model.depth=2", "model.width=16", "model.heads=2", "stage0.decoder_width=16", "stage0.decoder_depth=1")
TINY = (*SMALL, "stage0.decoder_heads=2", "recipe.batch_size=4")


def trainings(config: Config, n_classes: int, device: torch.device | str) -> dict[str, Step]:
    """Stages 0 to 3 as they train."""
    return {one.name: one for one in steps_of(config, n_classes, device) if one.name in STAGES}


def ours(training: Step, network: nn.Module, batches: InMemory, config: Config) -> Callable[[], None]:
    phase = dataclasses.replace(training.phase, length=Training(epochs=1))
    recipe = config.recipe.model_copy(update=phase.recipe)

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            fit(network, phase, batches, recipe, Nowhere(), 0, "benchmark")

    return run


def plain(training: Step, network: nn.Module, batches: InMemory, config: Config) -> Callable[[], None]:
    """The same losses; an optimizer that goes from tensor to tensor, no layer decay, a look at the loss every step."""
    recipe = config.recipe.model_copy(update=training.phase.recipe)
    trained = [p for p in network.parameters() if p.requires_grad]
    options = {"lr": recipe.learning_rate, "betas": recipe.betas, "weight_decay": recipe.weight_decay}

    def run() -> None:
        optimizer = torch.optim.AdamW(trained, foreach=False, fused=False, **options)
        network.train()
        for parts in batches.epoch(0):
            for part in parts:
                with torch.autocast(part.images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    value = sum(means(training.phase, network, part).values())
                if not math.isfinite(value.item()):
                    raise FloatingPointError("the loss is not finite")
                optimizer.zero_grad()
                value.backward()
                optimizer.step()

    return run


def measure(config: Config, n_classes: int, device: str, size: int, steps: int, rounds: int) -> pd.DataFrame:
    rows = []
    for name, training in trainings(config, n_classes, device).items():
        torch.manual_seed(0)
        network = training.prepared().to(device)
        images, labels = synthetic(network, size, device)
        batches = InMemory(images, labels, warm_up=max(1, steps // 5), steps=steps)
        loops = {PLAIN: plain, OURS: ours}
        runs = {loop: made(training, copy.deepcopy(network), batches, config) for loop, made in loops.items()}
        for run in runs.values():
            run()  # what is loaded or chosen at its first use
        rates = in_turns(runs, batches, rounds)
        for loop, found in rates.items():
            ratios = [rate / base for rate, base in zip(found, rates[PLAIN])]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds"
            rows.append((name, device, loop, median(ratios), median(found), spread))
    return pd.DataFrame(rows, columns=COLUMNS)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    print(machine(), flush=True)
    on_gpu = torch.cuda.is_available() and not options.quick
    file, n_classes, size = ("imagenet_lt", 1000, 128) if on_gpu else ("mnist_lt", 10, 4 if options.quick else 64)
    changes = ["model.init=masked_autoencoding", *(TINY if options.quick else ())]
    config = load_config(PROJECT / "params" / f"{file}.yaml", changes)
    table = measure(config, n_classes, "cuda" if on_gpu else "cpu", size, *((2, 1) if options.quick else (20, 7)))
    show(f"Steps of Stages 0 to 3, {file}, {size} images a step", table)
    if not torch.cuda.is_available():
        print("not measured on a GPU; on one: python benchmarks/steps.py", flush=True)
    write(table, options.out, "steps.csv")


if __name__ == "__main__":
    main()
