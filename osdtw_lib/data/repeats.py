"""The same image more than once: as one file under several names, or as copies of the same bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterable
from pathlib import Path

import numpy as np

from ..artifacts.files import make_folder, write_text
from ..config.schema import Data
from ..errors import UserError
from ..legible import legible
from .image_files import ImageFiles

SHOWN = 3
IN_BOTH, TWO_LABELS, TWICE = "in training and test at once", "with different labels", "more than once in one part"
CALIBRATES = "in the calibration part and in another"


def same_files(images: ImageFiles) -> list[np.ndarray]:
    """Sets of indices, two or more each, whose paths lead to one file, by whatever spelling or link."""
    stats = images.contents.stats(images.paths.tolist())
    return _alike(
        (s.device, s.inode, s.size, s.modified) if s.size >= 0 and s.inode else os.path.normpath(path)
        for s, path in zip(stats, images.paths.tolist())
    )


def repeated(images: ImageFiles, part: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Sets of indices whose files hold the same bytes, by what is wrong with them.

    part (N,): which part each is in, 0 training, 1 test, 2 calibration.
    """
    sets = _alike(digest or number for number, digest in enumerate(images.digests()))
    kinds = {
        IN_BOTH: [m for m in sets if {0, 1} <= set(part[m])],
        CALIBRATES: [m for m in sets if 2 in part[m] and set(part[m]) != {2}],
        TWO_LABELS: [m for m in sets if len(set(images.labels[m])) > 1],
        TWICE: [m for m in sets if len(set(part[m])) < len(m)],
    }
    return {kind: found for kind, found in kinds.items() if found}


def refuse_leaks(images, used: tuple[np.ndarray, ...], data: Data, folder: Path) -> list[str]:
    """Notes on repeated images among those used; none of images that are no files.

    used: indices of the training, the test and, where there is one, the calibration part.

    Raises UserError where one is in two of the parts, or has two labels; the whole list goes to folder/repeated.txt.
    Under a protocol the published lists are what results are compared on: their copies are said, not refused.
    """
    if not isinstance(images, ImageFiles):
        return []
    chosen = np.sort(np.concatenate(used))
    images, part = images.subset(chosen), part_of(chosen, used)
    found, listing = repeated(images, part), folder / "repeated.txt"
    leaks = {kind: sets for kind, sets in found.items() if kind != TWICE}
    if data.protocol or not leaks:
        with contextlib.suppress(OSError):  # there is none, or nothing can be removed where it lies
            listing.unlink()
        return [_said(images, sets, kind) for kind, sets in found.items()]
    make_folder(folder)
    write_text(
        listing,
        "".join(f"{kind}\t" + "\t".join(map(legible, images.paths[m])) + "\n" for kind, sets in leaks.items() for m in sets),
    )
    raise UserError(
        f"{'; '.join(_said(images, sets, kind) for kind, sets in leaks.items())}; all of them are in {listing}: "
        "keep each image once, with the right label"
    )


def part_of(chosen: np.ndarray, used: tuple[np.ndarray, ...]) -> np.ndarray:
    """(N,): in which of the parts used, by its number, each of the chosen indices is."""
    return sum(number * np.isin(chosen, indices) for number, indices in enumerate(used))


def _said(images: ImageFiles, sets: list[np.ndarray], kind: str) -> str:
    first = ", ".join(" = ".join(images.paths[m][:2]) for m in sets[:SHOWN])
    return f"{len(sets):,} images {kind} ({legible(first)}{' ...' if len(sets) > SHOWN else ''})"


def _alike(keys: Iterable[Hashable]) -> list[np.ndarray]:
    sets: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        sets.setdefault(key, []).append(index)
    return [np.array(members) for members in sets.values() if len(members) > 1]
