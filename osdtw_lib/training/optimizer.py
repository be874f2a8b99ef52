"""Parameter groups with layer decay, and the learning rate's course."""

from __future__ import annotations

import math

from torch import nn

from ..config.schema import Recipe, Training
from ..models.vit import is_embedding


def learning_rate(epoch: float, length: Training, peak: float, final: float) -> float:
    """Linear warm-up, then half a cosine down to `final`; `epoch` is fractional."""
    if epoch < length.warmup_epochs:
        return peak * epoch / length.warmup_epochs
    progress = (epoch - length.warmup_epochs) / max(length.epochs - length.warmup_epochs, 1e-9)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def parameter_groups(model: nn.Module, recipe: Recipe, depths: dict[str, int]) -> list[dict]:
    """Parameter groups: layer decay by depth, the embedding one step below the first block, as MAE's and LiVT's; no weight decay
    on vectors and the network's own tokens and position embedding (Stage 0's decoder has its own), and where a parameter has
    `undecayed` set; one that has `rate` set learns at so many times the others' rate."""
    last = max(depths.values())
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        flat = parameter.ndim <= 1 or name.split(".")[-1] in ("pos_embed", "cls_token", "reg_token")
        flat = flat or getattr(parameter, "undecayed", False)
        below = last - depths[name] + is_embedding(name)
        scale = recipe.layer_decay**below * getattr(parameter, "rate", 1.0)
        decay = 0.0 if flat else recipe.weight_decay
        key = (scale, decay)
        groups.setdefault(key, {"params": [], "scale": scale, "weight_decay": decay})["params"].append(parameter)
    return list(groups.values())
