"""What is computed in which precision: `recipe.precision` says it, here it is done.

| | fp32 | bf16 |
| --- | --- | --- |
| products and convolutions of a network that trains, and of the Fisher's passes | float32 | bfloat16 |
| the same of a network that is evaluated, on a GPU | float32 | bfloat16 |
| the same on a CPU, where bfloat16 saves nothing; the measured bias, whose differences are small | float32 | float32 |
| losses, likelihoods, scores; weights, gradients, moments; sums of the Fisher | float32 | float32 |

float32 is IEEE's for products and convolutions alike. TF32, which keeps 10 of its 23 bits and is cuDNN's default for
convolutions, is off: a GPU's fp32 is then a CPU's up to rounding.
"""

from __future__ import annotations

import contextlib
import warnings
from contextlib import AbstractContextManager

import torch

REDUCED = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # fp16: the Fisher's alone


def no_tf32() -> None:
    """For all that this process computes from now on."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores .* not enabled")  # the compiler's advice


def autocast(precision: str, device: torch.device, evaluation: bool = False) -> AbstractContextManager:
    """A context, to be entered as often as one likes, for the forward pass of a network on this device; a backward pass follows
    it by itself. On the meta device as on a CPU."""
    reduced, kind = REDUCED[precision], device.type if device.type != "meta" else "cpu"
    if reduced is None or (evaluation and kind == "cpu"):
        return contextlib.nullcontext()
    return torch.autocast(kind, reduced)
