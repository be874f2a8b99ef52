"""The same image more than once: as one file under several names, or as copies of the same bytes."""

from __future__ import annotations

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


def same_files(images: ImageFiles) -> list[np.ndarray]:
    """Sets of indices, two or more each, whose paths lead to one file, by whatever spelling or link."""
    stats = images.contents.stats(images.paths.tolist())
    return _alike(
        (s.device, s.inode, s.size, s.modified) if s.size >= 0 and s.inode else os.path.normpath(path)
        for s, path in zip(stats, images.paths.tolist())
    )


def repeated(images: ImageFiles, is_test: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Sets of indices whose files hold the same bytes, by what is wrong with them; is_test bool (N,)."""
    sets = _alike(digest or number for number, digest in enumerate(images.digests()))
    kinds = {
        IN_BOTH: [m for m in sets if 0 < is_test[m].sum() < len(m)],
        TWO_LABELS: [m for m in sets if len(set(images.labels[m])) > 1],
        TWICE: [m for m in sets if is_test[m].sum() > 1 or (~is_test[m]).sum() > 1],
    }
    return {kind: found for kind, found in kinds.items() if found}


def refuse_leaks(images, used: tuple[np.ndarray, np.ndarray], data: Data, folder: Path) -> list[str]:
    """Notes on repeated images among those used (indices of training and test); none of images that are no files.

    Raises UserError where one is in training and test, or has two labels; the whole list goes to folder/repeated.txt.
    Under a protocol the published lists are what results are compared on: their copies are said, not refused.
    """
    if not isinstance(images, ImageFiles):
        return []
    chosen = np.sort(np.concatenate(used))
    images, is_test = images.subset(chosen), np.isin(chosen, used[1])
    found, listing = repeated(images, is_test), folder / "repeated.txt"
    leaks = {kind: sets for kind, sets in found.items() if kind != TWICE}
    if data.protocol or not leaks:
        listing.unlink(missing_ok=True)
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


def _said(images: ImageFiles, sets: list[np.ndarray], kind: str) -> str:
    first = ", ".join(" = ".join(images.paths[m][:2]) for m in sets[:SHOWN])
    return f"{len(sets):,} images {kind} ({legible(first)}{' ...' if len(sets) > SHOWN else ''})"


def _alike(keys: Iterable[Hashable]) -> list[np.ndarray]:
    sets: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        sets.setdefault(key, []).append(index)
    return [np.array(members) for members in sets.values() if len(members) > 1]
