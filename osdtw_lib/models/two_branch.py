"""The two-branch network: a shared encoder, then a decoder a task (section 4.1)."""

from __future__ import annotations

import torch
from torch import nn

from .vit import ViT, decode, depth_of, encode, n_depths


def share_encoder(source: ViT, target: ViT, depth: int) -> None:
    """The first `depth` depths of target become those of source: the very same modules."""
    if depth:
        for name in ("patch_embed", "norm_pre", "pos_embed", "cls_token", "reg_token"):
            setattr(target, name, getattr(source, name))
        for i in range(depth):
            target.blocks[i] = source.blocks[i]


class TwoBranchViT(nn.Module):
    """Two networks that are one up to `shared_depth` (Eq. 15): h = encoder(x), s^A = psi^A(h), s^B = psi^B(h).

    The first `shared_depth` depths of `tail` are replaced by those of `head`, so a parameter exists once.
    forward: images -> {"head": logits (B, K_A), "tail": logits (B, K_B)}.
    """

    def __init__(self, head: ViT, tail: ViT, shared_depth: int):
        super().__init__()
        if not 0 <= shared_depth <= n_depths(head):
            raise ValueError(f"shared_depth is 0..{n_depths(head)} for this model, got {shared_depth}")
        self.head, self.tail, self.shared_depth, self.frozen = head, tail, shared_depth, False
        share_encoder(head, tail, shared_depth)

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
