"""Images that lie in files of their own: opened one at a time, whatever their format."""

from __future__ import annotations

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
ORIENTATION = 0x0112
FILE_SIZE = "size in the file"  # (width, height) in Image.info: a reduced decoding is smaller

# notes of Pillow's on files that it reads all the same (EXIF blocks, palettes): one an image would drown the log
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


@dataclass(frozen=True)
class ImageFiles:
    """paths (N,) absolute, labels int64 (N,); `names` (N,) are the paths as the data set gives them."""

    paths: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    channels: int = 3

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageFiles:
        return ImageFiles(self.paths[indices], self.labels[indices], self.names[indices], self.channels)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Bytes of each file (N,); -1 where there is none."""
        parts = np.array_split(self.paths, 16)  # threads: a network file system answers one question at a time
        with ThreadPoolExecutor(len(parts)) as pool:
            return np.concatenate(list(pool.map(lambda part: np.array([_bytes(p) for p in part], np.int64), parts)))

    def fingerprint(self) -> str:
        """sha256 over name, size in bytes and label of each; the contents are not read."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        lines = (f"{name}\t{size}\t{label}\n" for name, size, label in zip(self.names, self.sizes, self.labels))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def read(self, index: int, side: int | None = None) -> Image.Image:
        """Image `index`, as read_image gives it."""
        return read_image(self.paths[index], self.channels, side)


def _bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def read_image(path: str | Path, channels: int = 3, side: int | None = None) -> Image.Image:
    """An image in RGB (channels 3) or L (1), upright, what is transparent on white, 16 bits scaled to 8.

    side: a JPEG of more than twice as many pixels in both directions may be decoded at 1/2, 1/4 or 1/8.
    Raises UserError naming the file where it is missing, no image, damaged or cut short.
    """
    image = open_image(path, side)
    try:
        return converted(image, channels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def open_image(path: str | Path, side: int | None = None) -> Image.Image:
    """The decoded image in the mode its file has. Raises UserError as read_image does."""
    try:
        with Image.open(path) as image:
            image.info[FILE_SIZE] = image.size
            if side and image.format == "JPEG":
                image.draft(None, (2 * side, 2 * side))
            image.load()
            return image
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        reason = "no image, or one that Pillow cannot read" if "cannot identify" in str(error) else str(error) or repr(error)
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def converted(image: Image.Image, channels: int) -> Image.Image:
    """Upright, in RGB or L. Raises UserError for pixels whose range is not known."""
    _set_upright(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))  # 0..65535 -> 0..255, rounded
    elif image.mode in ("I", "F"):
        raise UserError("its pixels have 32 bits and no known range; save it with 8 or 16 bits")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _set_upright(image: Image.Image) -> None:
    try:
        if image.getexif().get(ORIENTATION, 1) in range(2, 9):
            ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a damaged EXIF block beside a whole image
        pass
