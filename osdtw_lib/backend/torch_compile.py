"""torch.compile of the networks that train: where it can be done, and for parts of one size.

It needs a C compiler, on a GPU Triton too, which containers may lack. The last part of an epoch is smaller than the others; for
it alone minutes of compiling would not pay.
"""

from __future__ import annotations

import contextlib
import functools
import os
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import nn

from . import distributed
from .threads import cores

NEEDS = "it needs a C compiler (gcc) and Python's headers, on a GPU Triton too"


def compile_networks(model: nn.Module) -> None:
    """Compile the network in place, of a ModuleDict each by itself; said in a line, and left as it is, where that fails."""
    if can_compile(next(model.parameters()).device.type):
        for network in model.values() if isinstance(model, nn.ModuleDict) else [model]:
            network.compile()


@functools.cache
def can_compile(device: str) -> bool:
    """Whether a small function can be compiled for this kind of device; asked once a process."""
    _keep()
    try:
        torch.compile(lambda x: (x.sin() + 1).sum())(torch.ones(8, device=device, requires_grad=True)).backward()
        return True
    except Exception as error:  # whatever a compiler may raise on a machine nobody has seen
        reason = " ".join(str(error).split())[:200]
        print(f"torch.compile cannot be used here, training is slower: {NEEDS} ({type(error).__name__}: {reason})", flush=True)
        return False


def _keep() -> None:
    """What is compiled outlives this process and its machine's /tmp, and all processes of a machine compile on its cores
    together; what the user has set stays. Torch reads both when it first compiles."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "osdtw" / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, cores() // distributed.local_world_size())))


class OneSize:
    """What is compiled is compiled for parts of as many images as the first; the others run as they are written."""

    def __init__(self, compiled: bool):
        self.compiled, self.size = compiled, 0

    def __call__(self, size: int) -> AbstractContextManager:
        self.size = self.size or size
        if self.compiled and size != self.size:
            return torch.compiler.set_stance("force_eager")
        return contextlib.nullcontext()
