"""A training step against the plain eager loop of public fine-tuning scripts, and MFU on a GPU.

    python benchmarks/train.py [--quick] [--out FOLDER]

Synthetic images in memory, so nothing waits for data; everything in one run, in interleaved rounds. A ratio is the
median over the rounds of a method's images/s by those of the plain loop in the same round: above 1 is faster.
Columns: benchmarks/README.md.
"""

from __future__ import annotations

import osdtw_lib  # noqa: F401, before torch: it sets how torch's threads wait for each other

# isort: split
import contextlib
import functools
import gc
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

import pandas as pd
import torch
from common import arguments, machine, show, write
from torch import Tensor, nn

from osdtw_lib.backend.torch_compile import compile_networks
from osdtw_lib.config import schema as cfg
from osdtw_lib.data.batches import Batches, Part
from osdtw_lib.models.likelihoods import Bernoulli
from osdtw_lib.config.load import load_config
from osdtw_lib.models.flops import device_name, mfu, training_flops
from osdtw_lib.training.loop import fit
from osdtw_lib.training.phase import Phase
from osdtw_lib.models.vit import build_vit

COLUMNS = ["model", "device", "method", "ratio", "images_per_second", "mfu", "note"]
ON_GPU = "ViT-B/16, 224 px"
PLAIN, OURS = "plain eager loop", "training.fit"
COMPILED, WRITTEN_OUT = ", torch.compile", ", attention written out"


@dataclass(frozen=True)
class Setup:
    """What is measured on: sizes, device and how often."""

    name: str
    model: cfg.Model
    classes: int
    batch_size: int
    warm_up: int  # steps before those that are timed
    steps: int
    rounds: int
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = True
    drop_path: float = 0.1

    def recipe(self) -> cfg.Recipe:
        return cfg.Recipe(batch_size=self.batch_size, precision=self.precision, drop_path=self.drop_path)

    def networks(self, names: tuple[str, ...]) -> nn.ModuleDict:
        torch.manual_seed(0)
        made = {name: build_vit(self.model, self.classes, self.recipe().drop_path) for name in names}
        return nn.ModuleDict(made).to(self.device)

    def batches(self) -> InMemory:
        side, g = self.model.image_size or 224, torch.Generator().manual_seed(1)
        images = torch.randn(self.batch_size, self.model.channels, side, side, generator=g).to(self.device)
        labels = torch.randint(self.classes, (self.batch_size,), generator=g).to(self.device)
        return InMemory(images, labels, self.warm_up, self.steps)


def setups(quick: bool) -> list[Setup]:
    digits = load_config(cfg.PROJECT / "params" / "mnist_lt.yaml").model
    if quick:
        small = digits.model_copy(update={"depth": 2, "width": 16, "heads": 2})
        return [Setup("digits ViT (quick)", small, 10, 4, warm_up=1, steps=2, rounds=2, compile=False)]
    if torch.cuda.is_available():
        return [Setup(ON_GPU, cfg.Model(), 1000, 256, warm_up=5, steps=20, rounds=5, device="cuda", precision="bf16")]
    return [Setup("digits ViT, 12 blocks of width 64, 28 px", digits, 10, 64, warm_up=3, steps=20, rounds=5)]


@dataclass
class InMemory:
    """The same batch again and again, as Batches gives them, whole or in `parts`; the seconds from the first timed step to the
    last one's end."""

    images: Tensor
    one: Tensor
    warm_up: int
    steps: int
    parts: int = 1
    seconds: float = field(default=math.nan, init=False)
    waited = 0.0  # seconds: nothing is read

    @property
    def labels(self) -> Tensor:
        return self.one.repeat(len(self))

    @property
    def batch_size(self) -> int:
        return len(self.one)

    def __len__(self) -> int:
        return self.warm_up + self.steps

    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        for step in range(len(self)):
            if step == self.warm_up:
                self._finish()
                started = time.perf_counter()
            cut = zip(self.images.chunk(self.parts), self.one.chunk(self.parts))
            yield (Part(images, labels, len(labels) / len(self.one), i) for i, (images, labels) in enumerate(cut))
        self._finish()
        self.seconds = time.perf_counter() - started

    def _finish(self) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize()


class Watched:
    """Batches as they are; before(n) is called when step n, counted over all epochs, is asked for, and after the last."""

    def __init__(self, batches: Batches, before: Callable[[int], object]):
        self.batches, self.before, self.count = batches, before, 0
        self.labels, self.batch_size = batches.labels, batches.batch_size

    @property
    def waited(self) -> float:
        return self.batches.waited

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        for parts in self.batches.epoch(number):
            self.before(self.count)
            self.count += 1
            yield parts
        self.before(self.count)


class Nowhere:
    """A checkpoint that is never there."""

    def load(self) -> None:
        return None

    def require_room(self, *_) -> None:
        pass

    def save(self, *_) -> None:
        pass


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits = network(images)
    return -likelihood(logits.shape[1], logits.device)(logits, labels).mean()


