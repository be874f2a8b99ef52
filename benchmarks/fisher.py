"""Exact diagonal empirical Fisher against a plain forward + backward and against other ways to get it.

    python benchmarks/fisher.py [--quick] [--out FOLDER]

Everything is measured in one run, in interleaved rounds: a plain pass (forward + backward, gradients of every
parameter), then each method on the same model, batches and log-likelihood. A ratio is the median over the rounds
of a method's time by that round's plain pass. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import copy
import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

import numpy as np
import pandas as pd
import torch
from common import arguments, compiling, held_at_most, in_own_process, machine, ratio, show, write
from peers import METHODS, OURS, PLAIN, Batches, one_sample_at_a_time, ours, plain
from torch import Tensor, nn

from osdtw_lib.config import schema as cfg
from osdtw_lib.models.likelihoods import Bernoulli, task_likelihoods
from osdtw_lib.config.load import load_config
from osdtw_lib.models.vit import build_vit

COLUMNS = ["model", "device", "method", "ratio", "peak_memory_ratio", "max_relative_error", "tensors_covered", "tensors_total"]
GROWTH_COLUMNS = ["against", "value", "plain_seconds", "fisher_seconds", "fisher_ms_per_image", "ratio"]
ON_GPU = "ViT-B/16, 224 px, bf16"


@dataclass(frozen=True)
class Setup:
    """What is measured on: sizes, device and how often."""

    name: str
    model: cfg.Model
    classes: int  # the head task has half of them
    batch_size: int
    n_batches: int
    rounds: int
    device: str = "cpu"
    precision: str = "fp32"

    def likelihood(self) -> Bernoulli:
        counts = np.geomspace(400, 4, self.classes).round()
        half = self.classes // 2
        groups = {"head": np.arange(half), "tail": np.arange(half, self.classes)}
        return task_likelihoods("bernoulli", counts, groups)["head"].to(self.device)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        model = build_vit(self.model, self.likelihood().n_outputs)
        with torch.no_grad():
            for p in model.parameters():  # away from zero biases and unit scales
                p.add_(0.02 * torch.randn_like(p))
        return model.to(self.device).eval()

    def batches(self, count: int | None = None, size: int | None = None) -> Batches:
        g = torch.Generator().manual_seed(1)
        side, size = self.model.image_size or 224, size or self.batch_size
        shape = (size, self.model.channels, side, side)
        made = [
            (torch.randn(shape, generator=g), torch.randint(self.classes, (size,), generator=g))
            for _ in range(count or self.n_batches)
        ]
        return [(images.to(self.device), labels.to(self.device)) for images, labels in made]


def setups(quick: bool) -> list[Setup]:
    digits = load_config(cfg.PROJECT / "params" / "mnist_lt.yaml").model
    vit_b = cfg.Model(architecture="vit_base_patch16_224")
    if quick:
        small = digits.model_copy(update={"depth": 2, "width": 16, "heads": 2})
        smaller = vit_b.model_copy(update={"depth": 1, "width": 24, "heads": 2, "image_size": 32})
        return [Setup("digits ViT (quick)", small, 10, 4, 2, 2), Setup("ViT-B shapes (quick)", smaller, 20, 2, 2, 2)]
    two_blocks = vit_b.model_copy(update={"depth": 2})
    listed = [
        Setup("digits ViT, 12 blocks of width 64, 28 px", digits, 10, batch_size=64, n_batches=8, rounds=15),
        Setup("ViT-B/16 shapes, 2 blocks, 224 px", two_blocks, 1000, batch_size=16, n_batches=2, rounds=7),
    ]
    if torch.cuda.is_available():
        gpu = {"batch_size": 64, "n_batches": 4, "rounds": 7, "device": "cuda", "precision": "bf16"}
        listed.append(Setup(ON_GPU, vit_b, 1000, **gpu))
    return listed


def seconds(run: Callable, batches: Batches) -> float:
    gc.collect()
    on_gpu = batches[0][0].is_cuda
    if on_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(batches)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(base: Callable, runs: dict[str, Callable], batches: Batches, rounds: int) -> tuple[list, dict[str, list]]:
    """Seconds of `base` in each round, and of each of the runs by those of the same round."""
    times, ratios = [], {name: [] for name in runs}
    for _ in range(rounds):
        times.append(seconds(base, batches))
        for name, run in runs.items():
            ratios[name].append(seconds(run, batches) / times[-1])
    return times, ratios


def peak(setup: Setup, method: str) -> int:
    """Most bytes a pass over two batches holds beyond what was there before: the model and the batches."""
    run = (plain if method == PLAIN else METHODS[method][0])(setup.network(), setup.likelihood(), setup.precision)
    batches = setup.batches(2)
    run(setup.batches(1, size=1))  # what torch loads at its first use
    return held_at_most(lambda: run(batches), setup.device)


def peak_of(setup: Setup, method: str) -> int:
    return in_own_process(peak, setup, method) if setup.device == "cpu" else peak(setup, method)


def largest_error(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """Over the tensors found: largest difference by the reference's largest entry."""
    return max(float((found[n].double() - reference[n]).abs().max() / reference[n].abs().max()) for n in found)


