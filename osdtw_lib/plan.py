"""python -m osdtw_lib plan: what a parameter file will take, before anything runs.

Each figure says where it comes from: measured (on this machine, synthetic images, no data to wait for), computed
(counted or derived, nothing ran), known (published counts) or assumed.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import pandas as pd
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from . import throughput
from .config import Config
from .direct import DEFAULT_WEIGHTS
from .errors import UserError
from .fisher import diagonal_fisher
from .longtail import exponential_class_counts
from .losses import Bernoulli
from .masked_autoencoder import MaskedAutoencoder
from .protocols import PROTOCOLS
from .runs import TASKS, Run
from .vit import TwoBranchViT, VisionTransformer, build_vit, costs_by_depth, n_depths

STEP_FLOPS = 2e11  # a measured step on a CPU does about so many: some seconds
MEASURED_SECONDS, MEASURED_STEPS = 2.0, 5
HERE, COMPUTED, ASSUMED = "measured", "computed", "assumed"


@dataclass(frozen=True)
class Plan:
    """lines: what holds for all stages; memory: GB a process, a row a stage; stages: images/s and hours, a row a stage."""

    lines: list[str]
    memory: pd.DataFrame
    stages: pd.DataFrame

    def __str__(self) -> str:
        def shown(table):
            return table.to_string(index=False, na_rep="", float_format=lambda v: f"{v:.3g}" if v < 1000 else f"{v:.0f}")

        total = f"total {self.stages['hours'].sum():.3g} hours; the search, the tables and reading the data are not in it"
        memory = "memory of a process while it trains, GB (1e9 bytes)"
        return "\n".join([*self.lines, "", memory, shown(self.memory), "", "time", shown(self.stages), total])


@dataclass(frozen=True)
class Step:
    """A stage's training: what is trained, its loss a batch, for how many epochs in all; `frozen` blocks run forward only."""

    name: str
    epochs: int
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
    frozen: int = 0


def make_plan(config: Config, gpus: int | None = None, gpu: str = "H100", mfu: float = 0.4) -> Plan:
    """The plan for `gpus` GPUs (default: those here; 0: the CPU).

    Where a GPU is here one of its steps is measured and more of them are assumed to add up; where there is none, the
    stages are computed for GPUs of the kind `gpu` at an assumed `mfu`. On a CPU the CPU's own step is measured.
    Raises UserError for a GPU that is not known, and for data that are neither here nor published.
    """
    if (gpus or 0) < 0 or not 0 < mfu <= 1:
        raise UserError(f"plan: --gpus is 0 or more and --mfu above 0 and at most 1, got {gpus} and {mfu}")
    here = torch.cuda.device_count() if config.device != "cpu" else 0
    gpus = here if gpus is None else gpus
    processes = gpus or 1
    device = torch.device("cuda" if gpus and here else "cpu")
    assumed_gpu = throughput.known_gpu(gpu) if gpus and not here else None
    n_images, n_classes, where_from = _images(config)
    micro, parts, split = _batch_split(config, processes)
    steps = _steps(config, n_classes)
    timed = None if assumed_gpu else {step.name: _measured(step, config, micro, device) for step in steps}
    memory = pd.DataFrame([_memory(step, config, micro, (timed or {}).get(step.name)) for step in steps])
    speed = _Speed(config, device, processes, assumed_gpu, mfu, timed)
    busy = math.ceil(config.recipe.batch_size / micro) / (parts * processes)
    rows = [speed.training(step, n_images, busy) for step in steps]
    order = [row["stage"] for row in rows].index("stage1") + 1
    rows[order:order] = [speed.fisher(n_images, n_classes), speed.direct(n_images, n_classes)]
    lines = [
        f"{config.name}: {_machine(device, gpus, assumed_gpu, mfu)}",
        f"data: {n_images} training images, {n_classes} classes ({where_from})",
        f"batch: {split} ({COMPUTED})",
    ]
    if config.selection.shared_depth is None:
        lines.append("stage3: planned for shared depth 0, the most it can take")
    if assumed_gpu and config.recipe.precision == "fp32":
        lines.append("recipe.precision is fp32: the assumed MFU counts from the bf16 peak and will not be reached")
    return Plan(lines, memory, pd.DataFrame(rows))


def _machine(device: torch.device, gpus: int, assumed_gpu: str | None, mfu: float) -> str:
    if assumed_gpu:
        return f"{gpus} x {assumed_gpu}, not here; MFU {100 * mfu:.0f} % {ASSUMED} (--mfu, --gpu)"
    name = throughput.device_name(device) or f"CPU, {torch.get_num_threads()} threads, nothing compiled"
    return f"{name}, {HERE}" if gpus < 2 else f"{gpus} x {name}; one is {HERE}, that each does as much is {ASSUMED}"


# sizes ----------------------------------------------------------------------------------------------------------


