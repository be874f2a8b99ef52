"""What brings a batch's pixels to the device: from arrays, on the device or in a memory map, and from image files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..backend import distributed
from ..backend.progress import size as in_words
from ..backend.threads import at_once, cores
from ..config.schema import Config, Recipe
from ..errors import UserError
from .augment import augmented, centred, draw, generators_kept, photograph, seed_all, seed_of, sent
from .feed import Feed
from .image_files import ImageFiles
from .source import LabelledImages

ON_DEVICE_BYTES = 1 << 30  # arrays up to this size lie on the device as a whole
GATHERING = 4  # threads, at most, that fetch a GPU's images from a memory map
PIECE = 16  # images that a process reads at a time: all of them work on a part, and its first does not come from one alone
AHEAD = 8  # pieces that each has read before they are asked for
SOCKET_PATH = 103  # characters: macOS's limit; Linux's is 107
SHARED = Path("/dev/shm")  # where they lie until then

Piece = list[tuple[int, int | None, int]]  # of each image its index, the epoch, how often it was drawn before


class Places(NamedTuple):
    """A part's images: its number in the batch, their indices, how often each was drawn before in the epoch, (B,), and the
    epoch; None: as evaluation sees them."""

    number: int
    indices: Tensor
    before: Tensor
    epoch: int | None = None


class Arrays:
    """Pixels that lie in memory or in a memory map; augmented on the device, a batch at a time."""

    def __init__(self, images: LabelledImages, config: Config, size, device, recipe: Recipe, fill: Tensor):
        self.pixels, self.size, self.device, self.recipe, self.fill = images.pixels, size, device, recipe, fill.to(device)
        self.crop_share, self.interpolation = config.data.crop_share, config.data.interpolation
        self.threads = max(1, min(GATHERING, own_cores())) if device.type == "cuda" else 1  # a CPU trains on the others
        remedy = "put `outputs` on a faster disk, or give the job memory that holds its cache"
        self.feed = Feed(device, f"{self.threads} threads, decoded", remedy)
        self.whole = None
        if images.pixels.nbytes <= ON_DEVICE_BYTES:
            pixels = np.require(images.pixels, requirements=["C", "W"])  # a copy of a map that is for reading alone
            self.whole = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous()

    def read(self, chosen: Iterable[Places], training: bool = False) -> Iterator[Tensor]:
        """uint8 (B, C, H, W) on the device, for each of the places, which are asked for some time ahead."""
        if self.whole is not None:
            found = (self.whole[sent({"indices": places.indices}, self.device)["indices"]] for places in chosen)
        else:
            gathered = self.feed.timed(_ahead(self._gather, chosen, self.threads), training)
            found = (rows.to(self.device, non_blocking=True).permute(0, 3, 1, 2).contiguous() for rows in gathered)
        for pixels in found:
            yield pixels if training else centred(pixels, self.size, self.crop_share, self.interpolation)

    def _gather(self, places: Places) -> Tensor:
        """uint8 (B, H, W, C) of the memory map."""
        shape = len(places.indices), *self.pixels.shape[1:]
        rows = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.take(self.pixels, places.indices.numpy(), axis=0, out=rows.numpy(), mode="clip")  # by "raise" through a copy
        return rows

    def draw(self, shape: torch.Size) -> tuple[dict[str, Tensor], list[list[int]]]:
        """What is random about a part of this shape, for `augmented`."""
        return draw(shape, self.recipe)

    def augmented(self, pixels: Tensor, draws: dict[str, Tensor], sizes: list[list[int]]) -> Tensor:
        return augmented(pixels, draws, sizes, self.size, self.crop_share, self.fill, self.interpolation)


def _ahead(function: Callable, items: Iterable, threads: int) -> Iterator:
    """map, with the next items worked on in threads while one is used."""
    with ThreadPoolExecutor(threads) as pool:
        coming: deque = deque()
        for item in items:
            coming.append(pool.submit(function, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class Files:
    """Image files, read and augmented in processes of their own; a file that cannot be read stops the run by name."""

    def __init__(self, images: ImageFiles, config: Config, size, device, recipe: Recipe, fill: Tensor):
        shape = size, config.data.crop_share, fill, config.data.interpolation
        self.reading = _Reading(images, photograph(recipe, *shape), photograph(None, *shape), config.seed)
        self.device, self.plan = device, _Plan()
        workers = with_room(readers(config.loader_workers, device), images.channels * size[0] * size[1])
        remedy = "set data.cache: true, or give the job more cores"
        self.feed = Feed(device, f"{workers} processes" if workers else "the process that trains", remedy)
        self.loader = torch.utils.data.DataLoader(
            self.reading,
            batch_sampler=self.plan,
            collate_fn=_stacked,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def read(self, chosen: Iterable[Places], training: bool = False) -> Iterator[Tensor]:
        """As of arrays; already augmented in an epoch."""
        counts: deque[int] = deque()
        self.plan.pieces = _pieces(chosen, counts)
        read = self.feed.timed(self.loader, training)
        for first in read:
            pieces = [first, *(next(read) for _ in range(counts.popleft() - 1))]
            yield torch.cat([_whole(piece).to(self.device, non_blocking=True) for piece in pieces])

    def draw(self, shape: torch.Size) -> tuple[dict[str, Tensor], list[list[int]]]:
        return {}, []  # done where they were read

    def augmented(self, pixels: Tensor, draws: dict[str, Tensor], sizes: list[list[int]]) -> Tensor:
        return pixels


def _pieces(chosen: Iterable[Places], counts: deque[int]) -> Iterator[Piece]:
    """What the processes are asked for; counts: of how many pieces each part is that has been asked for."""
    for places in chosen:
        images = [(i, places.epoch, n) for i, n in zip(places.indices.tolist(), places.before.tolist())]
        counts.append(-(-len(images) // PIECE))
        yield from (images[first : first + PIECE] for first in range(0, len(images), PIECE))


class _Plan:
    """Which images to read next: set before each pass, so that the reading processes live on."""

    pieces: Iterator[Piece] = iter(())

    def __iter__(self):
        return self.pieces


@dataclass
class _Reading(torch.utils.data.Dataset):
    images: ImageFiles
    training: object
    evaluation: object
    seed: int

    def __getitems__(self, batch: Piece) -> list[np.ndarray | str]:
        """Each image of a piece.

        Putting the generators back once, not once an image, is cheap."""
        with generators_kept():
            return [self._one(*at) for at in batch]

    def _one(self, index: int, epoch: int | None, before: int) -> np.ndarray | str:
        """uint8 (C, H, W), or the one line that says what is wrong with the file."""
        try:
            image = self.images.read(index)
        except UserError as error:
            return str(error)
        if epoch is None:
            pixels = np.asarray(self.evaluation(image))
        else:
            seed_all(seed_of(self.seed, epoch, "image", index, *([before] if before else [])))
            pixels = np.asarray(self.training(image))
        return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def _stacked(images: list[np.ndarray | str]) -> Tensor | str:
    broken = next((image for image in images if isinstance(image, str)), None)
    return broken or torch.from_numpy(np.stack(images))


def _whole(read: Tensor | str) -> Tensor:
    if isinstance(read, str):
        raise UserError(read)
    return read


def own_cores() -> int:
    """Those of this machine, shared out over the training processes on it."""
    return cores() // distributed.local_world_size()


def readers(asked: int | str, device: torch.device) -> int:
    """Reading processes of one training process; auto: its share of the cores, all but one where it trains on them too.

    None where the folder for temporary files has too long a name: what they read would never arrive, without a word.
    """
    if asked == "auto":
        asked = own_cores() if device.type == "cuda" else max(0, own_cores() - 1)
    return asked if asked and _sockets_fit(tempfile.gettempdir()) else 0


@cache
def _sockets_fit(folder: str) -> bool:
    """Whether the processes can hand pixels on through a socket in this folder, whose path the system limits; said if not."""
    fits = len(os.fsencode(folder)) + len("/pymp-12345678/listener-12345678") <= SOCKET_PATH
    if not fits:
        print(
            f"{folder}: too long a name for sockets, so images are read without processes of their own, which takes longer; "
            "set TMPDIR to a folder with a shorter one",
            flush=True,
        )
    return fits


def with_room(workers: int, image_bytes: int) -> int:
    """So many of the reading processes as shared memory holds what they have read ahead; one line where that is fewer.

    Beyond it they would be killed in the middle of an epoch (containers have 64 MB unless they are told otherwise).
    """
    if not workers or not SHARED.is_dir():
        return workers
    each = AHEAD * PIECE * image_bytes * distributed.local_world_size() * at_once()
    needed, free = workers * each, shutil.disk_usage(SHARED).free
    if needed <= free:
        return workers
    fitting = free // each
    if distributed.rank() == 0:
        print(
            f"data: {fitting} of {workers} processes will read images: together they need {in_words(needed)} of {SHARED}, "
            f"{in_words(free)} are free; give it more (docker run --shm-size=..., or mount a larger tmpfs there)",
            flush=True,
        )
    return fitting
