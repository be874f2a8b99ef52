"""Small networks and batches that the tests of the Fisher and of the cross scores share."""

import multiprocessing
import os
import signal
import time

import numpy as np
import torch

from osdtw_lib.backend.timm_import import timm
from osdtw_lib.models.likelihoods import task_likelihoods

COUNTS = np.array([40, 30, 20, 10, 5, 2])
TASKS = {"head": np.arange(3), "tail": np.arange(3, 6)}


def small_vit(seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    vit = timm.models.vision_transformer.VisionTransformer(
        img_size=8, patch_size=4, in_chans=2, embed_dim=12, depth=2, num_heads=3, num_classes=3, **options
    ).to(dtype)
    for p in vit.parameters():  # away from zero biases and unit scales
        p.data += 0.1 * torch.randn_like(p)
    return vit


def some_batches(sizes=(5, 3), dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 2, 8, 8, generator=g, dtype=torch.float64).to(dtype), torch.randint(0, 6, (n,), generator=g))
        for n in sizes
    ]


def likelihood(kind="bernoulli", task="head"):
    return task_likelihoods(kind, COUNTS, TASKS)[task]


def waits(config) -> None:
    """A job that takes long, and says when it has begun."""
    print("waits\n", end="", flush=True)  # in one write, also where Python does not buffer
    time.sleep(300)


def settles(place, threads) -> None:
    """What a process on a GPU does first, without one."""
    os.environ["PLACE"] = f"{place} {threads}"


def notes_where(config, folder, job, deadly=0) -> None:
    """A job that writes down where it ran; `deadly` times it takes its process with it."""
    tries = len(list(folder.glob(f"{job}.try*")))
    (folder / f"{job}.try{tries}").touch()
    if tries < deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.try0"))) < config.wait_for and time.monotonic() < deadline:
        time.sleep(0.05)  # until others are at work too
    readers_start = multiprocessing.get_start_method(allow_none=True)
    (folder / f"{job}.done").write_text(f"{os.getpid()} {readers_start} {os.environ['PLACE']}")


def fails(config, error) -> None:
    raise error
