"""One loop for every stage and baseline: schedule, mixed precision, progress, checkpoints that resume exactly."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import nn

from ..artifacts.background import Background
from ..artifacts.checkpoint import Checkpoint
from ..backend import distributed
from ..backend.gradients import Gradients
from ..backend.progress import Progress
from ..backend.torch_compile import OneSize
from ..config.schema import Recipe
from ..data.augment import seed_of
from ..data.batches import Batches
from ..errors import DivergedError
from ..models.flops import summary_line
from ..models.vit import parameter_depths
from ..models.weights import load_weights, weights
from .optimizer import learning_rate, parameter_groups
from .phase import Phase, backward

CHECKPOINT_SECONDS = 2.0  # a checkpoint is written at an epoch's end, but not more often than this, nor than its cost allows


def fit(
    model: nn.Module,
    phase: Phase,
    batches: Batches,
    recipe: Recipe,
    checkpoint: Checkpoint,
    seed: int,
    label: str,
    flops_per_image: float = 0.0,
) -> pd.DataFrame:
    """Train `model` in place; its frozen parameters (requires_grad False) stay as they are.

    phase: its losses, whose sum is minimised and each of which is recorded, and its length; batches and recipe are what it asked
    for. A network that `model` holds has the layer-wise learning-rate decay. flops_per_image: of forward and backward, for
    the line at the end. In several processes each works through its parts of every batch and the gradients are summed,
    so that all hold the same weights. Returns the history, a row an epoch: epoch, learning_rate and the mean of each loss.
    A run that was killed goes on from `checkpoint`; on a CPU it ends bit for bit as one that was not.
    Raises DivergedError where a loss is no longer finite.
    """
    length = phase.length
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = parameter_groups(model, recipe, parameter_depths(model))
    if phase.momentum is None:
        optimizer = torch.optim.AdamW(groups, betas=recipe.betas, fused=True)
    else:
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=phase.momentum)
    peak = length.learning_rate or recipe.learning_rate
    found = checkpoint.load()
    history = _restore(model, optimizer, *found) if found else []
    distributed.copy_from_first(weights(model).values())  # random numbers may differ between kinds of processors
    checkpoint.require_room(sum(t.nbytes for t in _tensors(model, optimizer).values()) + 8 * sum(p.numel() for p in trained))
    progress = Progress(label, length.epochs, len(batches.labels), done=len(history))
    waited = batches.waited
    on_gpu, as_compiled = _cuda_devices(model), OneSize(recipe.compile)
    seeded = torch.manual_seed if on_gpu else torch.default_generator.manual_seed  # the first asks every kind of accelerator
    with torch.random.fork_rng(devices=on_gpu), Background(checkpoint) as saved, Gradients(trained) as gradients:
        for epoch in range(len(history), length.epochs):
            _training(model)
            sums: dict[str, torch.Tensor] = {}
            for step, parts in enumerate(batches.epoch(epoch)):
                rate = learning_rate(epoch + step / len(batches), length, peak, recipe.final_learning_rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["scale"]
                optimizer.zero_grad()
                for part in gradients.parts(parts):
                    seeded(seed_of(seed, epoch, step, part.number))
                    with as_compiled(len(part.labels)):
                        losses = backward(phase, model, part, recipe.precision)
                    for name, loss in losses.items():
                        sums[name] = sums.get(name, 0.0) + loss.double() * len(part.labels)
                gradients.sum()
                optimizer.step()
                if phase.after_step:
                    phase.after_step(model)
                progress.step(min(batches.batch_size, len(batches.labels) - step * batches.batch_size))
            distributed.require_alike(f"{label}, epoch {epoch + 1}", trained)
            row = _means(sums, len(batches.labels))
            if not all(math.isfinite(loss) for loss in row.values()):
                raise DivergedError(f"{label}: the loss is not finite in epoch {epoch + 1} ({row}); lower the learning rate")
            history.append({"epoch": epoch + 1, "learning_rate": rate, **row})
            progress.epoch(row)
            if distributed.rank() == 0 and epoch + 1 < length.epochs and saved.due(CHECKPOINT_SECONDS):
                saved.save(_tensors(model, optimizer), {"history": list(history)})
    if flops_per_image and progress.images:
        spent = progress.images, progress.seconds, batches.waited - waited
        print(f"{label}: {summary_line(*spent, flops_per_image, trained[0].device, distributed.world_size())}", flush=True)
    model.eval()
    return pd.DataFrame(history)


def _training(model: nn.Module) -> None:
    """Training mode, but for the modules that are frozen: they are a fixed function."""
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()


def _means(sums: dict[str, torch.Tensor], images: int) -> dict[str, float]:
    """The mean losses over all processes' images; one that had no part of the epoch learns their names from the first."""
    names = distributed.from_first(list(sums))
    together = [torch.as_tensor(sums.get(name, 0.0), dtype=torch.float64) for name in names]
    distributed.sum_over_processes(together, 0)
    return {name: float(total) / images for name, total in zip(names, together)}


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What a checkpoint holds: weights and the optimizer's moments. All that is random follows from the seed."""
    tensors = {f"model.{name}": t for name, t in weights(model).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": t for name, t in state.items()}
    return tensors


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict, state: dict) -> list[dict]:
    load_weights(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    slots: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, slot = name.split(".")
            slots.setdefault(int(i), {})[slot] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return state["history"]


def _cuda_devices(model: nn.Module) -> list:
    return [p.device for p in list(model.parameters())[:1] if p.is_cuda]
