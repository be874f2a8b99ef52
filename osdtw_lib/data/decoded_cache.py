"""The decoded cache: every image once decoded to uint8 in one file, so that training decodes no JPEG twice.

Its name holds the fingerprint of the images' contents and the side. Blocks of images are written in threads; a journal
beside the file gets a line with a checksum for each that is done, so that a killed build goes on, and a block that was
damaged later is noticed and made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from ..artifacts.files import make_folder, write_text
from ..errors import UserError
from .image_files import ImageFiles
from .in_threads import over_images
from .source import LabelledImages

BLOCK = 64  # images
LOOKED_AT = 16  # blocks, evenly over the file, that opening it compares with their checksums
SPARE = 256 * 2**20  # bytes of the disk left free


def decoded(images: ImageFiles, side: int, folder: Path) -> LabelledImages:
    """The images as a read-only memory map uint8 (N, side, side, channels): shorter side resized, centre cut out.

    Builds the file in `folder`, or what is missing of it; a second process waits for the first. A subset is to be
    taken of the files, before: taken of the map, it is copied into memory. Raises UserError where the disk is too
    full, or naming an image that cannot be read.
    """
    shape = (len(images), side, side, images.channels)
    name = f"decoded_{side}_{images.fingerprint()[:16]}"
    make_folder(folder)
    data, journal = folder / f"{name}.u8", folder / f"{name}.json"
    with _locked(folder / f".{name}.lock"):
        done = _blocks_done(data, journal, images, shape)
        missing = [b for b in range(-(-len(images) // BLOCK)) if b not in done]
        if missing:
            _build(images, shape, data, journal, done, missing)
    return LabelledImages(np.memmap(data, np.uint8, "r", shape=shape), images.labels)


def resized(image: Image.Image, side: int) -> Image.Image:
    """Shorter side resized to `side`, the centre square cut out."""
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    box = (left, top, left + shorter, top + shorter)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _locked(path: Path):
    """An exclusive lock while the returned file is open; one that waits says so."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("decoded cache: waits for another process that makes it", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass
    return file


def _header(images: ImageFiles, shape: tuple[int, ...]) -> dict:
    return {"fingerprint": images.fingerprint(), "shape": list(shape), "block": BLOCK, "pillow": PIL.__version__}


def _blocks_done(data: Path, journal: Path, images: ImageFiles, shape: tuple[int, ...]) -> dict[int, int]:
    """{block: checksum} as the journal has them, where it is of these images and the file still agrees."""
    if not journal.exists() or not data.exists():
        return {}
    try:
        first, *lines = journal.read_text().split("\n")[:-1]  # a line cut short by a kill has no end
        done = dict(map(int, line.split()) for line in lines)
        fits = json.loads(first) == _header(images, shape) and data.stat().st_size == int(np.prod(shape, dtype=np.int64))
    except (ValueError, UnicodeDecodeError):
        fits = False
    if not fits:
        print(f"decoded cache: {data.name} is not of these images or was cut short; it is made again", flush=True)
        return {}
    pixels = np.memmap(data, np.uint8, "r", shape=shape)
    blocks = sorted(done)
    sample = blocks if len(blocks) <= LOOKED_AT else [blocks[i] for i in np.linspace(0, len(blocks) - 1, LOOKED_AT).astype(int)]
    if any(_checksum(pixels, b) != done[b] for b in sample):
        blocks = [b for b in blocks if _checksum(pixels, b) == done[b]]
        print(f"decoded cache: {len(done) - len(blocks)} of {len(done)} blocks were changed; they are made again", flush=True)
    return {b: done[b] for b in blocks}


def _checksum(pixels: np.ndarray, block: int) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels[block * BLOCK : (block + 1) * BLOCK]))


def _build(
    images: ImageFiles, shape: tuple[int, ...], data: Path, journal: Path, done: dict[int, int], missing: list[int]
) -> None:
    _announce(images, shape, data, done)
    chosen = np.concatenate([np.arange(b * BLOCK, min((b + 1) * BLOCK, len(images))) for b in missing])
    one, side = int(np.prod(shape[1:])), shape[1]

    def decode(number: int) -> np.ndarray:
        return np.asarray(resized(images.read(int(chosen[number]), side), side)).reshape(shape[1:])

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
        raise UserError(f"{data}: cannot be written ({error.strerror}); make room or give rights, then run again: "
                        "what is there is kept") from None


def _announce(images: ImageFiles, shape: tuple[int, ...], data: Path, done: dict[int, int]) -> None:
    """Say how large it will be; refuse where the disk has not the room."""
    total = int(np.prod(shape, dtype=np.int64))
    needed = total - sum(min(BLOCK, len(images) - b * BLOCK) for b in done) * (total // len(images))
    if not done:
        data.unlink(missing_ok=True)
    free = shutil.disk_usage(data.parent).free
    size = f"{len(images):,} images of {shape[1]} x {shape[2]}, {_bytes(total)}"
    if needed + SPARE > free:
        raise UserError(f"{data.parent}: the decoded cache needs {_bytes(needed)} ({size}), {_bytes(free)} are free; make room, "
                        "set outputs to another disk, or data.cache: false")
    rest = f", {_bytes(needed)} still to be made" if done else ""
    print(f"decoded cache: {size}{rest} in {data} ({_bytes(free)} free)", flush=True)


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
