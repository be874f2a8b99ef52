"""Image files of one's own, or of a published list: folders with a folder a class, CSVs or lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...config.schema import Files
from ..listings.parts import files_source
from ..protocols import PROTOCOLS
from ..source import Source
from ..splits import hold_out


def load(data: Files, index: Path | None = None) -> Source:
    return files_source(data, index)


def split(source: Source, data: Files, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts as given; without a test part, `test_per_class` images a class held out of the training part."""
    if data.evaluate in source.parts:
        return source.parts["train"], source.parts[data.evaluate]
    return hold_out(source, data.test_per_class, seed)


def published(data: Files) -> tuple[int, int, str] | None:
    known = PROTOCOLS.get(data.protocol)
    return (known.images, known.classes, "known from publications; the data set is not here") if known else None
