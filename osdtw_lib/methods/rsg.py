"""RSG over LDAM, a rare class's new map = its map + T(v), v a frequent class's map less its centre; T keeps |v| and a course."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import Beta, Fraction, Layers, Rate, Section, Side, Strength
from ..errors import UserError
from ..models.vit import ViT, decode, encode, n_depths
from ..data.augment import UNMIXED
from ..training.phase import Phase
from ._base import Method
from ._parts import effective_weights, is_late, ldam, margins, with_cosine_head


def assigned(pooled: Tensor, directions: Tensor, bias: Tensor) -> Tensor:
    """How far features (B, D) are each of their class's J centres' (B, J); directions (B, D, J), bias (B, J)."""
    return ((pooled[:, :, None] * directions).sum(1) + bias).softmax(1)


def to_centres(maps: Tensor, shares: Tensor, centres: Tensor) -> Tensor:
    """(B,), sum_j g_j |f - c_j|^2 over positions: maps (B, D, h, w), shares (B, J), centres (B, J, D). It is the spread about
    the map's mean and the mean's about the centres; (B, J, D, h, w) would not fit."""
    mean = maps.mean((2, 3))
    apart = (shares * (mean[:, None] - centres).square().sum(2)).sum(1)
    return (maps - mean[:, :, None, None]).square().sum((1, 2, 3)) + maps[0, 0].numel() * apart


def strays(moved: Tensor, own: Tensor, rare: Tensor) -> Tensor:
    """(B,), | |moved| - |own| | + |cos(moved, rare) - 1| over the positions of maps (B, D, h, w)."""
    length = (moved.norm(dim=1) - own.norm(dim=1)).abs()
    return (length + (F.cosine_similarity(moved, rare, dim=1) - 1).abs()).sum((1, 2))


def pairs(frequent: Tensor) -> tuple[Tensor, Tensor]:
    """Of images that are frequent or not (B,): a rare one and a frequent one each, in order; the fewer go round whole times."""
    rare, often = (~frequent).nonzero()[:, 0], frequent.nonzero()[:, 0]
    less, more = sorted((len(rare), len(often)))
    at = torch.arange(more - more % less if less else 0, device=frequent.device)
    return rare[at % max(1, len(rare))], often[at % max(1, len(often))]


class Generator(nn.Module):
    """A network; after `depth` blocks the centres of every class, T (`move`), and what tells maps of one class from others."""

    def __init__(self, vit: ViT, frequent: Tensor, centres: int, width: int):
        super().__init__()
        at, size, last = vit.head.weight.device, vit.embed_dim, n_depths(vit)
        self.vit, self.depth, self.before = vit, max(1, min(round(0.75 * last), last - 1)), vit.num_prefix_tokens
        self.register_buffer("frequent", frequent.to(at), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.directions = nn.Parameter((torch.randn(len(frequent), size, centres) / size**0.5).to(at))
            self.move = nn.Conv2d(size, size, 3, padding=1).to(at)
            mixed = nn.Conv2d(2 * size, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
            self.alike = nn.Sequential(*mixed, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)).to(at)
        self.bias = nn.Parameter(torch.zeros(len(frequent), centres, device=at))
        self.centres = nn.Parameter(torch.zeros(len(frequent), centres, size, device=at))

    def forward(self, images: Tensor, labels: Tensor, late: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scores and labels, late with those of new maps; what the centres cost, and what the new maps do."""
        hidden = encode(self.vit, images, self.depth)
        kept = hidden.detach()
        maps = kept[:, self.before :].float().mT.unflatten(2, self.vit.patch_embed.grid_size)
        shares = assigned(maps.mean((2, 3)), self.directions[labels], self.bias[labels])
        sought, cost = to_centres(maps, shares, self.centres[labels]).mean(), maps.new_zeros(())
        if not late:
            half, rest = len(maps) // 2, -(-len(maps) // 2)  # of an odd number one stands in two pairs
            told = self.alike(torch.cat([maps[:rest], maps[half:]], dim=1)).float()
            sought = sought + F.cross_entropy(told, (labels[:rest] == labels[half:]).long())
            return decode(self.vit, hidden, self.depth).float(), labels, sought, cost
        rare, often = pairs(self.frequent[labels])
        if len(rare):
            varied = maps - self.centres[labels, shares.argmax(1)].detach()[:, :, None, None]
            moved = self.move(varied[often]).float()
            fixed = {name: p.detach() for name, p in self.alike.named_parameters()}
            told = torch.func.functional_call(self.alike, fixed, torch.cat([maps[often], moved], dim=1)).float()
            cost = F.cross_entropy(told, torch.zeros_like(rare)) + strays(moved, varied[often], varied[rare]).mean()
            new = torch.cat([kept[rare, : self.before], (maps[rare] + moved).flatten(2).mT.to(kept)], dim=1)
            hidden, labels = torch.cat([hidden, new]), torch.cat([labels, labels[rare]])
        return decode(self.vit, hidden, self.depth).float(), labels, sought, cost


