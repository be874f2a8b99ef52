"""The decoded cache: every image once decoded to uint8 in one file, so that training decodes no JPEG twice.

Its name holds the fingerprint of the images' contents and the side. Blocks of images are written in threads; a journal
beside the file gets a line with a checksum for each that is done, so that a killed build goes on, and a block that was
damaged later is noticed and made again: every block is compared when the file is opened, by the first process of a run
for all its processes and stages (they work under one lock, see artifacts/lock.py), as long as nobody writes to the file.
Where a file system has no locks each process that finds it missing makes all of it under a name of its own, then renames it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ..artifacts.files import make_folder, remove, write_text
from ..artifacts.lock import TOKEN, lives
from ..backend import distributed
from ..backend.progress import size
from ..backend.threads import cores
from ..errors import UserError
from .image_files import ImageFiles
from .in_threads import over_images
from .source import LabelledImages

BLOCK = 64  # images
SPARE = 256 * 2**20  # bytes of the disk left free


def decoded(images: ImageFiles, side: int, folder: Path, interpolation: str = "bicubic") -> LabelledImages:
    """The images as a read-only memory map uint8 (N, side, side, channels): shorter side resized, centre cut out.

    Builds the file in `folder`, or what is missing of it; a second process waits for the first. A subset is to be
    taken of the files, before: taken of the map, it is copied into memory. Raises UserError where the disk is too
    full, or naming an image that cannot be read.
    """
    shape = (len(images), side, side, images.channels)
    data = _file(images, side, folder, interpolation)
    journal = data.with_suffix(".json")
    make_folder(folder)
    with _locked(folder / f".{data.stem}.lock") as (lock, alone):
        if lock.read() != _state(data, journal):
            done = _blocks_done(data, journal, images, shape)
            missing = [b for b in range(_blocks(images)) if b not in done]
            if missing and alone:
                _build(images, shape, data, journal, done, missing, interpolation)
            elif missing:
                _build_apart(images, shape, data, journal, interpolation)
            with contextlib.suppress(OSError):  # a full disk: it is compared once more
                lock.truncate(0)
                lock.write(_state(data, journal) or b"")
        return LabelledImages(np.memmap(data, np.uint8, "r", shape=shape), images.labels)


def has_room(parts: list[ImageFiles], side: int, folder: Path, interpolation: str = "bicubic") -> bool:
    """Whether the disk holds what is not decoded yet of all these; one line where it does not."""
    needed = sum(len(images) * side * side * images.channels for images in parts)
    free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.is_dir())).free - SPARE
    if needed > free:
        files = [_file(images, side, folder, interpolation) for images in parts]
        needed -= sum(512 * path.stat().st_blocks for path in files if path.is_file())
    if needed > free and distributed.rank() == 0:
        print(
            f"data.cache: auto: images are read from their files, for {folder} has {size(max(free, 0))} free and decoded they "
            f"take {size(needed)}",
            flush=True,
        )
    return needed <= free


def _file(images: ImageFiles, side: int, folder: Path, interpolation: str) -> Path:
    how = ("" if interpolation == "bicubic" else f"{interpolation}_") + ("grey_" if images.channels == 1 else "")
    return folder / f"decoded_{how}{side}_{images.fingerprint()[:16]}.u8"


def resized(image: Image.Image, side: int, interpolation: str = "bicubic") -> Image.Image:
    """Shorter side resized to `side`, the centre square cut out."""
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    kind = Image.Resampling[interpolation.upper()]
    return image.resize((side, side), kind, box=box, reducing_gap=3.0)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[tuple[FileIO, bool]]:
    """A file that says who has compared what, and whether it is locked meanwhile; one that waits for the lock says so."""
    try:
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); make room or give rights, then run again") from None
    with file:
        alone = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("decoded cache: waits for another process that makes it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            alone = False
        file.seek(0)
        yield file, alone


def _build_apart(images: ImageFiles, shape: tuple[int, ...], data: Path, journal: Path, interpolation: str) -> None:
    """All of it under names that no other process has, which then become the files, unless another process was faster: what that
    one made may be read by now. Nothing is left of them otherwise, and nothing of what a killed process of this machine left."""
    mine = f".{socket.gethostname()}."
    for left in data.parent.glob(f"{mine}*.{data.stem}.*"):
        process = left.name.removeprefix(mine).split(".")[0]
        if process.isdecimal() and not lives(int(process)):
            left.unlink(missing_ok=True)
    names = [file.with_name(f"{mine}{os.getpid()}.{file.name}") for file in (data, journal)]
    try:
        _build(images, shape, *names, {}, list(range(_blocks(images))), interpolation)
        if len(_blocks_done(data, journal, images, shape)) < _blocks(images):
            for name, file in zip(names, (data, journal)):
                os.replace(name, file)
    finally:
        for name in names:
            name.unlink(missing_ok=True)


def _blocks(images: ImageFiles) -> int:
    return -(-len(images) // BLOCK)


def _state(*paths: Path) -> bytes | None:
    """The run's token and the files as they are now; None outside a run, or where one is missing."""
    if TOKEN not in os.environ or not all(path.is_file() for path in paths):
        return None
    found = [path.stat() for path in paths]
    return " ".join([os.environ[TOKEN], *(f"{s.st_ino} {s.st_size} {s.st_mtime_ns}" for s in found)]).encode()


