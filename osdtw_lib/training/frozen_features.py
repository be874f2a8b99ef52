"""Training on what a frozen network makes of the images: run once for all depths or epochs, kept where it fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import torch

from ..backend import distributed
from ..backend.precision import autocast
from ..data.augment import sent
from ..data.batches import Batches, Part, is_own
from ..data.readers import Places
from ..longtail import TASKS
from ..models.two_branch import TwoBranchViT
from ..models.vit import ViT, decode, embed, through

CACHE_BYTES = 2 << 30  # features are kept up to this size; beyond it the encoder runs again for every cell


class Decoders(torch.nn.Module):
    """Both decoders of a network as one module: features (B, T, D) -> {task: logits}."""

    def __init__(self, network: TwoBranchViT):
        super().__init__()
        self.network = network

    def forward(self, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        return {t: decode(getattr(self.network, t), hidden, self.network.shared_depth) for t in TASKS}


class Features:
    """Batches with what a frozen encoder makes of the images, at several depths by one pass; kept where they fit."""

    def __init__(self, batches: Batches, encoder: ViT, depths: list[int], epochs: int, precision: str):
        self.batches, self.encoder, self.depths, self.precision = batches, encoder.eval(), sorted(set(depths)), precision
        tokens = encoder.patch_embed.num_patches + encoder.num_prefix_tokens
        size = 4 * len(batches.labels) * tokens * encoder.embed_dim * len(self.depths) * epochs
        self.keep = size <= CACHE_BYTES
        self.kept: dict[int | None, list] = {}

    def at(self, depth: int) -> AtDepth:
        return AtDepth(self, depth)

    def in_order(self, depth: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(features, labels) of the images as they are."""
        steps = self._steps(None, ([Part(images, labels, 1.0, 0)] for images, labels in self.batches), depth)
        return ((part.images, part.labels) for step in steps for part in step)

    def epoch(self, number: int, depth: int) -> Iterator[Iterator[Part]]:
        """An epoch's steps and their parts, with features for images."""
        return self._steps(number, self.batches.epoch(number), depth)

    def _steps(self, key: int | None, steps: Iterable[Iterable[Part]], depth: int) -> Iterator[Iterator[Part]]:
        if not self.keep:
            return ((_with(part, self._encode(part.images, [depth])[depth]) for part in step) for step in steps)
        if key not in self.kept:
            self.kept[key] = [[(_with(part, None), self._encode(part.images, self.depths)) for part in step] for step in steps]
        return ((_with(part, hidden[depth]) for part, hidden in step) for step in self.kept[key])

    @torch.no_grad()
    def _encode(self, images: torch.Tensor, depths: list[int]) -> dict[int, torch.Tensor]:
        found = {0: images}
        with autocast(self.precision, images.device):
            tokens = embed(self.encoder, images)
            for depth in range(1, max(depths) + 1):
                found[depth] = tokens = through(self.encoder, tokens, depth - 1, depth)
        return {depth: found[depth] for depth in depths}


def _with(part: Part, images: torch.Tensor | None) -> Part:
    return dataclasses.replace(part, images=images)


@dataclasses.dataclass(frozen=True)
class AtDepth:
    """`Features` at one depth, in the shape of `Batches`."""

    features: Features
    depth: int

    @property
    def labels(self) -> torch.Tensor:
        return self.features.batches.labels

    @property
    def batch_size(self) -> int:
        return self.features.batches.batch_size

    @property
    def waited(self) -> float:
        return self.features.batches.waited

    def __len__(self) -> int:
        return len(self.features.batches)

    def __iter__(self):
        return self.features.in_order(self.depth)

    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        return self.features.epoch(number, self.depth)


class Views:
    """Batches of what does not train any more makes of the images: `views` augmentations of each, in turn from epoch to epoch.

    shown: batches over every image once, unmixed; drawn: batches in the order to train in. seen(images) -> (B, ...).
    A view is made when it is first asked for, by all processes together, and stays in memory: views x N x what `seen` gives.
    """

    def __init__(self, shown: Batches, drawn: Batches, seen: Callable[[torch.Tensor], torch.Tensor], views: int, precision: str):
        self.shown, self.drawn, self.seen, self.views, self.precision = shown, drawn, seen, views, precision
        self.labels, self.batch_size = drawn.labels, drawn.batch_size
        self.made: dict[int, torch.Tensor] = {}

    @property
    def waited(self) -> float:
        return self.shown.waited

    def __len__(self) -> int:
        return len(self.drawn)

    def epoch(self, number: int) -> Iterator[Iterator[Part]]:
        view = self.view(number % self.views)
        for step in self.drawn.plan(number):
            batch = self.labels[torch.cat([places.indices for places in step])]
            own = [places for places in step if is_own(places.number)]
            yield (self._part(view, places, batch, number) for places in own)

    def _part(self, view: torch.Tensor, places: Places, batch: torch.Tensor, epoch: int) -> Part:
        n, i = places.number, places.indices
        own, indices, whole = sent({"own": self.labels[i], "indices": i, "batch": batch}, view.device).values()
        return Part(view[indices], own, len(i) / len(batch), n, epoch, own, indices, whole)

    @torch.no_grad()
    def view(self, number: int) -> torch.Tensor:
        """(N, ...): view `number` of every image, in the data set's order."""
        if number not in self.made:
            made: torch.Tensor | None = None
            for part in (part for step in self.shown.epoch(number) for part in step):
                with autocast(self.precision, part.images.device):
                    found = self.seen(part.images).float()
                if made is None:
                    made = found.new_zeros(len(self.labels), *found.shape[1:])
                made[part.indices] = found
            shape = distributed.from_first(None if made is None else made.shape)
            if made is None:  # of few parts none may be this process's
                made = torch.zeros(shape, device=self.shown.device)
            distributed.sum_over_processes([made], 0)
            self.made[number] = made
        return self.made[number]