class RSG(Method):
    """Maps are the patch tokens after three quarters of the blocks, the paper's those before a CNN's last stage; a class token
    passes as it is. New maps point where the rare one does by the cosine, as the text has it: the authors' code compares element
    by element, and mixes channels with positions. Pairs are a part's own; what new maps take is not in the counted FLOPs.
    Images are not mixed."""

    title = "RSG over LDAM, on a ViT's tokens"
    source = "Wang et al. 2021, CVPR"
    space = {"margin": (0.2, 0.3, 0.8), "scale": (10.0, 20.0, 30.0)}

    class Parameters(Section):
        centres: Layers = 15  # a class
        width: Side = 256  # of what compares maps
        frequent: Fraction = 0.2  # of the classes, at least one
        generate_from: Fraction = 0.8  # of the epochs, and after the first: centres come before
        late: Literal["weights", "sampling"] = "weights"  # by effective numbers from there on; sampling but for CIFAR
        centre_loss: Strength = 0.1
        variation_loss: Strength = 0.01
        margin: Strength = 0.5  # 0.3 for ImageNet-LT, 0.2 with scale 50 for Places-LT
        scale: Rate = 30.0
        beta: Beta = 0.9999

    def build(self) -> Generator:
        own, counts = self.parameters, torch.as_tensor(self.problem.class_counts)
        if self.problem.config.model.pooling == "token":
            raise UserError("baselines.rsg: its new maps are patches, which a class token does not pool; set model.pooling: avg")
        first = counts.argsort(descending=True, stable=True)[: max(1, int(own.frequent * len(counts)))]
        frequent = torch.zeros(len(counts), dtype=torch.bool).index_fill(0, first, True)
        return Generator(with_cosine_head(self.problem.vit(len(counts)), own.scale), frequent, own.centres, own.width)

    def late(self, epoch: int) -> bool:
        return epoch > 0 and is_late(epoch, self.problem.length.epochs, self.parameters.generate_from)

    def phases(self):
        own, counts = self.parameters, torch.as_tensor(self.problem.class_counts)
        effective = effective_weights(counts, own.beta)
        weights_of, lowered = map(self.problem.constant, (effective, margins(counts, own.margin)))

        def losses(network, part):
            late = self.late(part.epoch)
            scores, labels, sought, cost = network(part.images, part.labels, late)
            weights = (weights_of if late and own.late == "weights" else torch.ones_like(weights_of)).to(scores)[labels]
            each = (weights * ldam(scores, labels, lowered, own.scale)).sum() / weights.sum()
            return {"ldam": each, "centres": own.centre_loss * sought, "variation": own.variation_loss * cost}

        def sampling(epoch):
            return tuple((counts * effective).tolist()) if self.late(epoch) and own.late == "sampling" else "images"

        return [Phase(self.problem.length, losses, sampling=sampling, recipe=UNMIXED, coupled=True)]

    def scores(self, network: Generator, images: Tensor) -> Tensor:
        return network.vit(images).float()


METHOD = RSG
