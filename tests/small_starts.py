"""Small networks of every family of starts, by the names of timm's architectures, with random weights."""

import torch

from osdtw_lib.config.schema import Model
from osdtw_lib.models.vit import ViT, build_vit

DEPTH, WIDTH, SIDE = 2, 32, 16
FAMILIES = {
    "augreg, MAE": {"architecture": "vit_base_patch16_224"},
    "CLIP": {"architecture": "vit_base_patch16_clip_224", "pooling": "token"},
    "CLIP, QuickGELU": {"architecture": "vit_base_patch16_clip_quickgelu_224"},
    "DINOv2": {"architecture": "vit_base_patch14_dinov2", "pooling": "token"},
    "DINOv2, registers": {"architecture": "vit_base_patch14_reg4_dinov2"},
    "DINOv2 giant": {"architecture": "vit_giant_patch14_reg4_dinov2"},
    "DINOv3": {"architecture": "vit_base_patch16_dinov3", "pooling": "token"},
    "DINOv3, biases": {"architecture": "vit_base_patch16_dinov3_qkvb"},
    "DINOv3 huge": {"architecture": "vit_huge_plus_patch16_dinov3"},
    "EVA-02": {"architecture": "eva02_base_patch14_224"},
    "EVA": {"architecture": "eva_giant_patch14_224"},
    "Perception Encoder": {"architecture": "vit_pe_core_base_patch16_224"},
    "DeiT III": {"architecture": "deit3_base_patch16_224"},
}


def model_of(family: str, **changes) -> Model:
    sizes = {"image_size": SIDE, "patch_size": 8, "width": WIDTH, "depth": DEPTH, "heads": 2, "init": "scratch"}
    return Model(**(sizes | FAMILIES[family] | changes))


def small_start(family: str, n_outputs: int = 3, seed: int = 0, **changes) -> ViT:
    torch.manual_seed(seed)
    network = build_vit(model_of(family, **changes), n_outputs).eval()
    for parameter in network.parameters():  # away from zero biases and unit scales
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def some_images(n: int = 4, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
