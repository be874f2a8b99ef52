"""CIFAR-100 through torchvision: fetched once, then read from its folder."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np

from ...backend import timm_import as _timm  # noqa: F401, so that torchvision imports
from ...config.paths import PROJECT
from ...config.schema import Cifar100
from ...errors import UserError
from ...longtail import exponential_class_counts
from ..source import LabelledImages, Source
from ..splits import cut_to_profile as split  # noqa: F401  its own, as load is

from torchvision.datasets import CIFAR100  # noqa: E402  isort: skip
from torchvision.datasets.utils import check_integrity  # noqa: E402  isort: skip

TIMEOUT = 30.0  # seconds without an answer


def load(data: Cifar100, index: Path | None = None) -> Source:
    """Training images first, then the test images (32 x 32). Raises UserError where they cannot be had."""
    folder = PROJECT / Path(data.folder).expanduser()
    try:
        train = CIFAR100(folder, train=True)
    except RuntimeError:  # not there, or not what was published: torchvision compares checksums
        _fetch(folder, data.download)
        train = CIFAR100(folder, train=True)
    test = CIFAR100(folder, train=False)
    pixels = np.concatenate((train.data, test.data))
    labels = np.array(train.targets + test.targets, np.int64)
    parts = {"train": np.arange(len(train)), "test": np.arange(len(train), len(labels))}
    ratio = f"{data.imbalance_ratio:g}"
    return Source(LabelledImages(pixels, labels), tuple(train.classes), f"CIFAR-100-IR{ratio}", parts)


def published(data: Cifar100) -> tuple[int, int, str]:
    """From its profile: 500 training images of each of 100 classes, cut."""
    counts = exponential_class_counts(data.largest, data.imbalance_ratio, 100)
    return int(counts.sum()), len(counts), "from its profile"


def _fetch(folder: Path, download: bool) -> None:
    """Unpack the archive that lies in the folder, or fetch it first."""
    archive = folder / CIFAR100.filename
    by_hand = f"fetch {CIFAR100.url} (169 MB) and put it into {folder}"
    there = archive.exists()
    whole = there and check_integrity(str(archive), CIFAR100.tgz_md5)
    if not whole and not download:
        what = f"{archive} is damaged or cut short: its checksum is not the published one" if there else _missing(folder)
        raise UserError(f"{what}; {by_hand}, or set data.download: true")
    if not whole:
        print(f"fetching CIFAR-100 (169 MB) into {folder}" + (", the archive there is damaged" if there else ""), flush=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        CIFAR100(folder, download=True)  # takes the archive that is there where it is whole
    except (OSError, RuntimeError, EOFError) as error:  # no network; another file than was published; a full disk
        reason = " ".join(str(error).split())
        if whole:
            raise UserError(f"{archive} cannot be unpacked ({reason}); make room or give rights, then run again") from None
        what = f"{archive} is damaged or cut short" if there else _missing(folder)
        raise UserError(f"{what}, and could not be fetched ({reason}); {by_hand}") from None
    finally:
        socket.setdefaulttimeout(before)


def _missing(folder: Path) -> str:
    if (folder / CIFAR100.base_folder).is_dir():
        return f"{folder / CIFAR100.base_folder} is incomplete or damaged"
    return f"CIFAR-100 is not in {folder}"
