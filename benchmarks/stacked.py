"""Several networks trained one after the other, against one batched network that holds all their weights side by side.

    python benchmarks/stacked.py [--quick] [--out FOLDER]

The digits' network; forward and backward of a batch for each, one thread, since the verdict gives each core a network of its own.
A ratio is the median over the rounds of the time one after the other by the stacked time in the same round: above 1 stacking is
faster. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import copy
import time
from collections.abc import Callable
from statistics import median

import pandas as pd
import torch
from common import arguments, machine, show, write
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from osdtw_lib.config.load import load_config
from osdtw_lib.config.paths import PROJECT
from osdtw_lib.models.vit import build_vit

COLUMNS = ["networks", "ratio", "milliseconds_a_network", "largest_difference", "note"]


def one_by_one(networks: list[nn.Module], images: torch.Tensor, labels: torch.Tensor) -> None:
    """Gradients of each network by itself."""
    for i, network in enumerate(networks):
        network.zero_grad()
        nn.functional.cross_entropy(network(images[i]), labels[i]).backward()


def stacked(networks: list[nn.Module], images: torch.Tensor, labels: torch.Tensor) -> tuple[Callable[[], None], dict]:
    """The same by torch.func, and the weights {name: (networks, ...)} it leaves the gradients in: matrix products become batched
    ones; attention is written out, since torch has no batching rule for the fused one on a CPU."""
    weights, buffers = stack_module_state(networks)
    form = copy.deepcopy(networks[0])
    for block in form.blocks:
        block.attn.fused_attn = False
    weights = {name: w.detach().requires_grad_() for name, w in weights.items()}

    def loss(weights: dict, buffers: dict, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(functional_call(form, (weights, buffers), (images,)), labels)

    def run() -> None:
        for w in weights.values():
            w.grad = None
        vmap(loss)(weights, buffers, images, labels).sum().backward()

    return run, weights


def measure(count: int, size: int, changes: list[str], rounds: int) -> tuple:
    config = load_config(PROJECT / "params" / "mnist_lt.yaml", changes)
    torch.manual_seed(0)
    one = build_vit(config.model, 10)  # without stochastic depth: both ways compute the same
    networks = [copy.deepcopy(one) for _ in range(count)]
    images, labels = torch.randn(count, size, 1, 28, 28), torch.randint(0, 10, (count, size))
    alone, (together, weights) = lambda: one_by_one(networks, images, labels), stacked(networks, images, labels)
    alone(), together()
    trained = [name for name, w in weights.items() if w.grad is not None]
    reference = {name: torch.stack([network.get_parameter(name).grad for network in networks]) for name in trained}
    difference = max(float((weights[name].grad - g).abs().max() / g.abs().max()) for name, g in reference.items())
    times: dict[Callable, list[float]] = {alone: [], together: []}
    for _ in range(rounds):
        for run, spent in times.items():
            start = time.perf_counter()
            run()
            spent.append((time.perf_counter() - start) / count)
    ratios = [a / b for a, b in zip(times[alone], times[together])]
    note = f"{min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds"
    return count, median(ratios), 1e3 * median(times[together]), difference, note


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    print(machine(), flush=True)
    counts, size, rounds = ((2,), 4, 2) if options.quick else ((1, 2, 4, 8), 64, 15)
    small = ["model.depth=2", "model.width=16", "model.heads=2"] if options.quick else []
    table = pd.DataFrame([measure(count, size, small, rounds) for count in counts], columns=COLUMNS)
    show(f"Networks trained as one, digits ViT, {size} images a step each", table)
    write(table, options.out, "stacked.csv")


if __name__ == "__main__":
    main()
