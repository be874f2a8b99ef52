"""One file a data set: where its images come from. Start with digits.py."""

from __future__ import annotations

from pathlib import Path

from ...config.schema import Data
from ..listings.parts import files_source
from ..source import Source
from .digits import digits


def load_source(data: Data, index: Path | None = None) -> Source:
    """The images a parameter file names; `index` is the file in which contents.py keeps what it read.

    Raises UserError where they cannot be had.
    """
    if data.dataset == "digits":
        return digits()
    if data.dataset == "cifar100":
        from .cifar100 import cifar100  # brings torchvision along

        return cifar100(data)
    return files_source(data, index)
