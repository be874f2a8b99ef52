"""The timm VisionTransformer, its division into depths, and the two-branch network.

Depth C = 0 shares nothing; C >= 1 shares the patch, position and class-token embedding and the first C
blocks. The final norm and the head always belong to the decoder.
"""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import schema as cfg
from ..backend.timm_import import timm
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


class TwoBranchViT(nn.Module):
    """Two networks that are one up to `shared_depth` (Eq. 15): h = encoder(x), s^A = psi^A(h), s^B = psi^B(h).

    The first `shared_depth` depths of `tail` are replaced by those of `head`, so a parameter exists once.
    forward: images -> {"head": logits (B, K_A), "tail": logits (B, K_B)}.
    """

    def __init__(self, head: VisionTransformer, tail: VisionTransformer, shared_depth: int):
        super().__init__()
        if not 0 <= shared_depth <= n_depths(head):
            raise ValueError(f"shared_depth is 0..{n_depths(head)} for this model, got {shared_depth}")
        self.head, self.tail, self.shared_depth, self.frozen = head, tail, shared_depth, False
        if shared_depth:
            for name in ("patch_embed", "norm_pre", "pos_embed", "cls_token", "reg_token"):
                setattr(tail, name, getattr(head, name))
            for i in range(shared_depth):
                tail.blocks[i] = head.blocks[i]

    def depths(self) -> dict[str, int]:
        """`depth_of` each branch's parameters, under this module's names."""
        branches = {"head": depth_of(self.head), "tail": depth_of(self.tail)}
        names = (name for name, _ in self.named_parameters())
        return {name: branches[name.split(".")[0]][name.split(".", 1)[1]] for name in names}

    def encoder_parameters(self) -> dict[str, nn.Parameter]:
        depths = depth_of(self.head)
        return {n: p for n, p in self.head.named_parameters() if depths[n] <= self.shared_depth}

    def freeze_encoder(self) -> None:
        """The shared encoder as a fixed function: no gradients, and evaluation mode also while the decoders train."""
        for parameter in self.encoder_parameters().values():
            parameter.requires_grad_(False)
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.frozen and self.shared_depth:
            for module in (self.head.patch_embed, self.head.norm_pre, *self.head.blocks[: self.shared_depth]):
                module.eval()
        return self

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = encode(self.head, images, self.shared_depth)
        return {t: decode(vit, hidden, self.shared_depth) for t, vit in (("head", self.head), ("tail", self.tail))}


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


def copy_encoder(source: VisionTransformer, target: VisionTransformer, depth: int) -> None:
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
