"""What a training step of each stage takes: FLOPs and memory, counted without running it, and time, measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..config.schema import Config
from ..errors import UserError
from ..longtail import TASKS
from ..models.likelihoods import Bernoulli
from ..models.masked_autoencoder import MaskedAutoencoder
from ..models.two_branch import TwoBranchViT
from ..models.vit import VisionTransformer, build_vit, costs_by_depth, n_depths

STEP_FLOPS = 2e11  # a measured step on a CPU does about so many: some seconds
MEASURED_SECONDS, MEASURED_STEPS = 2.0, 5


@dataclass(frozen=True)
class Step:
    """A stage's training: what is trained, its loss a batch, for how many epochs in all; `frozen` blocks run forward only."""

    name: str
    epochs: int
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
    frozen: int = 0


def steps_of(config: Config, n_classes: int) -> list[Step]:
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
        return sum(negative_log_likelihood(logits, labels) for logits in network(images).values())

    def apart(networks, images, labels):
        return sum(negative_log_likelihood(network(images), labels) for network in networks.values())

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
        def single(network, images, labels):
            return negative_log_likelihood(network(images), labels)

        steps.append(Step("baselines", epochs, lambda: vit(n_classes), single))
    if model.init == "masked_autoencoding":
        stage0 = config.stage0
        steps.insert(0, Step("start", stage0.epochs, lambda: MaskedAutoencoder(vit(), stage0), painting))
    return steps


def negative_log_likelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    n = logits.shape[1]
    return -Bernoulli(torch.arange(n), torch.zeros(n))(logits, labels).mean()


def flops_of(step: Step, config: Config) -> float:
    """FLOPs an image of a training step: three times the forward pass, once where it is frozen. No memory is taken."""
    with torch.device("meta"):
        network = step.build()
        images, labels = synthetic(network, 1, "meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            step.loss(network, images, labels)
    frozen = sum(costs_by_depth(config.model, 1)[1][: step.frozen]) if step.frozen else 0
    return 3 * counter.get_total_flops() - 2 * frozen


def synthetic(network: nn.Module, size: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """`size` images of the shape the network takes, and labels."""
    embed = next(module for module in network.modules() if isinstance(module, VisionTransformer)).patch_embed
    shape = (size, embed.proj.in_channels, *embed.img_size)
    return torch.randn(shape, device=device), torch.zeros(size, dtype=torch.int64, device=device)


# memory ---------------------------------------------------------------------------------------------------------


def memory_of(step: Step, config: Config, micro: int, measured: Measured | None) -> dict:
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
    row["sum, computed"] = sum(parts.values()) / 1e9
    if measured and measured.peak_bytes:
        row |= {"peak, measured": measured.peak_bytes / 1e9, "at images": measured.size}
    return row


def _kept(step: Step, network: nn.Module, config: Config, size: int) -> int:
    """Bytes autograd keeps from a forward pass over `size` images for its backward pass, parameters aside."""
    images, labels = synthetic(network, size, "cpu")
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


@dataclass(frozen=True)
class Measured:
    size: int  # images of the measured step
    seconds: float
    peak_bytes: int = 0  # a GPU's


def measure(step: Step, config: Config, micro: int, device: torch.device) -> Measured:
    """A training step with AdamW: on a GPU at `micro` images, or as many of them as fit; on a CPU at few images."""
    size = micro if device.type == "cuda" else max(1, min(micro, max(2, int(STEP_FLOPS / flops_of(step, config)))))
    while True:
        try:
            return _timed(step, config, size, device)
        except torch.OutOfMemoryError:
            if size == 1:
                raise UserError(f"plan: {step.name} does not fit in this GPU's memory even with one image at a time") from None
            print(f"{step.name}: {size} images at a time do not fit in this GPU's memory; lower recipe.micro_batch", flush=True)
            size //= 2


def _timed(step: Step, config: Config, size: int, device: torch.device) -> Measured:
    network = step.build().to(device).train()
    loss = torch.compile(step.loss) if config.recipe.compile and device.type == "cuda" else step.loss
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6, fused=True)
    images, labels = synthetic(network, size, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def run() -> None:
        with _autocast(config, device.type):
            value = loss(network, images, labels)
        value.backward()
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
