"""From labelled images to batches on a device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from .config import Data
from .datasets import LabelledImages


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
