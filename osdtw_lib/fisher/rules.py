"""The diagonal Fisher's rules, one a layer type: from a layer's input and its output's gradient to sums of squares.

A rule is all that a new layer type needs; a parameter without one is taken one sample at a time (fisher.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backend.timm_import import timm
from .sums import add_squared_norms, add_squared_products, add_squared_sums

Rule = Callable[[nn.Module, Tensor, Tensor, dict[str, Tensor], int], None]
RULES: dict[type, tuple[Rule, Callable[[nn.Module], bool]]] = {}


def rule(*types: type, valid: Callable[[nn.Module], bool] = lambda module: True):
    """Register a rule for layer types: rule(module, x, g, sums, buffer_bytes) adds this batch's squares to sums."""

    def register(function: Rule) -> Rule:
        RULES.update({t: (function, valid) for t in types})
        return function

    return register


@rule(nn.Linear)
def _linear(module: nn.Linear, x: Tensor, g: Tensor, sums: dict[str, Tensor], buffer_bytes: int) -> None:
    x, g = _tokens(x), _tokens(g)  # (B, T, in), (B, T, out)
    if "bias" in sums:
        add_squared_sums(sums["bias"], g)
    if "weight" in sums:
        add_squared_products(sums["weight"], g, x, buffer_bytes)


@rule(nn.Conv2d, valid=lambda m: m.groups == 1 and m.padding_mode == "zeros" and not isinstance(m.padding, str))
def _conv2d(module: nn.Conv2d, x: Tensor, g: Tensor, sums: dict[str, Tensor], buffer_bytes: int) -> None:
    g = g.flatten(2).transpose(1, 2)  # (B, places, out)
    if "bias" in sums:
        add_squared_sums(sums["bias"], g)
    if "weight" in sums:
        patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride).transpose(1, 2)
        add_squared_products(sums["weight"].view(module.out_channels, -1), g, patches, buffer_bytes)


@rule(nn.LayerNorm, timm.layers.LayerNorm, valid=lambda m: len(m.normalized_shape) == 1)
def _layer_norm(module: nn.LayerNorm, x: Tensor, g: Tensor, sums: dict[str, Tensor], buffer_bytes: int) -> None:
    if "weight" in sums:
        add_squared_norms(sums["weight"], sums.get("bias"), _tokens(g), _tokens(x), module.eps)


@rule(timm.layers.RmsNorm, valid=lambda m: len(m.normalized_shape) == 1)
def _rms_norm(module: nn.Module, x: Tensor, g: Tensor, sums: dict[str, Tensor], buffer_bytes: int) -> None:
    normalized = F.rms_norm(in_single(x), module.normalized_shape, None, module.eps)
    add_squared_sums(sums["weight"], _tokens(g), _tokens(normalized))


@rule(timm.models.vision_transformer.LayerScale, valid=lambda m: not m.inplace)
def _layer_scale(module: nn.Module, x: Tensor, g: Tensor, sums: dict[str, Tensor], buffer_bytes: int) -> None:
    add_squared_sums(sums["gamma"], _tokens(g), _tokens(x))


# Parameters no module call sees: (1, tokens, width), or (width,) that scales tokens, broadcast over the batch. Expanded to
# one copy a sample, where the module takes them as they are; a position embedding that is resampled to the image's size
# has to stay one.
EXPANDED = (
    *(
        (network, name, whole)
        for network in (timm.models.vision_transformer.VisionTransformer, timm.models.eva.Eva)
        for name, whole in (
            ("pos_embed", lambda m: not m.dynamic_img_size),
            ("cls_token", lambda m: True),
            ("reg_token", lambda m: True),
        )
    ),
    (timm.models.eva.EvaBlock, "gamma_1", lambda m: True),
    (timm.models.eva.EvaBlock, "gamma_2", lambda m: True),
    (timm.layers.AttentionPoolLatent, "latent", lambda m: True),
    (timm.layers.AttentionPoolLatent, "pos_embed", lambda m: True),
)


def has_bias_apart(module: nn.Module) -> bool:
    """Whether an attention adds biases of its own, to queries and values alone, to what one layer makes of the tokens."""
    return isinstance(module, timm.models.eva.EvaAttention) and module.qkv is not None and module.q_bias is not None


def _tokens(x: Tensor) -> Tensor:
    """(B, ..., D) -> (B, T, D)."""
    return x if x.ndim == 3 else x.reshape(len(x), -1, x.shape[-1])


def in_single(x: Tensor) -> Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
