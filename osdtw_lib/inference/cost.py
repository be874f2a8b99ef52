"""What a prediction costs: parameters, FLOPs and time an image, beside one network of the same architecture and two."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from ..methods.osdtw import two_branches
from ..models.flops import counted

BATCHES = (1, 32)
ROUNDS = 15  # at most, and at least LEAST; no more once SECONDS are over
LEAST, SECONDS = 3, 5.0


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
    single, two = problem.vit(problem.n_classes).eval(), two_branches(problem, 0).eval()
    runs: dict[str, Callable] = {f"{title}, ONNX Runtime": _session(onnx), title: model, "one network": single}
    runs["two networks"] = two
    sizes = {"one network": _parameters(single), "two networks": _parameters(two)}
    flops = {name: _flops(network, predictor) for name, network in runs.items() if isinstance(network, nn.Module)}
    times = {batch: _milliseconds(runs, torch.randn(batch, predictor.channels, *predictor.size)) for batch in BATCHES}
    networks = [
        Network(name, sizes.get(name, parameters), flops.get(name, flops[title]), {b: ms[name] for b, ms in times.items()})
        for name in runs
    ]
    return Cost(networks, machine())


def _session(path: Path) -> Callable[[Tensor], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def _flops(network: nn.Module, predictor) -> int:
    with counted() as counter:
        network(torch.zeros(1, predictor.channels, *predictor.size))
    return counter.get_total_flops()


@torch.inference_mode()
def _milliseconds(runs: dict[str, Callable], images: Tensor) -> dict[str, float]:
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


def machine() -> str:
    """The processor by name and the threads that are used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    threads = torch.get_num_threads()
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {threads} thread{'s' if threads > 1 else ''}, PyTorch {torch.__version__}"
