"""Weights under the names of other codes, brought under timm's names by timm's own converters.

OpenAI's and OpenCLIP's CLIP, DINOv2 with registers, DINOv3, EVA-02, the Perception Encoder, DeiT III: each is told by one
name that only it has. Nothing is resized here (pretrained.py does, and says so).
"""

from __future__ import annotations

import contextlib
import io
from types import SimpleNamespace

from torch import Tensor

from ..backend.timm_import import timm
from .vit import Eva, ViT

# a name that tells a layout, and the prefix that timm's converter looks for it under
MARKS = {
    "class_embedding": "visual.",  # CLIP, Perception Encoder
    "register_tokens": "",  # DINOv2
    "storage_tokens": "",  # DINOv3
    "blocks.0.mlp.w12.weight": "",  # DINOv2 giant
    "blocks.0.mlp.w1.weight": "",  # EVA-02
    "blocks.0.gamma_1": "",  # DeiT III
}


def under_timms_names(tensors: dict[str, Tensor], vit: ViT) -> tuple[dict[str, Tensor], str] | None:
    """({timm's name: tensor}, the prefix they lay under in the file); None where no layout is found."""
    for name in tensors:
        for mark, inside in MARKS.items():
            if name == mark or name.endswith(f".{mark}"):
                prefix = name.removesuffix(mark)
                own = {inside + n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                with contextlib.redirect_stdout(io.StringIO()):  # what it prints is for its authors
                    return _converted(own, vit), prefix
    return None


def _converted(tensors: dict[str, Tensor], vit: ViT) -> dict[str, Tensor]:
    patches = [t for n, t in tensors.items() if n.endswith(("patch_embed.proj.weight", "conv1.weight")) and t.ndim == 4]
    outline = SimpleNamespace(  # the model as the converters ask for it, of the file's own sizes: nothing is to be resized
        patch_embed=SimpleNamespace(proj=SimpleNamespace(weight=patches[0] if patches else vit.patch_embed.proj.weight)),
        pos_embed=None,
        get_parameter=vit.get_parameter,
    )
    if isinstance(vit, Eva):
        return timm.models.eva.checkpoint_filter_fn(tensors, outline)
    return timm.models.vision_transformer.checkpoint_filter_fn(tensors, outline, adapt_layer_scale=True)