def measure(setup: Setup) -> list[dict]:
    model = setup.network()
    few, batches = setup.batches(2, min(4, setup.batch_size)), setup.batches()
    likelihood, exact = setup.likelihood(), [(images.double(), labels) for images, labels in few]
    reference = one_sample_at_a_time(copy.deepcopy(model).double(), likelihood, "fp32")(exact)
    rows, runs = {}, {}
    for name, (prepare, packages) in METHODS.items():
        rows[name] = dict.fromkeys(COLUMNS, math.nan) | {"model": setup.name, "device": setup.device, "method": name}
        rows[name] |= {"tensors_covered": 0, "tensors_total": len(reference), "note": ""}
        if not all(map(find_spec, packages)):
            rows[name]["note"] = "not installed: pip install -e .[bench]"
            continue
        try:
            run = prepare(copy.deepcopy(model), likelihood, setup.precision)
            found = run(few)
            run(batches[:1])
        except Exception as error:  # a peer that cannot do this model says so in its row
            if name == OURS:
                raise
            rows[name]["note"] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
            continue
        rows[name] |= {"max_relative_error": largest_error(found, reference), "tensors_covered": len(found)}
        runs[name] = run
    base = plain(model, likelihood, setup.precision)
    base(batches[:1])
    times, ratios = in_turns(base, runs, batches, setup.rounds)
    del runs, base
    plain_peak = peak_of(setup, PLAIN)
    for name, values in ratios.items():
        rows[name] |= {"ratio": median(values), "peak_memory_ratio": ratio(peak_of(setup, name), plain_peak)}
        rows[name]["note"] = f"{min(values):.2f} to {max(values):.2f} in {len(values)} rounds"
    images = setup.batch_size * setup.n_batches
    print(
        f"{setup.name} ({setup.device}): {PLAIN} {median(times):.3g} s for {images} images in batches of {setup.batch_size}, "
        f"peak {plain_peak / 2**20:.0f} MiB beyond model and batches",
        flush=True,
    )
    return list(rows.values())


def growth(quick: bool) -> pd.DataFrame:
    """Seconds of a pass against images, tokens and width, one at a time, from the digits ViT."""
    digits, size = setups(False)[0].model, 4 if quick else 64
    if quick:
        digits = digits.model_copy(update={"depth": 1, "width": 16, "heads": 2})
    cases = [("images", n * size, {}, n) for n in ((1, 2) if quick else (2, 4, 8, 16))]
    cases += [("tokens", (28 // p) ** 2, {"patch_size": p}, 2) for p in ((14, 7) if quick else (14, 7, 4, 2))]
    cases += [("width", w, {"width": w}, 2) for w in ((16, 32) if quick else (64, 128, 256))]
    rows = []
    for what, value, change, n_batches in cases:
        setup = Setup("growth", digits.model_copy(update=change), 10, size, n_batches, rounds=1 if quick else 3)
        model, batches = setup.network(), setup.batches()
        runs = [prepare(copy.deepcopy(model), setup.likelihood(), "fp32") for prepare in (plain, ours)]
        for run in runs:
            run(batches[:1])
        times = np.array([[seconds(run, batches) for run in runs] for _ in range(setup.rounds)])
        both, per_image = np.median(times, 0), 1e3 * np.median(times[:, 1]) / (size * n_batches)
        rows.append((what, value, *map(float, both), per_image, float(np.median(times[:, 1] / times[:, 0]))))
    return pd.DataFrame(rows, columns=GROWTH_COLUMNS)


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    print(machine(), compiling(options.quick, "fisher.kernels_cpu"), sep="\n", flush=True)
    rows = [row for setup in setups(options.quick) for row in measure(setup)]
    if not torch.cuda.is_available():
        note = "not measured on a GPU; on one: python benchmarks/fisher.py"
        missing = {"model": ON_GPU, "device": "cuda", "method": OURS, "note": note}
        rows.append(dict.fromkeys(COLUMNS, math.nan) | missing)
    table = pd.DataFrame(rows).astype({"tensors_covered": "Int64", "tensors_total": "Int64"})
    grown = growth(options.quick)
    for name, part in table.groupby("model", sort=False):
        show(f"Fisher: {name}", part.drop(columns="model"))
    show("Growth of a Fisher pass, digits ViT, CPU", grown)
    write(table, options.out, "fisher.csv")
    write(grown, options.out, "fisher_growth.csv")


if __name__ == "__main__":
    main()
