"""From labelled images to batches on a device, the same for any number of processes.

A training batch is cut into parts of `micro_batch` images. A part is what one process works on at a time; which
images it holds and all that is random about it follow from (seed, epoch, step, part) alone. So a resumed run sees the
same batches, and so do two processes that share the parts of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..backend import distributed
from ..config.schema import Config, Recipe
from .augment import UNMIXED, mixed_and_erased, seed_of, seeded, sent
from .image_files import ImageFiles
from .readers import Arrays, Files, Places
from .sampling import order
from .source import LabelledImages


def normalized(pixels: Tensor, mean, std) -> Tensor:
    """uint8 (B, C, H, W) -> float32 of zero mean and unit deviation a channel, (C,) each; tensors best on the same device."""
    mean, std = (torch.as_tensor(v, dtype=torch.float32, device=pixels.device).view(1, -1, 1, 1) for v in (mean, std))
    return (pixels.float() / 255 - mean) / std


@dataclass(frozen=True)
class Part:
    """images float32 (B, C, H, W); labels (B,), or (B, K) where mixed; `share` of the batch's images; `number` in it.

    own: the images' own labels (B,), mixed or not; indices (B,): which of the data set's they are; batch: the own labels of
    the whole batch, whatever part of it this is. more: the further streams' part beside this one. All on one device.
    """

    images: Tensor
    labels: Tensor
    share: float
    number: int
    epoch: int = 0
    own: Tensor | None = None
    indices: Tensor | None = None
    batch: Tensor | None = None
    more: tuple[Part, ...] = ()

    def two_labels(self) -> tuple[Tensor, Tensor, Tensor]:
        """(own labels (B,), those mixed in (B,), the share of the own (B,)); unmixed: the own twice, the very same tensor."""
        if self.labels.ndim == 1:
            return self.labels, self.labels, torch.ones(len(self.labels), device=self.labels.device)
        at = self.own[:, None]
        share = self.labels.gather(1, at)[:, 0]
        other = torch.where(share < 1, self.labels.scatter(1, at, -1.0).argmax(1), at[:, 0])
        return at[:, 0], other, share


def times_before(chosen: Tensor) -> Tensor:
    """How often each of these (N,) stands before its place: 0, or more where it is drawn again."""
    ordered, at = chosen.sort(stable=True)
    places = torch.arange(len(chosen))
    first = torch.ones_like(chosen, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(chosen).scatter_(0, at, places - torch.where(first, places, 0).cummax(0).values)


class Batches:
    """Batches of a data set on a device.

    Iterating gives (images, labels) as they are, in order, the same each time, as evaluation and the Fisher need: `batch_size` at
    a time, or as many as train at a time.
    `epoch(e)` gives the steps of one epoch of training, each an iterator over the parts that are this process's.
    """

    def __init__(
        self,
        images: LabelledImages | ImageFiles,
        config: Config,
        size: tuple[int, int],
        n_classes: int,
        *,
        device="cpu",
        batch_size: int | None = None,
        recipe: Recipe | None = None,
        sampling: str | tuple[float, ...] | Callable = "images",
        streams: tuple[str, ...] = (),
        draw: int = 0,
        unmixed_from: int | None = None,
        epochs: int | None = None,
    ):
        """size: (height, width) of what the network takes. recipe: what training batches go through, default config.recipe.
        sampling: how an epoch's images are drawn (sampling.py), or a function of the epoch that says it. streams: beside each
        image another, in Part.more: "again", the same augmented anew, or drawn by a sampling. draw: another order and augmenting
        of the same seed. unmixed_from: the epoch from which on nothing is mixed. epochs: how many there will be: while one
        ends, the next one's first images are read."""
        self.recipe, self.n_classes, self.sampling, self.streams = recipe or config.recipe, n_classes, sampling, streams
        self.unmixed_from, self.epochs = unmixed_from, epochs
        self._reading: tuple[int, Iterator[Tensor]] | None = None  # the epoch that is read next, from its first part on
        self.seed = seed_of(config.seed, "draw", draw) if draw else config.seed
        self.batch_size = batch_size or self.recipe.batch_size
        self.at_a_time = batch_size or self.recipe.micro_batch or self.recipe.batch_size
        self.labels = torch.from_numpy(np.ascontiguousarray(images.labels))
        config = config.model_copy(update={"data": config.data.filled, "seed": self.seed})
        self.device, mean, std = torch.device(device), torch.tensor(config.data.mean), torch.tensor(config.data.std)
        self._mean, self._std = mean.to(self.device), std.to(self.device)
        kind = Files if isinstance(images, ImageFiles) else Arrays
        self._reader = kind(images, config, size, self.device, self.recipe, 255 * mean)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    @property
    def waited(self) -> float:
        """Seconds in which images that were asked for had not been read yet."""
        return self._reader.feed.waited

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.share(0, 1)

    def share(self, first: int, every: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches number first, first + every, ..., in order and as they are; the others are not read."""
        chosen = self._in_order()[first::every]
        self._reading = None  # the readers leave it
        for pixels, places in zip(self._reader.read(chosen), chosen):
            labels = sent({"own": self.labels[places.indices]}, self.device)["own"]
            yield normalized(pixels, self._mean, self._std), labels

    def _in_order(self) -> list[Places]:
        return [Places(0, i, torch.zeros_like(i)) for i in torch.arange(len(self.labels)).split(self.at_a_time)]

    def pictures(self) -> np.ndarray:
        """uint8 (N, H, W, C): the images as evaluation sees them, for the eye."""
        self._reading = None
        return torch.cat([p.cpu() for p in self._reader.read(self._in_order())]).permute(0, 2, 3, 1).numpy()

    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        plans = self._plans(number)
        steps = _own_parts(plans)
        read = self._read(number, sum(len(parts) for step in steps for parts in step))
        for i, step in enumerate(steps):
            batches = [self.labels[torch.cat([places.indices for places in plan[i]])] for plan in plans]
            yield (self._parts(read, parts, batches, number, i) for parts in step)

    def _read(self, number: int, parts: int) -> Iterator[Tensor]:
        """The pixels of an epoch's parts; the readers have begun with them where they have just read the epoch before."""
        going, self._reading = self._reading, None
        read = going[1] if going and going[0] == number else self._reader.read(self._places(number), training=True)
        for _ in range(parts - 1):
            yield next(read)
        last = next(read)
        self._reading = (number + 1, read) if number + 1 < (self.epochs or 0) else None
        yield last

    def _places(self, number: int) -> Iterator[Places]:
        """Of this process's parts of the epoch, and of those after it."""
        for epoch in range(number, max(self.epochs or 0, number + 1)):
            for step in _own_parts(self._plans(epoch)):
                yield from (places for parts in step for places in parts)

    def _plans(self, epoch: int) -> list[list[list[Places]]]:
        return [self.plan(epoch, stream) for stream in range(1 + len(self.streams))]

    def plan(self, epoch: int, stream: int = 0) -> list[list[Places]]:
        """For each step of an epoch the places of its parts, of the images or of a further stream."""
        sampling, seed = self.sampling(epoch) if callable(self.sampling) else self.sampling, self.seed
        if stream and self.streams[stream - 1] != "again":
            sampling, seed = self.streams[stream - 1], seed_of(self.seed, "stream", stream)
        chosen = torch.from_numpy(order(sampling, self.labels.numpy(), seed, epoch))
        before = len(self.labels) * stream + (times_before(chosen) if sampling != "images" else torch.zeros_like(chosen))
        part = self.recipe.micro_batch or -(-self.batch_size // distributed.world_size())
        steps = zip(chosen.split(self.batch_size), before.split(self.batch_size))
        return [[Places(i, *both, epoch) for i, both in enumerate(zip(a.split(part), b.split(part)))] for a, b in steps]

    def _parts(self, read: Iterator[Tensor], parts, batches: list[Tensor], epoch: int, step: int) -> Part:
        first, *others = (
            self._part(next(read), places.indices, batch, (epoch, step, places.number), stream)
            for stream, (places, batch) in enumerate(zip(parts, batches))
        )
        return replace(first, more=tuple(others)) if others else first

    def _part(self, pixels: Tensor, indices: Tensor, batch: Tensor, at: tuple[int, int, int], stream: int) -> Part:
        known = {"own": self.labels[indices], "indices": indices, "batch": batch}
        with seeded(self.seed, *at, "augmentation", *([stream] if stream else [])):
            draws, sizes = self._reader.draw(pixels.shape)
            there = sent(known | draws, self.device)
            pixels = self._reader.augmented(pixels, there, sizes)
            late = self.unmixed_from is not None and at[0] >= self.unmixed_from
            recipe = self.recipe.model_copy(update=UNMIXED) if late else self.recipe
            images = normalized(pixels, self._mean, self._std)
            images, labels = mixed_and_erased(images, there["own"], recipe, self.n_classes)
        share = len(indices) / len(batch)
        return Part(images, labels, share, at[2], at[0], *(there[name] for name in known))


def _own_parts(plans: list[list[list[Places]]]) -> list[list[tuple[Places, ...]]]:
    """Of each step the places of this process's parts, those of all streams together."""
    return [[parts for parts in zip(*step) if is_own(parts[0].number)] for step in zip(*plans)]


def is_own(number: int) -> bool:
    """Whether a part of this number is this process's."""
    return number % distributed.world_size() == distributed.rank()
