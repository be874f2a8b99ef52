"""The networks that can be divided, and their division into depths: timm's VisionTransformer and its Eva (EVA-02, DINOv3).

Depth C = 0 shares nothing; C >= 1 shares the patch, position, class-token and register embedding and the first C
blocks. The final norm and the head always belong to the decoder. An Eva's rotary positions follow from the grid
alone and have no parameters: every block is given them, on whichever side of the division it lies.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Iterator

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ..backend.timm_import import timm
from ..config import schema as cfg
from ..errors import UserError

VisionTransformer, Eva = timm.models.vision_transformer.VisionTransformer, timm.models.eva.Eva
ViT = VisionTransformer | Eva  # what can be divided


class TokensTogether(nn.Identity):
    """Each token's numbers side by side in memory: the patch embedding's convolution leaves them as far apart as there are
    patches, and every later operation would carry that on or copy (5 to 8 % of a training step on one core)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.contiguous()


def build_vit(model: cfg.Model, n_outputs: int, drop_path: float = 0.0) -> ViT:
    """A network with `n_outputs` logits and random weights; the head's as `model.head_init_std` says.

    Raises UserError for what timm refuses, and for what cannot be divided.
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
    if problem := _indivisible(vit):
        raise UserError(f"model.architecture '{model.architecture}' {problem}; try vit_base_patch16_224")
    if isinstance(vit, Eva) and model.init == "masked_autoencoding":
        raise UserError(
            f"model.architecture '{model.architecture}' is an Eva, and Stage 0 paints with a VisionTransformer alone; "
            "give a start in model.init: a file of weights, a timm pretrained tag, or scratch"
        )
    if isinstance(getattr(vit.patch_embed, "norm", None), nn.Identity):
        vit.patch_embed.norm = TokensTogether()
    if model.head_init_std:
        nn.init.trunc_normal_(vit.head.weight, std=model.head_init_std)
        nn.init.zeros_(vit.head.bias)
    return vit


def _indivisible(vit: torch.nn.Module) -> str:
    """In words, why a network cannot be divided into depths; nothing where it can."""
    if not isinstance(vit, ViT):
        return "is no timm VisionTransformer or Eva"
    for name, _ in vit.named_parameters(recurse=False):
        if not is_embedding(name):
            return f"has a parameter {name}, of which no depth is known"
    rope = getattr(vit, "rope", None)
    if list(rope.parameters() if rope is not None else ()):
        return "learns the rotary positions of all its blocks in one tensor, which cannot be shared up to a depth"
    if getattr(rope, "aug_active", False):
        return "draws its rotary positions anew at each call, so that encoder and decoder would not see the same"
    return ""


def n_depths(vit: ViT) -> int:
    return len(vit.blocks)


def image_size(vit: ViT) -> tuple[int, int]:
    """(height, width) of the images a network takes."""
    return tuple(vit.patch_embed.img_size)


def depth_of(vit: ViT) -> dict[str, int]:
    """For each parameter the depth from which on it is shared: 1..L, or L + 1 for the decoder alone."""
    return {name: _depth(name, n_depths(vit)) for name, _ in vit.named_parameters()}


def parameter_depths(module: nn.Module) -> dict[str, int]:
    """`depth_of` every parameter of a module that holds networks, under its own names; L + 1 for what is in none of them."""
    found, last = {}, 0
    for prefix, network in module.named_modules():
        if isinstance(network, ViT):
            last = max(last, n_depths(network))
            found |= {f"{prefix}.{name}".lstrip("."): depth for name, depth in depth_of(network).items()}
    return {name: found.get(name, last + 1) for name, _ in module.named_parameters()}


def _depth(name: str, last: int) -> int:
    block = re.match(r"blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return 1 if is_embedding(name) else last + 1


def is_embedding(name: str) -> bool:
    """Whether a parameter, of a network or of a module that holds it, comes before the first block."""
    return re.search(r"(^|\.)(patch_embed|pos_embed|cls_token|reg_token|norm_pre)(\.|$)", name) is not None


def embed(vit: ViT, images: torch.Tensor) -> torch.Tensor:
    """images (B, channels, H, W) -> tokens before the first block (B, T, D)."""
    tokens = vit._pos_embed(vit.patch_embed(images))
    tokens = tokens[0] if isinstance(vit, Eva) else vit.patch_drop(tokens)  # an Eva's: tokens, rotary positions
    return vit.norm_pre(tokens)


def through(vit: ViT, tokens: torch.Tensor, first: int, last: int | None = None) -> torch.Tensor:
    """tokens (B, T, D) after depth `first` -> after depth `last`, by default the deepest."""
    rotary = _rotary(vit)
    for block in vit.blocks[first:last]:
        tokens = block(tokens) if rotary is None else block(tokens, rope=rotary)
    return tokens


def _rotary(vit: ViT) -> torch.Tensor | None:
    """The rotary positions of the network's grid, as its own forward pass has them; None where it has none."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return None
    kept = hasattr(rope, "feat_shape") and not vit.dynamic_img_size
    return rope.get_embed() if kept else rope.get_embed(shape=list(vit.patch_embed.grid_size))


def encode(vit: ViT, images: torch.Tensor, depth: int) -> torch.Tensor:
    """The first `depth` depths: images -> tokens (B, T, D); at depth 0 the images themselves."""
    return through(vit, embed(vit, images), 0, depth) if depth else images


def decode(vit: ViT, hidden: torch.Tensor, depth: int) -> torch.Tensor:
    """What follows the first `depth` depths: tokens (images at depth 0) -> logits (B, outputs)."""
    tokens = through(vit, hidden if depth else embed(vit, hidden), depth)
    return vit.forward_head(vit.norm(tokens))


class _Undrawn(TorchFunctionMode):
    """Weights that take no memory are not drawn; torch would do it by definitions that load its whole compiler."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        drawing = function in (torch.Tensor.erfinv_, torch.Tensor.clamp_)
        return args[0] if drawing else function(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=64)
def outline(model: cfg.Model, n_outputs: int) -> ViT:
    """The network without memory for its weights, to be looked at: one for all that ask. Raises as build_vit."""
    with without_memory():
        return build_vit(model, n_outputs)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """What is made inside has shapes and no contents."""
    with torch.device("meta"), _Undrawn():
        yield


@functools.lru_cache(maxsize=64)
def costs_by_depth(model: cfg.Model, n_outputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(parameters, FLOPs an image) of the depths 1..L and, last, of the decoder alone; no memory is taken for weights.

    FLOPs are those of matrix products and convolutions, two a multiply-add.
    """
    vit = outline(model, n_outputs).eval()
    with torch.device("meta"), torch.no_grad():
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
    return tuple(parameters), (*flops, counts["Global"] - sum(flops))
