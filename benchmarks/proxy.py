"""The search over every shared depth and head weight, against one reading of what it needs.

    python benchmarks/proxy.py [--quick] [--large] [--out FOLDER]

The tensors have the names and shapes of a timm ViT with 12 blocks (ViT-B/16 for the 86 M row), the Fishers are
random and log-normal. In interleaved rounds: one reading of the three vectors (both Fishers and the mismatch) with
all threads, then each search; seconds are medians over the rounds. Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import gc
import itertools
import time
from statistics import median

import numpy as np
import pandas as pd
import torch
from common import arguments, compiling, forget_peak, in_own_process, machine, peak_bytes, ratio, resident_bytes, show, write
from torch import Tensor

from osdtw_lib.config import schema as cfg
from osdtw_lib.explorer.state import Landscape
from osdtw_lib.proxy.exact import Proxy
from osdtw_lib.proxy.binned import ProxySummary
from osdtw_lib.explorer.linked_figures import arrays
from osdtw_lib.models.vit import build_vit, depth_of, n_depths

COLUMNS = ["parameters", "weights", "seconds", "read_once_seconds", "peak_memory_ratio", "form", "how"]
FORMS = {"paper": 0.0, "damped": 1.0}  # and their damping; 1 is the median of the random Fishers
VIT_B = cfg.Model(architecture="vit_base_patch16_224")
LARGER = {"ViT-L": cfg.Model(architecture="vit_large_patch16_224"), "ViT-H": cfg.Model(architecture="vit_huge_patch14_224")}
N_OUTPUTS = 500  # of each task: half of 1,000 classes
Statistics = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, int]]


def shapes(model: cfg.Model) -> tuple[dict[str, torch.Size], dict[str, int], int]:
    """Shape and depth of every parameter, and L, without memory for any of them."""
    with torch.device("meta"):
        vit = build_vit(model, N_OUTPUTS)
    return {name: p.shape for name, p in vit.named_parameters()}, depth_of(vit), n_depths(vit)


def count(model: cfg.Model) -> int:
    return sum(shape.numel() for shape in shapes(model)[0].values())


def statistics(model: cfg.Model) -> Statistics:
    """Fishers of both tasks, mismatch of the encoder, and the depths."""
    g = torch.Generator().manual_seed(0)
    named, depths, last = shapes(model)
    head, tail = ({n: torch.empty(s).log_normal_(0.0, 3.0, generator=g) for n, s in named.items()} for _ in range(2))
    mismatch = {n: torch.empty(s).normal_(0.0, 1e-2, generator=g) for n, s in named.items() if depths[n] <= last}
    return head, tail, mismatch, depths


def search(numbers: Statistics, n_weights: int, form: str) -> pd.DataFrame:
    """From the Fishers to the grid: 13 depths by n_weights."""
    return Proxy(*numbers, 100_000).grid(head_weights=np.linspace(0, 1, n_weights), form=form, damping=FORMS[form])


def read_once(numbers: Statistics) -> None:
    for named in numbers[:3]:
        for tensor in named.values():
            torch.linalg.vector_norm(tensor)  # the quickest of torch's reductions: reads, and writes nothing


def timed(function, *args) -> tuple:
    """Seconds, and what it returns."""
    start = time.perf_counter()
    found = function(*args)
    return time.perf_counter() - start, found


def peak(model: cfg.Model, n_weights: int, form: str) -> float:
    """The most memory held while searching by what the inputs hold."""
    small = statistics(VIT_B.model_copy(update={"depth": 1, "width": 32, "heads": 2, "image_size": 32}))
    search(small, n_weights, form), read_once(small)  # what torch loads at its first use
    del small
    gc.collect()
    before = resident_bytes()
    numbers = statistics(model)
    inputs = resident_bytes() - before
    forget_peak()
    search(numbers, n_weights, form)
    return ratio(peak_bytes() - before, inputs)


def measure(model: cfg.Model, asked: list[tuple[int, str]], rounds: int) -> list[dict]:
    """A row for each (weights, form)."""
    numbers = statistics(model)
    read_once(numbers), search(numbers, 2, "paper")
    reading, searching = [], {case: [] for case in asked}
    for _ in range(rounds):
        reading.append(timed(read_once, numbers)[0])
        for case, times in searching.items():
            times.append(timed(search, numbers, *case)[0])
    parameters = count(model)
    del numbers
    rows = []
    for (n_weights, form), times in searching.items():
        values = parameters, n_weights, median(times), median(reading), in_own_process(peak, model, n_weights, form)
        rows.append(dict(zip(COLUMNS, (*values, form, "measured"))))
        print(
            f"{parameters / 1e6:.3g} M parameters, {n_weights} weights, {form}: {min(times):.3g} to {max(times):.3g} s "
            f"in {rounds} rounds; one reading {min(reading):.3g} to {max(reading):.3g} s",
            flush=True,
        )
    return rows


def sliders(model: cfg.Model, rounds: int) -> pd.DataFrame:
    """What the explorer's controls ask for, answered from bins (the damping moves each time), and how far bins are off."""
    exact, damping = Proxy(*statistics(model), 100_000), itertools.count(1)
    gathering, summary = timed(ProxySummary.of, exact)
    landscape = Landscape(summary, *[None] * 6)
    grids = [
        [proxy.grid(form=form, damping=lam).set_index("head_weight")["total"] for proxy in (summary, exact)]
        for form, lam in FORMS.items()
    ]
    off = pd.concat([(binned / whole - 1).abs() for binned, whole in grids])
    ends = off.index.isin((0.0, 1.0))
    asked = {
        "every C, any w_A, a new damping": lambda: summary.grid(None, [0.37], "damped", next(damping)),
        "slider of C or w_A: all views": lambda: arrays(landscape, "damped", 0.5, 6, 0.37),
        "slider of the damping: all views, every C and 101 w_A": lambda: arrays(landscape, "damped", next(damping), 6, 0.37),
    }
    note = f"{len(summary.encoder)} bins; grid within {off[~ends].max():.1g} of the exact one, {off[ends].max():.1g} at both ends"
    rows = [("gathering the bins, once", 1e3 * gathering, note)]
    for name, answer in asked.items():
        times = [1e3 * timed(answer)[0] for _ in range(rounds + 1)][1:]
        rows.append((name, median(times), f"{min(times):.2f} to {max(times):.2f} in {rounds} rounds"))
    return pd.DataFrame(rows, columns=["what", "milliseconds", "note"])