def _images(config: Config) -> tuple[int, int, str]:
    """(training images, classes, where from): of the data set where it is here, else of what is published of it."""
    data = config.data
    if data.dataset == "cifar100":
        return int(exponential_class_counts(data.largest, data.imbalance_ratio, 100).sum()), 100, f"{COMPUTED} from its profile"
    try:
        run = Run(config.model_copy(update={"device": "cpu"}))
        return len(run.train), len(run.class_names), "counted here"
    except UserError:
        published = PROTOCOLS.get(getattr(data, "protocol", None))
        if published is None:
            raise
        return published.images, published.classes, "known from publications; the data set is not here"


def _batch_split(config: Config, processes: int) -> tuple[int, int, str]:
    """(images of a part, parts of a process, in words)."""
    batch = config.recipe.batch_size
    micro = min(config.recipe.micro_batch or math.ceil(batch / processes), batch)
    parts = math.ceil(batch / micro)
    each = math.ceil(parts / processes)
    words = f"{batch} images a step = {parts} {'part' if parts == 1 else 'parts'} of {micro}, at most {each} a process"
    if parts % processes:
        words += f"; {processes} processes share them unevenly, {100 * parts / (each * processes):.0f} % of their time is used"
    return micro, each, words


def _steps(config: Config, n_classes: int) -> list[Step]:
    model, drop_path = config.model, config.recipe.drop_path
    half = math.ceil(n_classes / 2)  # how head and tail share the classes hardly matters for time and memory

    def vit(n_outputs: int = half):
        return build_vit(model, n_outputs, drop_path)

    def joint(shared: int | None, frozen: bool = False) -> TwoBranchViT:
        head, tail = vit(), vit()
        network = TwoBranchViT(head, tail, n_depths(head) if shared is None else shared)
        if frozen:
            network.freeze_encoder()
        return network

    def both(network, images, labels):
        return sum(_loss(logits, labels) for logits in network(images).values())

    def apart(networks, images, labels):
        return sum(_loss(network(images), labels) for network in networks.values())

    def painting(network, images, labels):  # over every patch: which are hidden depends on values, and takes no time
        target, painted, _ = network.paint(images)
        return (painted - target).square().mean()

    depth = config.selection.shared_depth or 0
    steps = [
        Step("stage1", config.stage1.epochs, lambda: nn.ModuleDict({task: vit() for task in TASKS}), apart),
        Step("stage2", config.stage2.epochs, lambda: joint(None), both),
        Step("stage3", config.stage3.epochs, lambda: joint(depth, frozen=True), both, depth),
    ]
    if config.baselines:
        epochs = len(config.baselines) * config.stage2.epochs
        steps.append(Step("baselines", epochs, lambda: vit(n_classes), lambda network, x, y: _loss(network(x), y)))
    if model.init == "masked_autoencoding":
        stage0 = config.stage0
        steps.insert(0, Step("start", stage0.epochs, lambda: MaskedAutoencoder(vit(), stage0), painting))
    return steps


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    n = logits.shape[1]
    return -Bernoulli(torch.arange(n), torch.zeros(n))(logits, labels).mean()


