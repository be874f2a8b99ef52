"""One pass over all image files before anything trains: which are missing or unreadable, and what the others look like."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from ..artifacts.files import make_folder, write_text
from ..backend.progress import LINE_SECONDS, clock
from ..errors import UserError
from ..legible import legible
from .image_files import FILE_SIZE, LARGE, ImageFiles, converted, open_image

SHOWN = 10
LARGE_SAID = f"more than {LARGE / 1e6:.0f} megapixels, slow to read"


def over_images(function: Callable[[int], object], count: int, label: str) -> Iterator:
    """function(0), function(1), ... in order, computed in threads (Pillow decodes outside the interpreter's lock)."""
    threads = 2 * len(os.sched_getaffinity(0)) + 4  # more than cores: some wait for the disk
    started = printed = time.monotonic()
    pending: deque[Future] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for index in range(count):
            pending.append(pool.submit(function, index))
            if len(pending) < 8 * threads:  # in flight at most, so that memory does not grow
                continue
            yield pending.popleft().result()
            now = time.monotonic()
            if now - printed >= LINE_SECONDS:
                done, printed = index + 1 - len(pending), now
                rate = done / (now - started)
                left = clock((count - done) / rate)
                print(f"{label}: {done:,} of {count:,} images  {rate:.0f} images/s  {left} left", flush=True)
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def examine(images: ImageFiles) -> pd.DataFrame:
    """A row an image: width, height, mode, format as its file has them, `problem` (None where it can be used).

    Every file is decoded to its end, a JPEG at an eighth of its size: that notices one cut short, and costs little.
    """

    def look(index: int) -> tuple:
        if images.sizes[index] < 0:
            return 0, 0, "", "", "missing"
        path = images.paths[index]
        try:
            image = open_image(path, side=1)
            about = (*image.info[FILE_SIZE], image.mode, image.format)
            converted(image, images.channels)
            return *about, None
        except UserError as error:
            return 0, 0, "", "", str(error).removeprefix(f"{path}: ")

    rows = over_images(look, len(images), "images")
    return pd.DataFrame(rows, columns=["width", "height", "mode", "format", "problem"])


def check_files(images, used: tuple[np.ndarray, ...], folder: Path, done: str | None = None) -> str | None:
    """The pass over the images used (indices), unless `done` says that these very files have passed it.

    Returns what to give as `done` next time; None for images that are no files. Raises UserError as refuse_unusable.
    """
    if not isinstance(images, ImageFiles):
        return None
    chosen = images.subset(np.sort(np.concatenate(used)))
    if chosen.fingerprint() != done:
        found = examine(chosen)
        refuse_unusable(chosen, found, folder)
        _say_large(chosen, found)
    return chosen.fingerprint()


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
        listing.unlink(missing_ok=True)
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
