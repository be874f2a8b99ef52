"""One file a data set: `load(data, index)` gives its Source, `split(source, data, seed)` the indices that train and test, and
`published(data)` what is known of it where it is not here: training images, classes, where from; or None.

A set's own keys are a section of config/schema.py with the name of its file. One that is made of image files and lists
needs neither: a parameter file and, where its counts are published, a line in protocols.py. Imports what data imports.
Start with digits.py.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from ...config.schema import Data
from ..source import Source


def of(data: Data) -> ModuleType:
    """The file of the data set that a parameter file names."""
    return import_module(f".{type(data).__name__.lower()}", __package__)


def load_source(data: Data, index: Path | None = None) -> Source:
    """The images a parameter file names; `index` is the file in which contents.py keeps what it read.

    Raises UserError where they cannot be had.
    """
    return of(data).load(data, index)