@functools.cache
def likelihood(n_outputs: int, device: torch.device) -> Bernoulli:
    """Its constants where the logits are: a copy in every step would wait for a GPU."""
    return Bernoulli(torch.arange(n_outputs), torch.zeros(n_outputs)).to(device)


def losses(networks: nn.ModuleDict, part: Part) -> Iterator[dict[str, Tensor]]:
    """Of every network on the same part, one after the other."""
    for name, network in networks.items():
        yield {name: loss(network, part.images, part.labels)}


# Every method: (setup, networks, batches) -> a function that runs one epoch of `batches`.


def ours(setup: Setup, networks: nn.ModuleDict, batches: InMemory) -> Callable[[], None]:
    """The loop every stage and baseline goes through."""

    phase = Phase(cfg.Training(epochs=1), losses)

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            fit(networks, phase, batches, setup.recipe(), Nowhere(), 0, "benchmark")

    return run


def compiled(setup: Setup, networks: nn.ModuleDict, batches: InMemory) -> Callable[[], None]:
    compile_networks(networks)
    return ours(setup, networks, batches)


def plain(setup: Setup, networks: nn.ModuleDict, batches: InMemory) -> Callable[[], None]:
    """As public scripts do it: on a GPU float16 with a gradient scaler, an optimizer that goes from tensor to tensor, a look
    at the loss every step. A second network is trained after the first; the seconds are those of both."""
    on_gpu = setup.device != "cpu"
    recipe = setup.recipe()

    def one_epoch(network: nn.Module) -> float:
        options = {"lr": recipe.learning_rate, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
        optimizer = torch.optim.AdamW(network.parameters(), foreach=False, fused=False, **options)
        scaler = torch.amp.GradScaler(setup.device, enabled=on_gpu)
        network.train()
        for parts in batches.epoch(0):
            for part in parts:
                with torch.autocast(setup.device, torch.float16, enabled=on_gpu):
                    value = loss(network, part.images, part.labels)
                if not math.isfinite(value.item()):
                    raise FloatingPointError("the loss is not finite")
                optimizer.zero_grad()
                scaler.scale(value).backward()
                scaler.step(optimizer)
                scaler.update()
        return batches.seconds

    def run() -> None:
        batches.seconds = sum(one_epoch(network) for network in networks.values())

    return run


def written_out(setup: Setup, networks: nn.ModuleDict, batches: InMemory) -> Callable[[], None]:
    """The plain loop on a model of the time before fused attention."""
    for module in networks.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return plain(setup, networks, batches)


KINDS = {  # what is trained, and the methods, the first of them the one to compare with
    "": (("all",), {PLAIN: plain, PLAIN + WRITTEN_OUT: written_out, OURS: ours, OURS + COMPILED: compiled}),
    ", Stage 1's two networks": (("head", "tail"), {PLAIN: plain, OURS: ours, OURS + COMPILED: compiled}),
}


def measure(setup: Setup) -> list[dict]:
    return [row for what, (names, methods) in KINDS.items() for row in measure_kind(setup, what, names, methods)]


def measure_kind(setup: Setup, what: str, names: tuple[str, ...], methods: dict[str, Callable]) -> list[dict]:
    batches = setup.batches()
    rows = {
        m: dict.fromkeys(COLUMNS, math.nan) | {"model": setup.name, "device": setup.device, "method": m + what, "note": ""}
        for m in methods
    }
    runs = {}
    for name, method in methods.items():
        if name.endswith(COMPILED) and not setup.compile:
            rows[name]["note"] = "not run with --quick"
            continue
        try:
            runs[name] = method(setup, setup.networks(names), batches)
            runs[name]()  # what is done once: compiling, choosing kernels
        except Exception as error:
            if not name.endswith(COMPILED):
                raise
            rows[name]["note"] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
            runs.pop(name, None)
    rates = in_turns(runs, batches, setup.rounds)
    flops = len(names) * training_flops(setup.model, setup.classes)
    for name, found in rates.items():
        ratios = [rate / base for rate, base in zip(found, rates[PLAIN])]
        share = mfu(median(found), flops, device_name(setup.device))
        rows[name] |= {"ratio": median(ratios), "images_per_second": median(found), "mfu": math.nan if share is None else share}
        rows[name]["note"] = f"{min(ratios):.2f} to {max(ratios):.2f} in {setup.rounds} rounds"
    return list(rows.values())


def in_turns(runs: dict[str, Callable[[], None]], batches: InMemory, rounds: int) -> dict[str, list[float]]:
    """Images a second of each in every round."""
    rates = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            run()
            rates[name].append(batches.batch_size * batches.steps / batches.seconds)
    return rates


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    print(machine(), flush=True)
    rows = [row for setup in setups(options.quick) for row in measure(setup)]
    if not torch.cuda.is_available():
        note = "not measured on a GPU; on one: python benchmarks/train.py"
        rows.append(dict.fromkeys(COLUMNS, math.nan) | {"model": ON_GPU, "device": "cuda", "method": OURS, "note": note})
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name, part in table.groupby("model", sort=False):
        show(f"Training: {name}", part.drop(columns="model"))
    write(table, options.out, "train.csv")


if __name__ == "__main__":
    main()
