"""Model FLOPs utilisation (MFU): the FLOPs that training needs an image, by what the GPUs could do in that time.

FLOPs are those of matrix products and convolutions, two a multiply-add. A trained layer needs them three times:
forward, for the gradient of its input and for that of its weights; a frozen one under a trained decoder once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..config import schema as cfg
from ..errors import UserError
from .vit import costs_by_depth

TERA = 1e12
SMALL_STEP = 5e9  # FLOPs
# bfloat16 on tensor cores, dense, accumulated in float32, TFLOP/s, by torch's name of the device without "NVIDIA ":
# the vendor's data sheets (without sparsity: half of what they print with it).
PEAK_TFLOPS = {
    "H100 80GB HBM3": 989.4,  # SXM
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H200": 989.4,
    **dict.fromkeys(("A100-SXM4-80GB", "A100-SXM4-40GB", "A100 80GB PCIe", "A100-PCIE-40GB"), 312.0),
    "L40S": 362.05,
    "GeForce RTX 4090": 165.2,
    # no bfloat16: float16
    **dict.fromkeys(("Tesla V100-SXM2-32GB", "Tesla V100-SXM2-16GB", "Tesla V100-SXM3-32GB"), 125.0),
    **dict.fromkeys(("Tesla V100-PCIE-32GB", "Tesla V100-PCIE-16GB"), 112.0),
}


def training_flops(model: cfg.Model, n_outputs: int, frozen_depth: int = 0) -> int:
    """FLOPs an image of one training step of one network, its first `frozen_depth` depths frozen."""
    forward = costs_by_depth(model, n_outputs)[1]
    return sum(forward[:frozen_depth]) + 3 * sum(forward[frozen_depth:])


def is_small(config: cfg.Config, n_classes: int) -> bool:
    """Whether a plain network's training step is so small that a second thread gains less than a second process does.

    On the digits (3.8 GFLOP a step) two threads take 1.0 to 1.2 of one thread's time in Stage 0 and 0.7 to 0.9 after it.
    """
    return training_flops(config.model, n_classes) * config.recipe.batch_size < SMALL_STEP


def passes(flops: float, model: cfg.Model, n_classes: int, images: int) -> float:
    """FLOPs in forwards and backwards of one plain network over so many images; a training of E epochs takes E of them."""
    return flops / training_flops(model, n_classes) / images


@contextlib.contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Counts FLOPs inside, attention's too, which has no count in the fused form that CPUs run."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def step_flops(network: nn.Module, losses_of, image_shape: tuple[int, int, int], device: torch.device) -> float:
    """FLOPs an image of a step's forward and backward passes, counted over two black images; gradients are dropped."""
    images, labels = torch.zeros(2, *image_shape, device=device), torch.zeros(2, dtype=torch.int64, device=device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), counted() as counter:
        sum(losses_of(images, labels).values()).backward()
    network.zero_grad()
    return counter.get_total_flops() / 2


def device_name(device: torch.device | str) -> str | None:
    """Torch's name of a GPU; None for a CPU."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None


def peak_flops(name: str | None) -> float | None:
    """FLOP/s a GPU could do at most (PEAK_TFLOPS); None where it is not known, for a part of a GPU, and for a CPU."""
    tera = PEAK_TFLOPS.get((name or "").removeprefix("NVIDIA "))
    return tera * TERA if tera else None


def known_gpu(words: str) -> str:
    """The first GPU of PEAK_TFLOPS that has all of these words in its name. Raises UserError, naming those there are."""
    for name in PEAK_TFLOPS:
        if words and all(word in name.lower() for word in words.lower().split()):
            return f"NVIDIA {name}"
    raise UserError(f"GPU '{words}': its peak is not known here; known: {', '.join(PEAK_TFLOPS)}")


def mfu(images_per_second: float, flops_per_image: float, name: str | None, processes: int = 1) -> float | None:
    """Share (0..1) of the peak of `processes` GPUs of this name; None where the peak is not known."""
    peak = peak_flops(name)
    return images_per_second * flops_per_image / (processes * peak) if peak else None


def summary_line(
    images: int, seconds: float, waiting_seconds: float, flops_per_image: float, device: torch.device | str, processes: int = 1
) -> str:
    """The end of a stage in words: images/s of all processes together, share of the time waiting for data, MFU on a GPU.

    images: of all processes; seconds and waiting_seconds: of one process.
    """
    rate, name = images / max(seconds, 1e-9), device_name(device)
    parts = [f"{rate:.0f} images/s", f"{100 * waiting_seconds / max(seconds, 1e-9):.0f} % of the time waiting for data"]
    if name:
        share = mfu(rate, flops_per_image, name, processes)
        what = f"{processes} x {name}" if processes > 1 else name
        parts.append(f"MFU {100 * share:.0f} % of {what}" if share else f"MFU not known for {what}")
    return ", ".join(parts)
