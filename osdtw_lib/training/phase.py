"""One training as a value: what is trained on what, with which loss, for how long. `fit` runs it, the plan counts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..backend.precision import autocast
from ..config.schema import Training
from ..data.batches import Part

Losses = Callable[[nn.Module, Part], dict[str, Tensor] | Iterable[dict[str, Tensor]]]


@dataclass(frozen=True)
class Phase:
    """length: epochs, warm-up, peak rate. losses(network, part) -> {name: loss}, whose sum is minimised; or several of those,
    one after the other, of networks that share no parameter: each is taken backward before the next is asked for.

    A loss is a number, the mean over the part's images, or one number an image (B,). part has images, labels (B,) or, where
    mixed, (B, K), epoch (from 0), indices (B,), and `two_labels`, what a hard-label loss needs.
    class_weights(epoch): (K,) or None; the losses of one number an image then become sum w l / sum w over the whole batch,
    however it is cut into parts, w by the image's own label.
    prepare(network): before the training: freeze, a new head. What is frozen stands in evaluation mode.
    after_step(network): after every step of the optimizer: a projection, a moving average.
    sampling: how an epoch's images are drawn, a name of data/sampling.py or a share a class (K,); where that changes, as a
    function of the epoch. recipe: what differs from the run's recipe; nothing is mixed from the epoch `unmixed_from` on.
    momentum: SGD with it, instead of AdamW.
    draw: another order and augmentation of the same images.
    streams: beside every image another one, in part.more: "again", the same image augmented anew, or drawn by a sampling.
    frozen(network, images) -> what the loss is given for images, first axis (B, ...), by what does not train here; made once
    of each of `views` augmentations of every image and kept, epoch e sees view e mod views. Nothing is mixed then.
    coupled: the loss of an image depends on the others of its part, so that several processes would train differently.
    """

    length: Training
    losses: Losses
    name: str = "training"
    class_weights: Callable[[int], Tensor | None] | None = None
    prepare: Callable[[nn.Module], object] | None = None
    after_step: Callable[[nn.Module], object] | None = None
    sampling: str | tuple[float, ...] | Callable[[int], str | tuple[float, ...]] = "images"
    recipe: dict = field(default_factory=dict)
    unmixed_from: int | None = None
    momentum: float | None = None
    draw: int = 0
    streams: tuple[str, ...] = ()
    frozen: Callable[[nn.Module, Tensor], Tensor] | None = None
    views: int = 4
    coupled: bool = False

    def prepared(self, network: nn.Module, seed: int = 0) -> nn.Module:
        """The network, ready for this training; what `prepare` draws depends on the seed alone."""
        if self.prepare:
            with torch.random.fork_rng({p.device for p in network.parameters() if p.is_cuda}):
                torch.manual_seed(seed)
                self.prepare(network)
        return network

    @torch.no_grad()
    def seen(self, network: nn.Module, images: Tensor) -> Tensor:
        """What the loss is given for these images: themselves, or what `frozen` makes of them."""
        return self.frozen(network, images) if self.frozen else images

    def part_of(self, images: Tensor, labels: Tensor) -> Part:
        """A whole batch as one part, of images as the loss is given them; the further streams show the same images."""
        one = Part(images, labels, 1.0, 0, own=labels, batch=labels, indices=torch.zeros_like(labels))
        return dataclasses.replace(one, more=(one,) * len(self.streams))


def in_turn(phase: Phase, network: nn.Module, part: Part, precision: str = "fp32") -> Iterator[dict[str, Tensor]]:
    """{name: a number} of losses with one graph, then of the next, which is computed when it is asked for: each loss as this
    part's share of the batch's mean, times batch over part."""
    weights = phase.class_weights(part.epoch) if phase.class_weights else None
    forward = autocast(precision, part.images.device)
    with forward:
        found = phase.losses(network, part)
    groups = iter([found] if isinstance(found, dict) else found)
    while True:
        with forward:  # not around what is done with them
            losses = next(groups, None)
            if losses is None:
                return
            losses = {name: _mean(loss, part, weights) for name, loss in losses.items()}
        yield losses


def means(phase: Phase, network: nn.Module, part: Part) -> dict[str, Tensor]:
    """{name: a number} of all losses at once."""
    return {name: loss for losses in in_turn(phase, network, part) for name, loss in losses.items()}


def backward(phase: Phase, network: nn.Module, part: Part, precision: str = "fp32") -> dict[str, Tensor]:
    """Add the gradients of the part's share of the loss; returns {name: a number}, without graph."""
    found = {}
    for losses in in_turn(phase, network, part, precision):
        (part.share * sum(losses.values())).backward()
        found |= {name: loss.detach() for name, loss in losses.items()}
    return found


def _mean(loss: Tensor, part: Part, weights: Tensor | None) -> Tensor:
    if loss.ndim == 0:
        return loss
    if weights is None:
        return loss.mean()
    each, whole = weights.to(loss)[part.own], weights.to(loss)[part.batch].sum()
    return (each * loss).sum() / whole / part.share


def hard(part: Part, loss: Callable[[Tensor], Tensor], weights: Tensor | None = None) -> Tensor:
    """loss(labels (B,)) -> (B,) of hard labels, under mixup and cutmix too: both labels, each with its share (B,).

    weights (K,): where the phase has class weights, which count an image by its own label: so that the other counts by its.
    """
    own, other, share = part.two_labels()
    if other is own:
        return loss(own)
    weights = None if weights is None else weights.to(own.device)
    relative = 1 if weights is None else (weights[other] / weights[own]).to(share)
    return share * loss(own) + (1 - share) * relative * loss(other)
