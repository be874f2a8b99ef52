"""Is a GPU here that this torch cannot use, or one whose memory is too small? It is said, and what to do.

PyTorch's default wheel for Linux is built for the newest CUDA, which older drivers and older GPUs cannot run;
torch.cuda.is_available() is then False, or the first kernel fails. Which build of which release has code for what:
"Release Compatibility Matrix" and "CUDA Support Matrix" in PyTorch's RELEASE.md; which driver a CUDA release needs:
"Minor Version Compatibility" in NVIDIA's "CUDA Compatibility".
"""

from __future__ import annotations

import contextlib
import functools
import glob
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import UserError

DEVICES, DRIVER = "/dev/nvidia[0-9]*", Path("/proc/driver/nvidia/version")
DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}  # CUDA's major release: the oldest driver


class Build(NamedTuple):
    """A CUDA build on download.pytorch.org/whl: for torch of these releases, GPUs of these compute capabilities."""

    name: str
    cuda: int
    torch: tuple[tuple[int, int], tuple[int, int]]
    capability: tuple[tuple[int, int], tuple[int, int]]


BUILDS = (  # the one to prefer first
    Build("cu130", 13, ((2, 11), (2, 14)), ((7, 5), (12, 1))),
    Build("cu126", 12, ((2, 6), (2, 14)), ((5, 0), (9, 0))),
)
FULL = re.compile(r"out of memory|(CUBLAS|CUDNN|CUSOLVER)_STATUS_ALLOC_FAILED")  # as libraries say it that allocate by themselves
ELSEWHERE = "a build of torch for it (pytorch.org, Installing previous versions of PyTorch)"


def random_state_kept() -> contextlib.AbstractContextManager:
    """What is drawn inside leaves torch's random state on the CPU and on this process's GPU as it was."""
    return torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else [])


def choose(device: str) -> str:
    """ "cuda" or "cpu" of a parameter file's `device`. Raises UserError where a GPU is asked for and none can be used.

    auto takes a GPU where there is one; where there is one that this torch cannot use, that is an error as well.
    """
    if device == "cpu":
        return device
    available = torch.cuda.is_available()
    wrong = without_code() if available else unreachable()
    if wrong:
        raise UserError(f"{wrong}, or set device: cpu to train on the CPU")
    if device == "cuda" and not available:
        raise UserError("device: cuda was asked for and none is visible; set device: auto")
    return "cuda" if available else "cpu"


@contextlib.contextmanager
def memory_suffices(what: str, remedy: str) -> Iterator[None]:
    """Inside, a GPU whose memory is full is one line: UserError of what did not fit and of what to do about it."""
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they would hold what filled the memory
        raise UserError(f"{what}: the GPU's memory is full; {remedy}") from None


def is_full(error: RuntimeError) -> bool:
    """Whether it says that a GPU's memory is full, whoever says it."""
    return isinstance(error, torch.OutOfMemoryError) or bool(FULL.search(str(error)))


def present() -> bool:
    """Whether this process may open an NVIDIA device, or nvidia-smi lists one; CUDA_VISIBLE_DEVICES can hide them all."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return False
    return any(os.access(path, os.R_OK | os.W_OK) for path in glob.glob(DEVICES)) or "GPU 0" in _smi("-L")


def visible() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them; none where it sees none."""
    number, named = torch.cuda.device_count() if torch.cuda.is_available() else 0, os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(i) for i in range(number)] if named is None else [name.strip() for name in named.split(",")]
    return names[:number]


def driver() -> str | None:
    """The NVIDIA driver's version, for instance 535.104.05; None where nothing says it."""
    try:
        said = DRIVER.read_text(encoding="utf-8")
    except (OSError, ValueError):
        said = _smi("--query-gpu=driver_version", "--format=csv,noheader")
    found = re.search(r"\b\d{3,4}\.\d+(\.\d+)?\b", said)
    return found and found[0]


@functools.cache
def unreachable() -> str | None:
    """What is wrong and what to install, where a GPU is here and torch does not see it."""
    if not present():
        return None
    version, mine = driver(), torch.version.cuda
    oldest = DRIVER_OF_CUDA.get(_major(mine)) if mine else None
    needs = f", which needs {oldest} or newer" if oldest and version and _major(version) < oldest else ""
    built = f"is built for CUDA {mine}{needs}" if mine else "is a build without CUDA"
    return (
        f"an NVIDIA GPU is here and torch cannot use it: the driver is {version or 'of unknown version'}, "
        f"torch {torch.__version__} {built}; {_remedy(version if needs or not mine else None)}"
    )


@functools.cache
def without_code() -> str | None:
    """What is wrong and what to install, where torch sees a GPU and has no code for it."""
    code = [re.match(r"(sm|compute)_(\d+)(\d)", name) for name in torch.cuda.get_arch_list()]
    known = [(kind, (int(major), int(minor))) for kind, major, minor in (found.groups() for found in code if found)]
    for gpu in range(torch.cuda.device_count()) if known else ():
        capability = torch.cuda.get_device_capability(gpu)
        if any(it <= capability and (kind == "compute" or it[0] == capability[0]) for kind, it in known):
            continue  # machine code runs on its major release, from its minor on; compute_* is compiled on any newer GPU
        said = ", ".join(dict.fromkeys(f"{major}.{minor}" for _, (major, minor) in known))
        return (
            f"GPU {gpu}, {torch.cuda.get_device_name(gpu)}, has compute capability {capability[0]}.{capability[1]}, and torch "
            f"{torch.__version__} (CUDA {torch.version.cuda}) has code for {said}; {_remedy(driver(), capability)}; "
            "or leave it out by CUDA_VISIBLE_DEVICES"
        )
    return None


def _remedy(version: str | None, capability: tuple[int, int] = (7, 5)) -> str:
    """What to do with this driver and a GPU of this capability; a pip line only for a build that is known to be there."""
    if version is None:
        return f"install a newer driver, or {ELSEWHERE}"
    release = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    for build in BUILDS:
        fits = build.torch[0] <= release <= build.torch[1] and build.capability[0] <= capability <= build.capability[1]
        if fits and _major(version) >= DRIVER_OF_CUDA[build.cuda]:
            names = [f"{name}=={_release_of(name)}+{build.name}" for name in ("torch", "torchvision")]
            index = f"https://download.pytorch.org/whl/{build.name}"
            return f"run `{shlex.quote(sys.executable)} -m pip install {' '.join(names)} --index-url {index}`"
    return f"install a newer driver, or {ELSEWHERE}"


def _release_of(package: str) -> str:
    return importlib.metadata.version(package).partition("+")[0]


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _smi(*arguments: str) -> str:
    """What nvidia-smi prints; nothing where it is not there or fails."""
    path = shutil.which("nvidia-smi")
    try:
        done = path and subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout if done and done.returncode == 0 else ""
