"""One loop for every stage and baseline: schedule, mixed precision, progress, checkpoints that resume exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from .artifacts import Checkpoint
from .config import Recipe, Training
from .batches import Batches
from .errors import UserError
from .progress import Progress
from .vit import load_weights, weights

CHECKPOINT_SECONDS = 2.0  # a checkpoint is written at an epoch's end, but not more often than this


def fit(
    model: nn.Module,
    losses_of: Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]],
    batches: Batches,
    recipe: Recipe,
    length: Training,
    depths: dict[str, int],
    checkpoint: Checkpoint,
    seed: int,
    label: str,
) -> pd.DataFrame:
    """Train `model` in place; its frozen parameters (requires_grad False) stay as they are.

    losses_of(images, labels) -> {name: scalar}: their sum is minimised, each is recorded.
    depths: {parameter name: depth} for the layer-wise learning-rate decay.
    Returns the history, a row an epoch: epoch, learning_rate and the mean of each loss.
    A run that was killed goes on from `checkpoint`; on a CPU it ends bit for bit as one that was not.
    Raises UserError where a loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(_groups(model, recipe, depths), betas=recipe.betas, fused=True)
    peak = length.learning_rate or recipe.learning_rate
    history: list[dict] = []
    with torch.random.fork_rng(devices=_cuda_devices(model)):
        torch.manual_seed(seed)
        saved = checkpoint.load()
        if saved:
            history = _restore(model, optimizer, *saved)
        progress = Progress(label, length.epochs, len(batches.labels), done=len(history))
        last_saved = time.monotonic()
        for epoch in range(len(history), length.epochs):
            model.train()
            sums: dict[str, float] = {}
            for step, (images, labels) in enumerate(batches.epoch(epoch)):
                rate = learning_rate(epoch + step / len(batches), length, peak, recipe.final_learning_rate)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["scale"]
                with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    losses = losses_of(images, labels)
                optimizer.zero_grad()
                sum(losses.values()).backward()
                optimizer.step()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + loss.detach() * len(labels)
                progress.step(len(labels))
            row = {name: float(total) / len(batches.labels) for name, total in sums.items()}
            if not all(math.isfinite(loss) for loss in row.values()):
                raise UserError(f"{label}: the loss is not finite in epoch {epoch + 1} ({row}); lower the learning rate")
            history.append({"epoch": epoch + 1, "learning_rate": rate, **row})
            progress.epoch(row)
            if time.monotonic() - last_saved >= CHECKPOINT_SECONDS and epoch + 1 < length.epochs:
                _save(checkpoint, model, optimizer, history)
                last_saved = time.monotonic()
    model.eval()
    return pd.DataFrame(history)


def learning_rate(epoch: float, length: Training, peak: float, final: float) -> float:
    """Linear warm-up, then half a cosine down to `final`; `epoch` is fractional."""
    if epoch < length.warmup_epochs:
        return peak * epoch / length.warmup_epochs
    progress = (epoch - length.warmup_epochs) / max(length.epochs - length.warmup_epochs, 1e-9)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _groups(model: nn.Module, recipe: Recipe, depths: dict[str, int]) -> list[dict]:
    """Parameter groups: layer decay by depth; no weight decay on vectors, tokens and position embedding."""
    last = max(depths.values())
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        flat = parameter.ndim <= 1 or name.split(".")[-1] in ("pos_embed", "cls_token", "reg_token")
        scale = recipe.layer_decay ** (last - depths[name])
        decay = 0.0 if flat else recipe.weight_decay
        key = (scale, decay)
        groups.setdefault(key, {"params": [], "scale": scale, "weight_decay": decay})["params"].append(parameter)
    return list(groups.values())


def _save(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[dict]) -> None:
    tensors = {f"model.{name}": t for name, t in weights(model).items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": t for name, t in state.items()}
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    checkpoint.save(tensors, {"history": history})


def _restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict, state: dict) -> list[dict]:
    load_weights(model, {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    slots: dict[int, dict] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, slot = name.split(".")
            slots.setdefault(int(i), {})[slot] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return state["history"]


def _cuda_devices(model: nn.Module) -> list:
    return [p.device for p in list(model.parameters())[:1] if p.is_cuda]
