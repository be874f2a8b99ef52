"""python -m osdtw_lib plan: what a parameter file will take, before anything runs.

Each figure says where it comes from: measured (on this machine, synthetic images, no data to wait for), computed
(counted or derived, nothing ran), known (published counts) or assumed.
"""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass

import pandas as pd
import torch

from ..backend import threads
from ..config.schema import Config, WholeSet
from ..data import sets
from ..errors import UserError
from ..fisher.diagonal import diagonal_fisher
from ..models import flops as throughput
from ..models.likelihoods import Bernoulli
from ..models.start_pixels import other_pixels, with_start_pixels
from ..models.vit import build_vit, costs_by_depth
from ..proxy.measured_bias import DEFAULT_WEIGHTS
from ..stages.run import Run
from .limits import Reading, fp32_flops, memory_line, reading_of
from .steps import Measured, Step, measure, memory_of, seconds_of, steps_of, synthetic

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

        total = f"total {self.stages['hours'].sum():.3g} hours; the search, the tables and decoding for a cache are not in it"
        memory = "memory of a process while it trains, GB (1e9 bytes)"
        return "\n".join([*self.lines, "", memory, shown(self.memory), "", "time", shown(self.stages), total])


def make_plan(
    config: Config, gpus: int | None = None, gpu: str = "H100", mfu: float = 0.4, machine_cores: int | None = None
) -> Plan:
    """The plan for `gpus` GPUs (default: those here; 0: the CPU), fed by so many cores (default: those here, or some a GPU).

    Where a GPU is here one of its steps is measured and more of them are assumed to add up; where there is none, the
    stages are computed for GPUs of the kind `gpu` at an assumed `mfu`. On a CPU the CPU's own step is measured.
    Hours are those of the slower: the GPUs, or what reads their images from files.
    Raises UserError for a GPU that is not known, and for data that are neither here nor published.
    """
    config = with_start_pixels(config)
    if (gpus or 0) < 0 or not 0 < mfu <= 1:
        raise UserError(f"plan: --gpus is 0 or more and --mfu above 0 and at most 1, got {gpus} and {mfu}")
    here = torch.cuda.device_count() if config.device != "cpu" else 0
    gpus = here if gpus is None else gpus
    gpus = gpus if config.workers == "auto" else min(gpus, config.workers)
    processes = gpus or 1
    device = torch.device("cuda" if gpus and here else "cpu")
    assumed_gpu = throughput.known_gpu(gpu) if gpus and not here else None
    n_images, n_classes, where_from = _images(config)
    micro, parts, split = _batch_split(config, processes)
    steps = steps_of(config, n_classes, device)
    with threads.one(device.type == "cpu" and throughput.is_small(config, n_classes)):  # as the stages will work
        timed = None if assumed_gpu else {step.name: measure(step, config, micro, device) for step in steps}
        memory = pd.DataFrame([memory_of(step, config, micro, (timed or {}).get(step.name)) for step in steps])
        reading = reading_of(config, gpus, machine_cores, here=not assumed_gpu) if gpus else None
        speed = _Speed(config, device, processes, assumed_gpu, mfu, timed, reading)
        busy = math.ceil(config.recipe.batch_size / micro) / (parts * processes)
        rows = [speed.training(step, n_images, busy) for step in steps]
        order = [row["stage"] for row in rows].index("stage1") + 1
        rows[order:order] = [speed.fisher(n_images, n_classes), speed.direct(n_images, n_classes)]
        lines = [
            f"{config.name}: {_machine(device, gpus, assumed_gpu, mfu)}",
            f"data: {n_images} training images, {n_classes} classes ({where_from})",
            f"batch: {split} ({COMPUTED})",
        ]
    if other := other_pixels(config):
        lines.append(other)
    if config.selection.shared_depth is None:
        lines.append("stage3: planned for shared depth 0, the most it can take")
    if assumed_gpu and config.recipe.precision == "fp32":
        lines.append("recipe.precision is fp32: the assumed MFU counts from the bf16 peak and will not be reached")
    stages = pd.DataFrame(rows)
    if gpus:
        lines.append(memory_line(memory, assumed_gpu or throughput.device_name(device)))
    if reading:
        lines.append(reading.line(stages))
    return Plan([line for line in lines if line], memory, stages)


def _machine(device: torch.device, gpus: int, assumed_gpu: str | None, mfu: float) -> str:
    if assumed_gpu:
        return f"{gpus} x {assumed_gpu}, not here; MFU {100 * mfu:.0f} % {ASSUMED} (--mfu, --gpu)"
    number = torch.get_num_threads()
    name = throughput.device_name(device) or f"CPU, {number} {'thread' if number == 1 else 'threads'}, nothing compiled"
    return f"{name}, {HERE}" if gpus < 2 else f"{gpus} x {name}; one is {HERE}, that each does as much is {ASSUMED}"