def _header(images: ImageFiles, shape: tuple[int, ...]) -> dict:
    return {"fingerprint": images.fingerprint(), "shape": list(shape), "block": BLOCK, "pillow": PIL.__version__}


def _blocks_done(data: Path, journal: Path, images: ImageFiles, shape: tuple[int, ...]) -> dict[int, int]:
    """{block: checksum} as the journal has them, where it is of these images and the file still agrees."""
    if not journal.exists() or not data.exists():
        return {}
    blocks = _blocks(images)
    try:
        first, *lines = journal.read_text(encoding="utf-8").split("\n")[:-1]  # a line cut short by a kill has no end
        done = dict(map(int, line.split()) for line in lines)
        fits = json.loads(first) == _header(images, shape) and data.stat().st_size == int(np.prod(shape, dtype=np.int64))
    except (OSError, ValueError):
        fits = False
    if not fits:
        print(f"decoded cache: {data.name} is not of these images or was cut short; it is made again", flush=True)
        return {}
    pixels = np.memmap(data, np.uint8, "r", shape=shape)
    with ThreadPoolExecutor(cores()) as pool:  # outside the interpreter's lock
        found = pool.map(lambda b: zlib.crc32(pixels[b * BLOCK : (b + 1) * BLOCK]), range(blocks))
        whole = {b: checksum for b, checksum in enumerate(found) if done.get(b) == checksum}
    if len(whole) < len(done):
        print(f"decoded cache: {len(done) - len(whole)} of {len(done)} blocks were changed; they are made again", flush=True)
    return whole


def _build(
    images: ImageFiles,
    shape: tuple[int, ...],
    data: Path,
    journal: Path,
    done: dict[int, int],
    missing: list[int],
    interpolation: str,
) -> None:
    _announce(images, shape, data, done)
    chosen = np.concatenate([np.arange(b * BLOCK, min((b + 1) * BLOCK, len(images))) for b in missing])
    one, side = int(np.prod(shape[1:])), shape[1]

    def decode(number: int) -> np.ndarray:
        return np.asarray(resized(images.read(int(chosen[number]), side), side, interpolation)).reshape(shape[1:])

    if not done:
        remove(journal)  # a folder even
    begin = [json.dumps(_header(images, shape)), *(f"{b} {checksum}" for b, checksum in done.items())]
    write_text(journal, "\n".join(begin) + "\n")
    try:
        with data.open("r+b" if done else "wb") as file, journal.open("a") as log:
            os.ftruncate(file.fileno(), one * len(images))
            held: list[np.ndarray] = []
            for index, pixels in zip(chosen, over_images(decode, len(chosen), "decoded cache")):
                held.append(pixels)
                if (index + 1) % BLOCK == 0 or index + 1 == len(images):
                    whole, block = np.stack(held), int(index) // BLOCK
                    file.seek(block * BLOCK * one)
                    file.write(whole)
                    file.flush()
                    log.write(f"{block} {zlib.crc32(whole)}\n")
                    log.flush()
                    held.clear()
            os.fsync(file.fileno())
            os.fsync(log.fileno())
    except OSError as error:
        raise UserError(f"{data}: cannot be written ({error.strerror}); make room or give rights, then run again") from None


def _announce(images: ImageFiles, shape: tuple[int, ...], data: Path, done: dict[int, int]) -> None:
    """Say how large it will be; refuse where the disk has not the room."""
    total = int(np.prod(shape, dtype=np.int64))
    needed = total - sum(min(BLOCK, len(images) - b * BLOCK) for b in done) * (total // len(images))
    if not done:
        remove(data)
    free = shutil.disk_usage(data.parent).free
    what = f"{len(images):,} images of {shape[1]} x {shape[2]}, {size(total)}"
    if needed + SPARE > free:
        raise UserError(
            f"{data.parent}: the decoded cache needs {size(needed)} ({what}), {size(free)} are free; make room, "
            "set outputs to another disk, or data.cache: false"
        )
    rest = f", {size(needed)} still to be made" if done else ""
    print(f"decoded cache: {what}{rest} in {data} ({size(free)} free)", flush=True)
