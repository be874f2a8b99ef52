"""What PaCo and GPaCo share: a network with a projection, a queue of keys, and the loss over classes and keys."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backend import gpus
from ..models.vit import ViT
from ..training.phase import Part
from ._parts import features


def parametric_contrast(
    scores: Tensor, anchors: Tensor, labels: Tensor, keys: Tensor, key_labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Of adjusted scores (A, K), anchors (A, D) and their labels (A,): (A,). The anchors, but for oneself, and the keys
    (C, D) stand beside the classes; one of the same label counts alpha, the own class 1. A label of -1 is no key.
    """
    everyone, theirs = torch.cat([anchors, keys]), torch.cat([labels, key_labels])
    with torch.autocast("cuda" if scores.is_cuda else "cpu", enabled=False):
        alike = anchors @ everyone.T / temperature
    itself = torch.eye(len(anchors), len(everyone), dtype=torch.bool, device=scores.device)
    beside = (theirs >= 0) & ~itself
    whole = torch.cat([scores, alike.masked_fill(~beside, -torch.inf)], dim=1).logsumexp(1)
    positive = alpha * (beside & (theirs == labels[:, None])).to(scores)
    own = scores.gather(1, labels[:, None])[:, 0]
    pulled = own - whole + (positive * (alike - whole[:, None])).sum(1)
    return -pulled / (1 + positive.sum(1))


class Contrasted(nn.Module):
    """images -> scores (B, K) and projections (B, D) of length 1. Keys of earlier steps stand in a queue, the newest first;
    only what was seen is in it. average: how much of itself a moving average keeps at each step, where there is one."""

    def __init__(self, vit: ViT, size: int, queue: int, average: float | None = None):
        super().__init__()
        at = vit.head.weight.device
        self.vit, self.projector, self.average = vit, _projector(vit.num_features, size).to(at), average
        self.register_buffer("queue", torch.zeros(queue, size, device=at))
        self.register_buffer("queue_labels", torch.full((queue,), -1, device=at))
        self.fresh: list[tuple[Tensor, Tensor]] = []  # of the step that is being worked through
        if average is not None:
            self.slow = copy.deepcopy(nn.ModuleDict({"vit": vit, "projector": self.projector})).requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = features(self.vit, images)
        return self.vit.head(found).float(), F.normalize(self.projector(found).float(), dim=-1)

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """The moving average's projections."""
        return F.normalize(self.slow["projector"](features(self.slow["vit"], images)).float(), dim=-1)

    def against(self, keys: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """These keys and the queue's, and their labels."""
        return torch.cat([keys, self.queue.to(keys)]), torch.cat([labels, self.queue_labels])

    def remember(self, part: Part, keys: Tensor) -> None:
        """Keys for the queue, when the step is done; a step's first part forgets those of a step that never was."""
        if part.number == 0:
            self.fresh.clear()
        self.fresh.append((keys.detach(), part.labels))

    @torch.no_grad()
    def after_step(self) -> None:
        keys, labels = (torch.cat(both) for both in zip(*self.fresh))
        self.fresh.clear()
        self.queue.copy_(torch.cat([keys, self.queue])[: len(self.queue)])
        self.queue_labels.copy_(torch.cat([labels, self.queue_labels])[: len(self.queue)])
        if self.average is not None:
            for name in ("vit", "projector"):
                for slow, fast in zip(self.slow[name].parameters(), getattr(self, name).parameters()):
                    slow.lerp_(fast, 1 - self.average)


def _projector(width: int, size: int) -> nn.Sequential:
    with gpus.random_state_kept():
        torch.manual_seed(0)
        first, second, last = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, size)
    return nn.Sequential(first, nn.GELU(), second, nn.GELU(), last)