def _images(config: Config) -> tuple[int, int, str]:
    """(training images, classes, where from): of the data set where it is here, else of what is published of it."""
    data = config.data
    published = sets.of(data).published(data)
    if published and isinstance(data, WholeSet):  # its profile says it: no need to fetch it
        return (*published[:2], f"{COMPUTED} {published[2]}")
    try:
        run = Run(config.model_copy(update={"device": "cpu"}))
        return len(run.train), len(run.class_names), "counted here"
    except UserError:
        if published is None:
            raise
        return published


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


# time -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Speed:
    """Rows of the table of stages: stage, epochs, GFLOP an image, images/s of all processes, those that the readers bring in
    the same time, hours, how."""

    config: Config
    device: torch.device
    processes: int
    gpu: str | None
    mfu: float
    timed: dict[str, Measured] | None
    reading: Reading | None = None

    def training(self, step: Step, n_images: int, busy: float) -> dict:
        flops = step.flops
        if self.timed:
            measured = self.timed[step.name]
            rate, how = measured.size / measured.seconds, f"{HERE} at {measured.size} images a step"
        else:
            rate, how = self._assumed(flops), f"{COMPUTED} at the {ASSUMED} MFU"
        passes = step.phase.views if step.phase.frozen else step.epochs * (1 + len(step.phase.streams))
        return self._row(step.name, step.epochs, flops, rate * busy, step.epochs * n_images, how, passes * n_images)

    def fisher(self, n_images: int, n_classes: int) -> dict:
        """Both tasks' Fisher: as many FLOPs as a training step of both networks."""
        n, settings = math.ceil(n_classes / 2), self.config.fisher
        flops = 2 * throughput.training_flops(self.config.model, n)
        if not self.timed:
            how = f"{COMPUTED} at the {ASSUMED} MFU"
            return self._row("fisher", 1, flops, self._assumed(flops), n_images, how, n_images)
        network = build_vit(self.config.model, n).to(self.device).eval()
        size = min(settings.batch_size, self.timed["stage1"].size)
        batch, likelihood = synthetic(network, size, self.device), Bernoulli(torch.arange(n), torch.zeros(n)).to(self.device)
        precision, megabytes = self.config.recipe.precision, settings.buffer_megabytes

        def run() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                diagonal_fisher(network, [batch], likelihood, buffer_megabytes=megabytes, precision=precision)

        rate = size / (2 * seconds_of(run, self.device))
        return self._row("fisher", 1, flops, rate, n_images, f"{HERE} at {size} images a batch", n_images)

    def direct(self, n_images: int, n_classes: int) -> dict:
        """The measured bias: for each head weight one encoder, and both decoders from every depth on; forward passes only, in
        float32 whatever the recipe's precision."""
        forward = costs_by_depth(self.config.model, math.ceil(n_classes / 2))[1]
        decoders = sum(2 * sum(forward[depth:]) for depth in range(1, len(forward)))
        rounds = math.ceil(len(DEFAULT_WEIGHTS) / self.processes) * self.processes  # the processes share the weights
        flops = rounds * (sum(forward[:-1]) + decoders) + 2 * sum(forward)
        images = min(self.config.direct.images, n_images)
        if not self.timed:
            rate, how = self.mfu * fp32_flops(self.gpu) / flops, f"{COMPUTED} at the {ASSUMED} MFU of its float32 peak"
            return self._row("direct", 1, flops, rate, images, how, images)
        network = build_vit(self.config.model, 1).to(self.device).eval()
        size = self.timed["stage1"].size
        batch, _ = synthetic(network, size, self.device)
        with torch.no_grad():
            rate = sum(forward) / flops * size / seconds_of(lambda: network(batch), self.device)
        return self._row("direct", 1, flops, rate, images, f"{COMPUTED} from a {HERE} forward pass", images)

    def _assumed(self, flops: float) -> float:
        return self.mfu * throughput.peak_flops(self.gpu) / flops

    def _row(self, stage: str, epochs: int, flops: float, rate: float, images: int, how: str, read: int) -> dict:
        """read: how many images are read for the `images` that are worked on."""
        total = rate * self.processes
        row = {"stage": stage, "epochs": epochs, "GFLOP an image": flops / 1e9, "images/s": total}
        slower = total
        if self.reading:
            row["read/s"] = self.reading.rate * images / read
            slower = min(total, row["read/s"])
        return row | {"hours": images / slower / 3600, "how": how}
