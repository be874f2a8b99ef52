"""Images that lie in files of their own: opened one at a time, whatever their format."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import UserError
from .contents import Contents

ORIENTATION, BITS, ZERO_IS = 0x0112, 258, 262  # tags of EXIF and TIFF
FILE_SIZE = "size in the file"  # (width, height) in Image.info: a reduced decoding is smaller
# Pillow knows them, but has no decoder of its own (EPS: Ghostscript), or they hold measurements in place of brightness
NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MCIDAS", "MPEG", "WMF"}
LARGE = Image.MAX_IMAGE_PIXELS  # Pillow warns of more, and refuses twice as many

# notes of Pillow's on files that it reads all the same (EXIF blocks, palettes, LARGE): one an image would drown the log
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


@cache
def suffixes() -> tuple[str, ...]:
    """What names of image files end in, small: those of every format that the Pillow at hand decodes itself."""
    kinds = Image.registered_extensions()  # loads all of Pillow's readers
    pictures = {*Image.OPEN, "MPO"} - NO_PICTURES  # MPO is opened as JPEG
    return tuple(sorted(suffix for suffix, kind in kinds.items() if kind in pictures))


@dataclass(frozen=True)
class ImageFiles:
    """paths (N,) absolute, labels int64 (N,); `names` (N,) are the paths as the data set gives them."""

    paths: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    channels: int = 3
    contents: Contents = field(default_factory=Contents, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> ImageFiles:
        return ImageFiles(self.paths[indices], self.labels[indices], self.names[indices], self.channels, self.contents)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Bytes of each file (N,); -1 where there is none."""
        return np.array([found.size for found in self.contents.stats(self.paths.tolist())], np.int64)

    def digests(self) -> list[str]:
        """sha256 of each file's bytes, "" where it cannot be read; known files are not read again."""
        return self.contents.digests(self.paths.tolist())

    def fingerprint(self) -> str:
        """sha256 over name, sha256 and label of each."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        lines = (f"{name}\t{digest}\t{label}\n" for name, digest, label in zip(self.names, self.digests(), self.labels))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def read(self, index: int, side: int | None = None) -> Image.Image:
        """Image `index`, as read_image gives it."""
        return read_image(self.paths[index], self.channels, side)


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
            if image.format in NO_PICTURES:
                raise ValueError(f"{image.format} is no format of pictures; save it as PNG")
            image.info[FILE_SIZE] = image.size
            if side and image.format == "JPEG":
                image.draft(None, (2 * side, 2 * side))
            image.load()
            return image
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels; make it smaller") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        reason = "no image, or one that Pillow cannot read" if "cannot identify" in str(error) else str(error) or repr(error)
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def converted(image: Image.Image, channels: int) -> Image.Image:
    """Upright, in RGB or L; the image given stays as it is. Raises UserError for pixels that cannot be, or of no known range."""
    kind, tags = image.format, getattr(image, "tag_v2", {})  # a turned image has lost them
    image = _upright(image)
    wide = image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM"))  # Pillow scales these to 16 bits
    if image.mode in ("I", "F") and not wide:
        raise UserError(
            f"its pixels have {tags.get(BITS, (32,))[0]} bits and no known range; save it with 8 bits, or with 16 and no sign"
        )
    try:
        if wide:
            image = _in_8_bits(image, 2 ** tags.get(BITS, (16,))[0] - 1, tags.get(ZERO_IS) == 0)
        elif image.has_transparency_data:
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        elif image.mode == "LAB":  # Pillow turns it into RGB only
            image = image.convert("RGB")
        return image.convert("L" if channels == 1 else "RGB")
    except Exception as error:  # a palette that the file lacks, a mode of later versions
        raise UserError(f"its pixels ({image.mode}) cannot be read ({str(error) or repr(error)}); save it as PNG") from None


def _in_8_bits(image: Image.Image, top: int, white_is_zero: bool) -> Image.Image:
    """0..top -> 0..255, rounded; Pillow gives a TIFF's 12 bits and its reversed scale as they are in the file."""
    levels = np.asarray(image).astype(np.uint32)
    grey = ((levels * 255 + top // 2) // top).astype(np.uint8)
    if white_is_zero:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) in range(2, 9) else image
    except Exception:  # a damaged EXIF block beside a whole image
        return image
