"""CIFAR-10 and CIFAR-100 through torchvision: fetched once, then read from their folder."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...backend import timm_import as _timm  # noqa: F401, so that torchvision imports
from ...config.paths import PROJECT
from ...config.schema import Cifar
from ...errors import UserError
from ..source import LabelledImages, Source
from ..splits import cut_to_profile as split  # noqa: F401  its own, as load is
from ..splits import profile

from torchvision.datasets import CIFAR10, CIFAR100  # noqa: E402  isort: skip
from torchvision.datasets.utils import check_integrity  # noqa: E402  isort: skip

TIMEOUT = 30.0  # seconds without an answer


class Kind(NamedTuple):
    reader: type[CIFAR10]  # knows the archive's address and the checksums of its files
    title: str
    megabytes: int
    classes: int


KINDS = {"cifar10": Kind(CIFAR10, "CIFAR-10", 170, 10), "cifar100": Kind(CIFAR100, "CIFAR-100", 169, 100)}


def load(data: Cifar, index: Path | None = None) -> Source:
    """Training images first, then the test images (32 x 32). Raises UserError where they cannot be had."""
    folder, kind = PROJECT / Path(data.folder).expanduser(), KINDS[data.dataset]
    try:
        train = kind.reader(folder, train=True)
    except RuntimeError:  # not there, or not what was published: torchvision compares checksums
        _fetch(folder, kind, data.download)
        train = kind.reader(folder, train=True)
    test = kind.reader(folder, train=False)
    pixels = np.concatenate((train.data, test.data))
    labels = np.array(train.targets + test.targets, np.int64)
    parts = {"train": np.arange(len(train)), "test": np.arange(len(train), len(labels))}
    title = f"{kind.title}-IR{data.imbalance_ratio:g}"
    return Source(LabelledImages(pixels, labels), tuple(train.classes), title, parts)


def published(data: Cifar) -> tuple[int, int, str]:
    """From its profile: 5,000 training images of each of 10 classes, or 500 of each of 100, cut."""
    counts = profile(data, KINDS[data.dataset].classes)
    return int(counts.sum()), len(counts), "from its profile"


def _fetch(folder: Path, kind: Kind, download: bool) -> None:
    """Unpack the archive that lies in the folder, or fetch it first."""
    reader, archive = kind.reader, folder / kind.reader.filename
    by_hand = f"fetch {reader.url} ({kind.megabytes} MB) and put it into {folder}"
    there = archive.exists()
    whole = there and check_integrity(str(archive), reader.tgz_md5)
    if not whole and not download:
        what = f"{archive} is damaged or cut short: its checksum is not the published one" if there else _missing(folder, kind)
        raise UserError(f"{what}; {by_hand}, or set data.download: true")
    if not whole:
        damaged = ", the archive there is damaged" if there else ""
        print(f"fetching {kind.title} ({kind.megabytes} MB) into {folder}{damaged}", flush=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reader(folder, download=True)  # takes the archive that is there where it is whole
    except (OSError, RuntimeError, EOFError) as error:  # no network; another file than was published; a full disk
        reason = " ".join(str(error).split())
        if whole:
            raise UserError(f"{archive} cannot be unpacked ({reason}); make room or give rights, then run again") from None
        what = f"{archive} is damaged or cut short" if there else _missing(folder, kind)
        raise UserError(f"{what}, and could not be fetched ({reason}); {by_hand}") from None
    finally:
        socket.setdefaulttimeout(before)


def _missing(folder: Path, kind: Kind) -> str:
    if (folder / kind.reader.base_folder).is_dir():
        return f"{folder / kind.reader.base_folder} is incomplete or damaged"
    return f"{kind.title} is not in {folder}"
