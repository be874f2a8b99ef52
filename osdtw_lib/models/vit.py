"""The timm VisionTransformer, its division into depths, and the two-branch network.

Depth C = 0 shares nothing; C >= 1 shares the patch, position and class-token embedding and the first C
blocks. The final norm and the head always belong to the decoder.
"""

from __future__ import annotations

import difflib
import re

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..backend.timm_import import timm
from ..config import schema as cfg
from ..errors import UserError

VisionTransformer = timm.models.vision_transformer.VisionTransformer


def build_vit(model: cfg.Model, n_outputs: int, drop_path: float = 0.0) -> VisionTransformer:
    """A VisionTransformer with `n_outputs` logits and random weights; the head's as `model.head_init_std` says.

    Raises UserError for what timm refuses.
    """
    options = {
        "img_size": model.image_size,
        "patch_size": model.patch_size,
        "embed_dim": model.width,
        "depth": model.depth,
        "num_heads": model.heads,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if not timm.is_model(model.architecture):  # a name such as hf-hub:... would be fetched
        near, *_ = *difflib.get_close_matches(model.architecture, timm.list_models("vit_*"), n=1), "vit_base_patch16_224"
        raise UserError(f"model.architecture '{model.architecture}': timm has no such model; try {near}")
    try:
        vit = timm.create_model(
            model.architecture,
            num_classes=n_outputs,
            in_chans=model.channels,
            global_pool=model.pooling,
            class_token=model.class_token,
            drop_path_rate=drop_path,
            **options,
        )
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"model.architecture '{model.architecture}': timm cannot build it with {options}: {message}") from None
    if not isinstance(vit, VisionTransformer):
        raise UserError(f"model.architecture '{model.architecture}' is no timm VisionTransformer; try vit_base_patch16_224")
    if model.head_init_std:
        nn.init.trunc_normal_(vit.head.weight, std=model.head_init_std)
        nn.init.zeros_(vit.head.bias)
    return vit


def n_depths(vit: VisionTransformer) -> int:
    return len(vit.blocks)


def depth_of(vit: VisionTransformer) -> dict[str, int]:
    """For each parameter the depth from which on it is shared: 1..L, or L + 1 for the decoder alone."""
    return {name: _depth(name, n_depths(vit)) for name, _ in vit.named_parameters()}


def parameter_depths(module: nn.Module) -> dict[str, int]:
    """`depth_of` every parameter of a module that holds networks, under its own names; L + 1 for what is in none of them."""
    found, last = {}, 0
    for prefix, network in module.named_modules():
        if isinstance(network, VisionTransformer):
            last = max(last, n_depths(network))
            found |= {f"{prefix}.{name}".lstrip("."): depth for name, depth in depth_of(network).items()}
    return {name: found.get(name, last + 1) for name, _ in module.named_parameters()}


def _depth(name: str, last: int) -> int:
    block = re.match(r"blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    embedding = re.match(r"(patch_embed|pos_embed|cls_token|reg_token|norm_pre)(\.|$)", name)
    return 1 if embedding else last + 1


def embed(vit: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """images (B, channels, H, W) -> tokens before the first block (B, T, D)."""
    return vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))


def encode(vit: VisionTransformer, images: torch.Tensor, depth: int) -> torch.Tensor:
    """The first `depth` depths: images -> tokens (B, T, D); at depth 0 the images themselves."""
    if depth == 0:
        return images
    tokens = embed(vit, images)
    for block in vit.blocks[:depth]:
        tokens = block(tokens)
    return tokens


def decode(vit: VisionTransformer, hidden: torch.Tensor, depth: int) -> torch.Tensor:
    """What follows the first `depth` depths: tokens (images at depth 0) -> logits (B, outputs)."""
    tokens = embed(vit, hidden) if depth == 0 else hidden
    for block in vit.blocks[depth:]:
        tokens = block(tokens)
    return vit.forward_head(vit.norm(tokens))


def costs_by_depth(model: cfg.Model, n_outputs: int) -> tuple[list[int], list[int]]:
    """(parameters, FLOPs an image) of the depths 1..L and, last, of the decoder alone; no memory is taken for weights.

    FLOPs are those of matrix products and convolutions, two a multiply-add.
    """
    with torch.device("meta"), torch.no_grad():
        vit = build_vit(model, n_outputs).eval()
        images = torch.empty(1, model.channels, *vit.patch_embed.img_size)
        with FlopCounterMode(display=False) as counter:
            vit(images)
    last, counts = n_depths(vit), {name: sum(c.values()) for name, c in counter.get_flop_counts().items()}
    name = type(vit).__name__
    flops = [counts[f"{name}.blocks.{i}"] for i in range(last)]
    flops[0] += counts[f"{name}.patch_embed"]
    parameters = [0] * (last + 1)
    for parameter, depth in depth_of(vit).items():
        parameters[depth - 1] += vit.get_parameter(parameter).numel()
    return parameters, [*flops, counts["Global"] - sum(flops)]
