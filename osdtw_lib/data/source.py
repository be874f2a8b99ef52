"""What a data set is here: labelled images, what their classes are called, and the parts they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from ..errors import UserError
from ..legible import legible
from .image_files import ImageFiles


@dataclass(frozen=True)
class LabelledImages:
    """pixels uint8 (N, H, W, channels), possibly a memory map; labels int64 (N,)."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> LabelledImages:
        return LabelledImages(self.pixels[indices], self.labels[indices])

    def fingerprint(self) -> str:
        """sha256 over pixels and labels: what a stage's key calls the data. Asked for often, so made once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """A data set before the cut: all its images, what its classes are called, and the parts it comes in.

    `parts` {"train" | "val" | "test": indices}, where a data set has them; `notes`: what loading has to say. Names of
    classes and whatever else is read by people are legible, wherever they come from.
    """

    images: LabelledImages | ImageFiles
    class_names: tuple[str, ...]
    title: str = "images"
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    names_apart: bool = False  # the classes' names stand in a file of their own, not in the images' paths

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(map(legible, self.class_names)))
        twin = next((a for a, b in pairwise(sorted(self.class_names)) if a == b), None)
        if twin is not None:
            raise UserError(f"two classes are called '{twin}', as it is written where a character cannot be shown; rename one")
        object.__setattr__(self, "notes", tuple(map(legible, self.notes)))
        object.__setattr__(self, "title", legible(self.title))

    def fingerprint(self) -> str:
        """The images' own, and where each part begins and ends."""
        if not self.parts:
            return self.images.fingerprint()
        digest = hashlib.sha256(self.images.fingerprint().encode())
        for name, indices in sorted(self.parts.items()):
            digest.update(name.encode() + indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def counts(self, indices: np.ndarray) -> np.ndarray:
        """Images a class (K,) among these."""
        return np.bincount(self.images.labels[indices], minlength=len(self.class_names))

    def caption(self, train: np.ndarray, test: np.ndarray, evaluated: str = "test") -> str:
        """What a table over this split must say: data set, counts, and which part is the test."""
        counts = self.counts(train)
        own = evaluated in self.parts
        return (
            f"{self.title}, {len(train):,} training images, {len(counts):,} classes ({counts.max():,} to {counts.min():,} a "
            f"class); {evaluated}: {len(test):,} images{'' if own else ' held out'}"
        )