def _flops(step: Step, config: Config) -> float:
    """FLOPs an image of a training step: three times the forward pass, once where it is frozen. No memory is taken."""
    with torch.device("meta"):
        network = step.build()
        images, labels = _synthetic(network, 1, "meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            step.loss(network, images, labels)
    frozen = sum(costs_by_depth(config.model, 1)[1][: step.frozen]) if step.frozen else 0
    return 3 * counter.get_total_flops() - 2 * frozen


def _synthetic(network: nn.Module, size: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """`size` images of the shape the network takes, and labels."""
    embed = next(module for module in network.modules() if isinstance(module, VisionTransformer)).patch_embed
    shape = (size, embed.proj.in_channels, *embed.img_size)
    return torch.randn(shape, device=device), torch.zeros(size, dtype=torch.int64, device=device)


# memory ---------------------------------------------------------------------------------------------------------


def _memory(step: Step, config: Config, micro: int, measured: _Measured | None) -> dict:
    """GB of weights, gradients and AdamW's moments, by the numbers of parameters, and of what autograd keeps of a part.

    On tensors that have shapes and no contents: nothing is computed, no memory is taken.
    """
    with torch.device("meta"):
        network = step.build().train()
    everything = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = network.to_empty(device="cpu")
        one, two = (_kept(step, network, config, size) for size in (1, 2))  # what does not grow: casts of the weights
    parts = {
        "weights": 4 * everything, "gradients": 4 * trained, "moments": 8 * trained,
        f"activations of {micro} images": one + (micro - 1) * (two - one),
    }
    row = {"stage": step.name, "million parameters": everything / 1e6} | {name: size / 1e9 for name, size in parts.items()}
    row[f"sum, {COMPUTED}"] = sum(parts.values()) / 1e9
    if measured and measured.peak_bytes:
        row |= {f"peak, {HERE}": measured.peak_bytes / 1e9, "at images": measured.size}
    return row


def _kept(step: Step, network: nn.Module, config: Config, size: int) -> int:
    """Bytes autograd keeps from a forward pass over `size` images for its backward pass, parameters aside."""
    images, labels = _synthetic(network, size, "cpu")
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), _autocast(config, "cpu"):
        step.loss(network, images, labels)
    return sum(storage.nbytes() for storage in kept.values())


def _autocast(config: Config, device_type: str):
    return torch.autocast(device_type, torch.bfloat16, enabled=config.recipe.precision == "bf16")


# time -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    size: int  # images of the measured step
    seconds: float
    peak_bytes: int = 0  # a GPU's


def _measured(step: Step, config: Config, micro: int, device: torch.device) -> _Measured:
    """A training step with AdamW: on a GPU at `micro` images, or as many of them as fit; on a CPU at few images."""
    size = micro if device.type == "cuda" else max(1, min(micro, max(2, int(STEP_FLOPS / _flops(step, config)))))
    while True:
        try:
            return _timed(step, config, size, device)
        except torch.OutOfMemoryError:
            if size == 1:
                raise UserError(f"plan: {step.name} does not fit in this GPU's memory even with one image at a time") from None
            print(f"{step.name}: {size} images at a time do not fit in this GPU's memory; lower recipe.micro_batch", flush=True)
            size //= 2


def _timed(step: Step, config: Config, size: int, device: torch.device) -> _Measured:
    network = step.build().to(device).train()
    loss = torch.compile(step.loss) if config.recipe.compile and device.type == "cuda" else step.loss
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6, fused=True)
    images, labels = _synthetic(network, size, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def run() -> None:
        with _autocast(config, device.type):
            value = loss(network, images, labels)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = _seconds(run, device)
    return _Measured(size, seconds, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """Median of a few runs, after one that is not counted."""
    times: list[float] = []
    for _ in range(1 + MEASURED_STEPS):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if len(times) > 1 and sum(times[1:]) > MEASURED_SECONDS:
            break
    return median(times[1:])


@dataclass(frozen=True)
class _Speed:
    """Rows of the table of stages: stage, epochs, GFLOP an image, images/s of all processes, hours, how."""

    config: Config
    device: torch.device
    processes: int
    gpu: str | None
    mfu: float
    timed: dict[str, _Measured] | None

    def training(self, step: Step, n_images: int, busy: float) -> dict:
        flops = _flops(step, self.config)
        if self.timed:
            measured = self.timed[step.name]
            rate, how = measured.size / measured.seconds, f"{HERE} at {measured.size} images a step"
        else:
            rate, how = self._assumed(flops), f"{COMPUTED} at the {ASSUMED} MFU"
        return self._row(step.name, step.epochs, flops, rate * busy, step.epochs * n_images, how)

    def fisher(self, n_images: int, n_classes: int) -> dict:
        """Both tasks' Fisher: as many FLOPs as a training step of both networks."""
        n, settings = math.ceil(n_classes / 2), self.config.fisher
        flops = 2 * throughput.training_flops(self.config.model, n)
        if not self.timed:
            return self._row("fisher", 1, flops, self._assumed(flops), n_images, f"{COMPUTED} at the {ASSUMED} MFU")
        network = build_vit(self.config.model, n).to(self.device).eval()
        size = min(settings.batch_size, self.timed["stage1"].size)
        batch, likelihood = _synthetic(network, size, self.device), Bernoulli(torch.arange(n), torch.zeros(n))
        precision, megabytes = self.config.recipe.precision, settings.buffer_megabytes

        def run() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                diagonal_fisher(network, [batch], likelihood, buffer_megabytes=megabytes, precision=precision)

        rate = size / (2 * _seconds(run, self.device))
        return self._row("fisher", 1, flops, rate, n_images, f"{HERE} at {size} images a batch")

    def direct(self, n_images: int, n_classes: int) -> dict:
        """The measured bias: for each head weight one encoder, and both decoders from every depth on; forward passes only."""
        forward = costs_by_depth(self.config.model, math.ceil(n_classes / 2))[1]
        decoders = sum(2 * sum(forward[depth:]) for depth in range(1, len(forward)))
        rounds = math.ceil(len(DEFAULT_WEIGHTS) / self.processes) * self.processes  # the processes share the weights
        flops = rounds * (sum(forward[:-1]) + decoders) + 2 * sum(forward)
        images = min(self.config.direct.images, n_images)
        if not self.timed:
            return self._row("direct", 1, flops, self._assumed(flops), images, f"{COMPUTED} at the {ASSUMED} MFU")
        network = build_vit(self.config.model, 1).to(self.device).eval()
        size = self.timed["stage1"].size
        batch, _ = _synthetic(network, size, self.device)
        with torch.no_grad():
            rate = sum(forward) / flops * size / _seconds(lambda: network(batch), self.device)
        return self._row("direct", 1, flops, rate, images, f"{COMPUTED} from a {HERE} forward pass")

    def _assumed(self, flops: float) -> float:
        return self.mfu * throughput.peak_flops(self.gpu) / flops

    def _row(self, stage: str, epochs: int, flops: float, rate: float, images: int, how: str) -> dict:
        total = rate * self.processes
        return {"stage": stage, "epochs": epochs, "GFLOP an image": flops / 1e9, "images/s": total,
                "hours": images / total / 3600, "how": how}
