"""What a prediction costs: parameters, FLOPs and time an image, beside one network of the same architecture and two."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from ..methods.osdtw import two_branches
from ..models.flops import counted

MANY, SOME = 32, 4  # images at a time, beside one: the fewer where many would take PATIENCE seconds
PATIENCE = 2.0
ROUNDS = 15  # at most, and at least LEAST; no more once SECONDS are over
LEAST, SECONDS = 2, 5.0


@dataclass(frozen=True)
class Network:
    """flops: of an image's forward pass, two a multiply-add; milliseconds: {images at a time: an image}."""

    name: str
    parameters: int
    flops: int
    milliseconds: dict[int, float]

    @property
    def megaflops(self) -> str:
        return f"{self.flops / 1e6:,.{1 if self.flops >= 1e7 else 3}f}"


@dataclass(frozen=True)
class Cost:
    networks: list[Network]
    machine: str  # what it was measured on

    def lines(self) -> list[str]:
        """For a terminal."""
        return [
            f"{one.name}: {one.parameters:,} parameters, {one.megaflops} MFLOPs an image, "
            + ", ".join(f"{ms:.2f} ms an image ({batch} at a time)" for batch, ms in one.milliseconds.items())
            for one in self.networks
        ] + [f"measured on {self.machine}"]


def costs(model: nn.Module, predictor, parameters: int, onnx: Path) -> Cost:
    """model: normalised images -> scores; parameters: those that its scores depend on; onnx: the same model for ONNX Runtime."""
    problem, title = predictor.row.problem, predictor.row.title
    networks = {
        title: model,
        "one network": problem.vit(problem.n_classes).eval(),
        "two networks": two_branches(problem, 0).eval(),
    }
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()} | {title: parameters}
    flops = {name: _flops(network, predictor) for name, network in networks.items()}
    times: dict[str, dict[int, float]] = {}
    shape, larger = (predictor.channels, *predictor.size), None
    for runs in (networks, {f"{title}, ONNX Runtime": _session(onnx)}):  # apart: its threads go on waiting for work
        one = _milliseconds(runs, torch.randn(1, *shape))
        larger = larger or (MANY if MANY * max(one.values()) < 1e3 * PATIENCE else SOME)
        many = _milliseconds(runs, torch.randn(larger, *shape))
        times |= {name: {1: one[name], larger: many[name]} for name in runs}
    sizes[f"{title}, ONNX Runtime"], flops[f"{title}, ONNX Runtime"] = parameters, flops[title]
    return Cost([Network(name, sizes[name], flops[name], times[name]) for name in times], machine())


def _session(path: Path) -> Callable[[Tensor], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


@torch.no_grad()
def _flops(network: nn.Module, predictor) -> int:
    with counted() as counter:
        network(torch.zeros(1, predictor.channels, *predictor.size))
    return counter.get_total_flops()


@torch.inference_mode()
def _milliseconds(runs: Mapping[str, Callable], images: Tensor) -> dict[str, float]:
    """Milliseconds an image, the median of rounds in which each takes its turn, so that what else the machine does hits all."""
    for run in runs.values():
        run(images)
    found: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    for i in range(ROUNDS):
        if i >= LEAST and time.perf_counter() - begun > SECONDS:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run(images)
            found[name].append(1e3 * (time.perf_counter() - start) / len(images))
    return {name: median(times) for name, times in found.items()}


def processor() -> str:
    """Its name, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> str:
    """The processor by name and the threads that are used."""
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}, PyTorch {torch.__version__}"
