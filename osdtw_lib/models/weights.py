"""Weights in and out of a network, and an encoder copied from one to another."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import UserError
from .vit import ViT, depth_of


def copy_encoder(source: ViT, target: ViT, depth: int) -> None:
    """Overwrite the first `depth` depths of target with those of source."""
    depths = depth_of(target)
    taken = dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if depths[name] <= depth:
                parameter.copy_(taken[name])


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and saved buffer once (a shared one under its first name): what goes into a file."""
    buffers = {n: b for n, b in module.named_buffers() if n in module.state_dict()}
    return {name: t.detach() for name, t in (dict(module.named_parameters()) | buffers).items()}


def load_weights(module: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Copy `weights` back, name by name. Raises UserError for a name or shape that does not fit."""
    own = weights(module)
    odd = sorted(own.keys() ^ tensors.keys()) + sorted(n for n in own.keys() & tensors if own[n].shape != tensors[n].shape)
    if odd:
        raise UserError(f"weights do not fit the model: {', '.join(odd[:5])}{' ...' if len(odd) > 5 else ''}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
    return module