def computed(parameters: int, base: dict) -> dict:
    """The row for more parameters: time grows in proportion, memory as well."""
    factor = parameters / base["parameters"]
    times = {name: factor * base[name] for name in ("seconds", "read_once_seconds")}
    return base | times | {"parameters": parameters, "how": "computed"}


def room_for(parameters: int) -> bool:
    """Whether three float32 vectors and as much again fit into what memory is free."""
    try:
        lines = open("/proc/meminfo").read().splitlines()
    except OSError:
        return False
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return 2 * 3 * 4 * parameters < free


def main() -> None:
    options = arguments(__doc__.splitlines()[0], large="measure ViT-L and ViT-H too, where memory allows")
    print(machine(), compiling(options.quick, "proxy.kernels_cpu"), sep="\n", flush=True)
    if options.quick:
        scale = {"image_size": 32, "heads": 2}
        largest = VIT_B.model_copy(update=scale | {"width": 48})
        smaller, weights, rounds = [VIT_B.model_copy(update=scale | {"width": 16})], (2, 11), 2
    else:
        largest = VIT_B
        widths = {80: 4, 192: 3, 384: 6}  # 1, 6 and 22 M parameters; the last two are ViT-Ti and ViT-S
        smaller = [VIT_B.model_copy(update={"width": width, "heads": heads}) for width, heads in widths.items()]
        weights, rounds = (2, 5, 11, 21, 51, 101), 5
    rows = [row for model in smaller for row in measure(model, [(11, form) for form in FORMS], rounds)]
    rows += measure(largest, [(n, form) for form in FORMS for n in weights], rounds)
    bases = [row for row in rows if row["parameters"] == count(largest) and row["weights"] == 11]
    for name, model in LARGER.items():
        parameters = count(model)
        if options.large and not options.quick and room_for(parameters):
            rows += measure(model, [(11, form) for form in FORMS], 3)
        else:
            print(f"{name}: computed from {bases[0]['parameters'] / 1e6:.3g} M parameters", flush=True)
            rows += [computed(parameters, base) for base in bases]
    table = pd.DataFrame(rows, columns=COLUMNS)
    shown = table.assign(
        parameters=[f"{p / 1e6:.3g} M" for p in table["parameters"]],
        inputs_GB=[12 * p / 1e9 for p in table["parameters"]],
        times_the_limit=table["seconds"] / table["read_once_seconds"],
        ns_per_parameter=1e9 * table["seconds"] / table["parameters"],
    )
    grid = table["parameters"].eq(count(largest))
    show("Search: growth with weights, 13 depths, largest measured model", shown[grid])
    show("Search: growth with parameters, 11 weights", shown[table["weights"] == 11].sort_values("form", kind="stable"))
    write(table, options.out, "proxy.csv")
    answers = sliders(largest, 4 if options.quick else 50)
    show(f"Explorer: answers from bins, {count(largest) / 1e6:.3g} M parameters", answers)
    write(answers, options.out, "explorer.csv")


if __name__ == "__main__":
    main()
