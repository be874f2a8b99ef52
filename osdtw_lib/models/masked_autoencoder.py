"""Stage 0: masked autoencoding (He et al. 2022) of the timm ViT, on the training images alone, without labels."""

from __future__ import annotations

import torch
from torch import nn

from ..backend.timm_import import timm
from ..config.schema import MaskedAutoencoding
from ..errors import UserError
from .vit import VisionTransformer, depth_of, n_depths


class MaskedAutoencoder(nn.Module):
    """Hide a share of the patches, encode the rest, let a small decoder paint the hidden ones.

    `encoder` is the ViT that every later stage starts from; its pooling and head are not touched.
    """

    def __init__(self, encoder: VisionTransformer, settings: MaskedAutoencoding):
        super().__init__()
        if settings.decoder_width % settings.decoder_heads or settings.decoder_width % 4:
            raise UserError(f"stage0.decoder_width {settings.decoder_width} is no multiple of 4 and of decoder_heads")
        if encoder.embed_dim % 4:
            raise UserError(f"model.width {encoder.embed_dim} is no multiple of 4, as masked autoencoding wants it")
        self.encoder, self.mask_ratio, self.normalize_patches = encoder, settings.mask_ratio, settings.normalize_patches
        depths = depth_of(encoder)
        for name, parameter in encoder.named_parameters():  # norm and head are the decoders' of later stages
            parameter.requires_grad_(depths[name] <= n_depths(encoder))
        patches, width = encoder.patch_embed.num_patches, settings.decoder_width
        self.n_visible = max(1, round(patches * (1 - settings.mask_ratio)))
        if self.n_visible >= patches:
            raise UserError(f"stage0.mask_ratio {settings.mask_ratio} hides none of the {patches} patches; raise it")
        self.patch_values = encoder.patch_embed.proj.weight[0].numel()  # channels * patch height * patch width
        with torch.no_grad():  # where a patch lies is known from the first step, not learned from noise
            encoder.pos_embed[:, -patches:] = _sine_positions(encoder, encoder.embed_dim)
        self.norm = nn.LayerNorm(encoder.embed_dim)
        self.into_decoder = nn.Linear(encoder.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_position = nn.Parameter(_sine_positions(encoder, width))
        block = timm.models.vision_transformer.Block
        blocks = [block(width, settings.decoder_heads, qkv_bias=True) for _ in range(settings.decoder_depth)]
        self.decoder = nn.Sequential(*blocks)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, self.patch_values))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean squared error on the hidden patches, a scalar; the mask comes from torch's random state."""
        target, painted, hidden = self.paint(images)
        # in each image as many are hidden: their places, in order, so that no shape depends on values
        places = hidden.byte().argsort(dim=1, descending=True, stable=True)[:, : hidden.shape[1] - self.n_visible]
        return ((painted - target) ** 2).mean(-1).gather(1, places).mean()

    def paint(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(target patches (B, P, values), painted patches, hidden (B, P) bool)."""
        vit = self.encoder
        tokens = vit._pos_embed(vit.patch_embed(images))  # (B, prefix + P, D)
        prefix, tokens = tokens.split([vit.num_prefix_tokens, tokens.shape[1] - vit.num_prefix_tokens], dim=1)
        order = torch.rand(tokens.shape[:2], device=images.device).argsort(1)  # (B, P)
        visible = order[:, : self.n_visible, None]
        seen = tokens.gather(1, visible.expand(-1, -1, tokens.shape[2]))  # (B, visible, D)
        encoded = self.norm(vit.blocks(vit.norm_pre(torch.cat([prefix, seen], dim=1))))[:, prefix.shape[1] :]
        encoded = self.into_decoder(encoded)
        full = self.mask_token.to(encoded.dtype).repeat(len(images), tokens.shape[1], 1)
        full = full.scatter(1, visible.expand(-1, -1, encoded.shape[2]), encoded)
        painted = self.out(self.decoder(full + self.decoder_position))
        hidden = torch.ones(tokens.shape[:2], dtype=torch.bool, device=images.device).scatter(1, visible[..., 0], False)
        return self.patches(images), painted.float(), hidden

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """images (B, channels, H, W) -> patches (B, P, channels * h * w), normalised a patch where asked for."""
        size = self.encoder.patch_embed.patch_size
        cut = nn.functional.unfold(images, size, stride=size).transpose(1, 2)
        if self.normalize_patches:
            cut = (cut - cut.mean(-1, keepdim=True)) * (cut.var(-1, keepdim=True) + 1e-6).rsqrt()  # sqrt: MKL's, not exact
        return cut

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """(masked, reconstructed) images: hidden patches at zero, and hidden patches as painted."""
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(seed)
            _, painted, hidden = self.paint(images)
        size = self.encoder.patch_embed.patch_size
        cut = nn.functional.unfold(images, size, stride=size).transpose(1, 2)
        if self.normalize_patches:
            painted = painted * (cut.var(-1, keepdim=True) + 1e-6).sqrt() + cut.mean(-1, keepdim=True)
        floor = images.amin()

        def image(patches: torch.Tensor) -> torch.Tensor:
            return nn.functional.fold(patches.transpose(1, 2), images.shape[-2:], size, stride=size)

        return image(torch.where(hidden[..., None], floor, cut)), image(torch.where(hidden[..., None], painted, cut))


def _sine_positions(encoder: VisionTransformer, width: int) -> torch.Tensor:
    """Sines and cosines over the patch grid (1, P, width), as in the masked autoencoder's paper; width % 4 == 0."""
    return timm.layers.build_sincos2d_pos_embed(list(encoder.patch_embed.grid_size), width)[None]
