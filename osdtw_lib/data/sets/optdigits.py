"""The 1,797 handwritten digits of UCI's optdigits (its test part, 13 writers) that come inside the package scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from ...config.schema import Optdigits
from ..source import LabelledImages, Source
from ..splits import cut_to_profile as split  # noqa: F401  its own, as load is


def load(data: Optdigits | None = None, index: Path | None = None) -> Source:
    """1,797 digits (8 x 8, 174 to 183 a class); a pixel counts the ink of 4 x 4 scanned ones, 0 to 16, here 0 to 255."""
    found = load_digits()
    pixels = np.rint(found.images[..., None] * (255 / 16)).astype(np.uint8)
    images = LabelledImages(pixels, found.target.astype(np.int64))
    return Source(images, tuple(map(str, found.target_names)), "handwritten digits (optdigits, 1,797)")


def published(data: Optdigits) -> None:
    """Nothing need be known from elsewhere: the digits are always here."""
