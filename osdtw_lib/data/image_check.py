"""One pass over all image files before anything trains: which are missing or unreadable, and what the others look like."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import PIL

from ..artifacts.files import make_folder, write_text
from ..errors import UserError
from ..legible import legible
from .image_files import FILE_SIZE, LARGE, ImageFiles, converted, open_image
from .in_threads import over_images

SHOWN = 10
LARGE_SAID = f"more than {LARGE / 1e6:.0f} megapixels, slow to read"


def examine(images: ImageFiles) -> pd.DataFrame:
    """A row an image: width, height, mode, format as its file has them, `problem` (None where it can be used).

    Every file is decoded to its end, a JPEG at an eighth of its size: that notices one cut short, and costs little.
    Its bytes are hashed just before, so that the disk is read once for both.
    """
    paths, sizes, contents = images.paths.tolist(), images.sizes, images.contents
    contents.kept  # noqa: B018  loaded here, not by many threads

    def look(index: int) -> tuple:
        if sizes[index] < 0:
            return 0, 0, "", "", "no file, but a folder or a pipe" if os.path.exists(paths[index]) else "missing"
        path = paths[index]
        contents.digest(path)
        try:
            image = open_image(path, side=1)
            about = (*image.info[FILE_SIZE], image.mode, image.format)
            converted(image, images.channels)
            return *about, None
        except UserError as error:
            return 0, 0, "", "", str(error).removeprefix(f"{path}: ")

    rows = over_images(look, len(images), "images")
    return pd.DataFrame(rows, columns=["width", "height", "mode", "format", "problem"])


def check_files(images, used: tuple[np.ndarray, ...], folder: Path) -> None:
    """The pass over the images used (indices), but for files whose bytes have passed it before.

    Raises UserError as refuse_unusable; does nothing with images that are no files.
    """
    if not isinstance(images, ImageFiles):
        return
    chosen = images.subset(np.sort(np.concatenate(used)))
    contents, how = images.contents, f"Pillow {PIL.__version__}, {images.channels} channels"
    new = np.flatnonzero(~contents.passed(chosen.paths.tolist(), how))
    problems = np.full(len(chosen), None, object)
    if len(new):
        found = examine(chosen.subset(new))
        problems[new] = found["problem"]
        contents.set_passed(chosen.paths[new[found["problem"].isna()]].tolist(), how)
        contents.save()
    refuse_unusable(chosen, pd.DataFrame({"problem": problems}), folder)
    if len(new):
        _say_large(chosen.subset(new), found)


def _say_large(images: ImageFiles, found: pd.DataFrame) -> None:
    large = images.paths[found["width"] * found["height"] > LARGE]
    if len(large):
        more = " ..." if len(large) > SHOWN else ""
        print(f"images: {len(large):,} of {LARGE_SAID}: {', '.join(large[:SHOWN])}{more}", flush=True)


def refuse_unusable(images: ImageFiles, found: pd.DataFrame, folder: Path) -> None:
    """Raises UserError with count, first ten by reason and what to do; the whole list goes to folder/unreadable.txt."""
    listing = folder / "unreadable.txt"
    bad = np.flatnonzero(found["problem"].notna())
    if len(bad) == 0:
        with contextlib.suppress(OSError):  # there is none, or nothing can be removed where it lies
            listing.unlink()
        return
    make_folder(folder)
    problems = found["problem"].to_numpy()
    write_text(listing, "".join(f"{legible(images.paths[i])}\t{legible(problems[i])}\n" for i in bad))
    missing = int((problems == "missing").sum())
    kinds = [f"{n:,} {what}" for n, what in ((missing, "missing"), (len(bad) - missing, "unreadable")) if n]
    shown: dict[str, list[str]] = {}
    for i in bad[:SHOWN]:
        shown.setdefault(problems[i], []).append(images.paths[i])
    examples = "; ".join(f"{', '.join(paths)} ({why})" for why, paths in shown.items())
    raise UserError(
        f"{' and '.join(kinds)} of {len(images):,} images: {examples}"
        f"{' ...' if len(bad) > SHOWN else ''}; all of them, and why, are in {listing}: fetch them again, or take them "
        "out of the folder or list"
    )
