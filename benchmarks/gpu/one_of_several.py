"""One of several processes of a stage that share one GPU, as torchrun starts them.

    torchrun --nproc-per-node=2 benchmarks/gpu/one_of_several.py [--deaf] STAGE PARAMS.yaml ...

As `python -m osdtw_lib STAGE PARAMS.yaml ...`, but gloo joins the processes, since NCCL refuses to use a GPU twice, and a
checkpoint is written after every epoch. --deaf: the second process sees no checkpoint, as on a file system that is late.
"""

from __future__ import annotations

import os
import sys

import torch.distributed as dist

from osdtw_lib.__main__ import main
from osdtw_lib.artifacts.checkpoint import Checkpoint
from osdtw_lib.training import loop


def prepare(deaf: bool) -> None:
    start, loop.CHECKPOINT_SECONDS = dist.init_process_group, min(0.0, loop.CHECKPOINT_SECONDS)
    dist.init_process_group = lambda backend, device_id=None, **options: start("gloo", **options)
    if deaf and os.environ["RANK"] == "1":
        Checkpoint._newest = lambda self: None
    os.environ["LOCAL_RANK"] = "0"  # which GPU it takes


if __name__ == "__main__":
    arguments = sys.argv[1:]
    prepare("--deaf" in arguments)
    sys.exit(main([word for word in arguments if word != "--deaf"]))
