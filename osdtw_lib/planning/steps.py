"""What a training step of each stage takes: FLOPs and memory, counted without running it, and time, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from .. import methods
from ..backend import gpus
from ..backend.torch_compile import compile_networks
from ..config.schema import Config
from ..errors import UserError
from ..methods import osdtw
from ..methods._base import Problem
from ..models.masked_autoencoder import MaskedAutoencoder
from ..models.vit import ViT, build_vit, without_memory
from ..stages.start import painting
from ..training.phase import Phase, backward, in_turn, means

STEP_FLOPS = 2e11  # a measured step on a CPU does about so many: some seconds
MEASURED_SECONDS, MEASURED_STEPS = 2.0, 5


@dataclass(frozen=True)
class Step:
    """A training: the network, and the phase it is trained by; for how many epochs in all."""

    name: str
    epochs: int
    build: Callable[[], nn.Module]
    phase: Phase

    def prepared(self) -> nn.Module:
        return self.phase.prepared(self.build())

    @cached_property
    def flops(self) -> float:
        """An image's, of a training step: forward, and backward where there is something to train. No memory is taken."""
        with without_memory():
            network = self.prepared().train()
            images, labels = synthetic(network, 1, "meta")
            seen = self.phase.seen(network, images)
        with FlopCounterMode(display=False) as counter:
            self.loss(network, seen, labels).backward()
        return counter.get_total_flops()

    def loss(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What a step minimises, of images as the loss is given them."""
        return sum(means(self.phase, network, self.phase.part_of(images, labels)).values())


def steps_of(config: Config, n_classes: int, device: torch.device | str = "cpu") -> list[Step]:
    """Every training of a run by the phases that its stages train, for classes of equal size: what each has hardly matters.

    device: where the losses' constants are, as where a step is to run: a copy in each would wait for a GPU.

    Methods whose steps cost the same are one step.
    """

    def vit(n_outputs: int) -> ViT:
        return build_vit(config.model, n_outputs, config.recipe.drop_path)

    problem = Problem(config, tuple(map(str, range(n_classes))), np.ones(n_classes, dtype=np.int64), vit, torch.device(device))
    depth, joint = config.selection.shared_depth or 0, osdtw.joint(problem, 0.5)
    steps = [
        Step("stage1", config.stage1.epochs, lambda: osdtw.two_networks(problem), osdtw.alone(problem)),
        Step("stage2", joint.length.epochs, lambda: osdtw.two_branches(problem), joint),
        Step("stage3", config.stage3.epochs, lambda: osdtw.two_branches(problem, depth), osdtw.refine(problem)),
    ]
    if config.model.init == "masked_autoencoding":
        stage0 = config.stage0
        steps.insert(0, Step("start", stage0.epochs, lambda: MaskedAutoencoder(vit(1), stage0), painting(stage0)))
    return steps + _of_methods(config, problem)


def _of_methods(config: Config, problem: Problem) -> list[Step]:
    """A step for every phase of the methods asked for, the phases that cost the same together."""
    alike: dict[float, list[tuple[str, Step]]] = {}
    for name, (kind, parameters) in methods.asked(config).items():
        method = kind(problem, parameters)
        for phase in method.phases():
            step = Step("baselines", phase.length.epochs, method.build, phase)
            alike.setdefault(step.flops, []).append((name, step))
    steps: dict[str, Step] = {}
    for found in alike.values():
        phase = found[0][1].phase
        label = "baselines" if len(alike) == 1 else f"baselines ({', '.join(dict.fromkeys(name for name, _ in found))})"
        if label in steps:  # one more phase of the same methods
            label = f"{label}, {phase.name.replace('_', ' ')}"
        steps[label] = Step(label, sum(step.epochs for _, step in found), found[0][1].build, phase)
    return list(steps.values())


def synthetic(network: nn.Module, size: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """`size` images of the shape the network takes, and labels."""
    embed = next(module for module in network.modules() if isinstance(module, ViT)).patch_embed
    shape = (size, embed.proj.in_channels, *embed.img_size)
    return torch.randn(shape, device=device), torch.zeros(size, dtype=torch.int64, device=device)


# memory ---------------------------------------------------------------------------------------------------------


def memory_of(step: Step, config: Config, micro: int, measured: Measured | None) -> dict:
    """GB of weights, gradients and AdamW's moments, by the numbers of parameters, and of what autograd keeps of a part.

    On tensors that have shapes and no contents: nothing is computed, no memory is taken.
    """
    with without_memory():
        network = step.prepared().train()
    everything = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = network.to_empty(device="cpu")
        one, two = (_kept(step, network, config, size) for size in (1, 2))  # what does not grow: casts of the weights
    parts = {
        "weights": 4 * everything,
        "gradients": 4 * trained,
        "moments": 8 * trained,
        f"activations of {micro} images": one + (micro - 1) * (two - one),
    }
    row = {"stage": step.name, "million parameters": everything / 1e6} | {name: size / 1e9 for name, size in parts.items()}
    row["sum, computed"] = sum(parts.values()) / 1e9
    if measured and measured.peak_bytes:
        row |= {"peak, measured": measured.peak_bytes / 1e9, "at images": measured.size}
    return row


def _kept(step: Step, network: nn.Module, config: Config, size: int) -> int:
    """Bytes autograd keeps from a forward pass over `size` images for its backward pass, parameters aside; of losses that are
    taken one after the other, the most."""
    images, labels = synthetic(network, size, "cpu")
    images = step.phase.seen(network, images)
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    most, part = 0, step.phase.part_of(images, labels)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for _ in in_turn(step.phase, network, part, config.recipe.precision):
            most = max(most, sum(storage.nbytes() for storage in kept.values()))
            kept.clear()
    return most


@dataclass(frozen=True)
class Measured:
    size: int  # images of the measured step
    seconds: float
    peak_bytes: int = 0  # a GPU's


def measure(step: Step, config: Config, micro: int, device: torch.device) -> Measured:
    """A training step with AdamW: on a GPU at `micro` images, or as many of them as fit; on a CPU at few images."""
    size = micro if device.type == "cuda" else max(1, min(micro, max(2, int(STEP_FLOPS / step.flops))))
    while True:
        try:
            return _timed(step, config, size, device)
        except RuntimeError as error:
            if not gpus.is_full(error):
                raise
            if size == 1:
                raise UserError(f"plan: {step.name} does not fit in this GPU's memory even with one image at a time") from None
            print(f"{step.name}: {size} images at a time do not fit in this GPU's memory; lower recipe.micro_batch", flush=True)
            size //= 2


def _timed(step: Step, config: Config, size: int, device: torch.device) -> Measured:
    network = step.prepared().to(device).train()
    if config.recipe.compile and device.type == "cuda":
        compile_networks(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6, fused=True)
    images, labels = synthetic(network, size, device)
    part = step.phase.part_of(step.phase.seen(network, images), labels)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def run() -> None:
        backward(step.phase, network, part, config.recipe.precision)
        optimizer.step()
        optimizer.zero_grad()

    seconds = seconds_of(run, device)
    return Measured(size, seconds, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
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
