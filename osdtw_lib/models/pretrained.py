"""The weights `model.init` names, a timm pretrained tag or a file, fitted to the model.

Files come in many layouts: timm's names, alone or under "model", "state_dict", "model_ema" beside an optimizer; the
masked autoencoder's of He et al. (2022), with its decoder; under the prefixes that wrappers leave ("module.",
"base_encoder.", ...); and Stage 0 of another run, outputs/NAME/start/weights.safetensors. None is known by name: the
prefix is taken under which most of the model's own names are found. Names of another code are brought under timm's by
timm's converters (weight_layouts.py). Only the encoder is taken: final norm and head belong to the decoder and start anew,
whether the file calls its norm `norm` (class token) or `fc_norm` (average pooling).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from ..artifacts.files import read_tensors
from ..backend.timm_import import timm
from ..config import schema as cfg
from ..errors import UserError
from ..legible import legible
from .vit import ViT, depth_of, n_depths
from .weight_layouts import under_timms_names

SUFFIXES = cfg.WEIGHT_FILES
NOT_ENCODER = re.compile(r"(norm|fc_norm|head)\.|decoder_|mask_token$")  # decoder_*, mask_token: a masked autoencoder's
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MOST_LEVELS = 4  # of dicts within dicts that are looked through
Tensors = dict[str, torch.Tensor]


class Given(NamedTuple):
    """origin: where the weights came from, what was taken, left and changed, in words. table: the same, a row a tensor: its
    name in the model and in the start, both shapes, and what was done."""

    origin: str
    table: pd.DataFrame


def given_start(model: cfg.Model, vit: ViT) -> Given:
    """Load the weights `model.init` names into the encoder of vit.

    Raises UserError, and takes nothing, where a tensor of the encoder is missing, unknown, of another shape, of whole
    numbers or not finite.
    """
    path = weights_file(model)
    if path:
        everything, origin = read_weights(path), f"the file {path.name}"
    else:
        everything, origin = _pretrained(model, vit), f"timm's pretrained weights '{model.init}'"
    depths, own = depth_of(vit), dict(vit.named_parameters())
    encoder = {name: own[name] for name in own if depths[name] <= n_depths(vit)}
    tensors, names, taken = _encoder_names(everything, encoder, vit)
    theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if not encoder.keys() & tensors.keys():
        held = f"none of the encoder's {len(encoder)} tensors is there, but {_listed(list(everything))}"
        raise UserError(f"model.init '{model.init}': weights do not fit the model: {held}")
    problems = _of_another_kind(tensors, encoder)
    if not problems:
        tensors, changes = _fitted_embedding(tensors, vit)
        problems = _problems(tensors, encoder)
    if problems:
        hint = "; for a model without a class token set model.class_token: false" if "missing cls_token" in problems else ""
        raise UserError(f"model.init '{model.init}': weights do not fit the model: {problems}{hint}")
    with torch.no_grad():
        for name, parameter in encoder.items():
            parameter.copy_(tensors[name])
    return Given(", ".join([origin, taken, *changes]), _table(own, encoder, everything, names, theirs))


def _table(own: Tensors, encoder: Tensors, everything: Tensors, names: dict[str, str], theirs: dict[str, tuple]) -> pd.DataFrame:
    """Given.table: the model's tensors, then what was left of the start's. names: {model's: start's}, theirs: their shapes."""
    rows = []
    for name, parameter in own.items():
        shape, found = tuple(parameter.shape), theirs.get(name) if name in encoder else None
        what = "starts anew" if found is None else "taken" if found == shape else "resized"
        source = names.get(name, "") if found else ""
        rows.append((name, _sides(shape), legible(source), _sides(found or ()), what))
    used = {names[name] for name in encoder if name in names}
    rows += [("", "", legible(name), _sides(tuple(t.shape)), "left out") for name, t in everything.items() if name not in used]
    return pd.DataFrame(rows, columns=["tensor", "shape", "in_the_start", "shape_there", "what"])


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def weights_file(model: cfg.Model) -> Path | None:
    """The file of weights `model.init` names, if it names one. Raises UserError where it is not there."""
    if not model.init.endswith(SUFFIXES):
        return None
    path = cfg.PROJECT / Path(model.init).expanduser()
    if not path.is_file():
        raise UserError(f"model.init: no such file {path}; give the path from the project's folder, or a full one")
    return path


def read_weights(path: Path) -> Tensors:
    """Every tensor in a file of one of SUFFIXES, without running code from it; one in a dict in a dict is `outer.inner`.

    Raises UserError, one line.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises errors of many kinds
        unsafe = re.search(r"GLOBAL (\S+)", str(error))
        if unsafe:
            raise UserError(
                f"{path}: holds a pickled {unsafe.group(1)}, which could run code when read; "
                "where you trust it, save its state dict alone with torch.save and name that file"
            ) from None
        raise UserError(f"{path}: damaged or no file of weights ({type(error).__name__}); fetch or make it again") from None
    entries = dict(_entries(content)) if isinstance(content, dict) else {}
    tensors = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        found = _listed(list(entries)) if entries else f"a {type(content).__name__}"
        raise UserError(f"{path}: no state dict, by itself or under another name: it holds no named tensor, but {found}")
    return tensors


def _entries(content: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """What is in dicts within dicts, under joined names: `model.blocks.0...`, `optimizer.state.0.exp_avg`."""
    for name, value in content.items():
        if isinstance(value, dict) and prefix.count(".") < MOST_LEVELS:
            yield from _entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def require_start(model: cfg.Model) -> None:
    """Raises UserError where `model.init` is nothing known: no file there, no pretrained tag of timm's. Nothing is fetched."""
    if model.init in ("masked_autoencoding", "scratch") or weights_file(model):
        return
    architecture = model.init.split(".")[0]
    if not timm.is_model(architecture):
        known = f"masked_autoencoding, scratch, a file ({', '.join(SUFFIXES)}) nor a timm model"
        raise UserError(f"model.init '{model.init}': neither {known}")
    if not timm.is_model_pretrained(model.init):
        known = timm.list_pretrained(f"{architecture}.*")
        raise UserError(f"model.init '{model.init}': timm has no such weights; it has {', '.join(known) or 'none of this model'}")


def _pretrained(model: cfg.Model, vit: ViT) -> Tensors:
    require_start(model)
    architecture = model.init.split(".")[0]
    with torch.device("meta"):
        outline = timm.models.model_entrypoint(architecture)()
    if not isinstance(outline, ViT):
        kind = type(outline).__name__
        raise UserError(
            f"model.init '{model.init}': a {kind}, no timm VisionTransformer or Eva (nothing was fetched); "
            "try vit_base_patch16_224.mae"
        )
    if odd := _kinds(outline) ^ _kinds(vit):
        raise UserError(
            f"model.init '{model.init}': the blocks of model.architecture '{model.architecture}' compute otherwise "
            f"({', '.join(sorted(odd))}; nothing was fetched); set model.architecture: {architecture}"
        )
    if outline.embed_dim == vit.embed_dim and _heads(outline) != _heads(vit):  # which no tensor's shape tells
        raise UserError(
            f"model.init '{model.init}': it has {_heads(outline)} heads and the model {_heads(vit)} (nothing was fetched); "
            f"set model.heads: {_heads(outline)}"
        )
    print(f"start: fetches '{model.init}' unless it was fetched before", flush=True)
    try:
        with _quiet("huggingface_hub"):
            return timm.create_model(model.init, pretrained=True, num_classes=0, in_chans=model.channels).state_dict()
    except Exception as error:  # timm and its hub client raise many kinds where there is no network
        source = timm.get_pretrained_cfg(model.init)
        if str(source.url).endswith(SUFFIXES):
            what, name = source.url, source.url.rpartition("/")[2]
        else:
            what, name = f"model.safetensors of {source.hf_hub_id}", f"{model.init}.safetensors"
        raise UserError(
            f"model.init '{model.init}': the weights could not be fetched ({type(error).__name__}); on a machine with a network "
            f"fetch {what}, put it here as weights/{name} and set model.init: weights/{name}"
        ) from None


def _kinds(vit: ViT) -> set[str]:
    """What a block is made of, in words: layers and activations, which the names and shapes of tensors do not tell."""
    leaves = [m for m in vit.blocks[0].modules() if not any(m.children())]
    told = {f"{type(m).__name__}{f' of eps {m.eps:g}' if hasattr(m, 'eps') else ''}" for m in leaves}
    return told - {"Dropout", "DropPath", "Identity"}


def _heads(vit: ViT) -> int:
    return next((m.num_heads for m in vit.blocks[0].modules() if hasattr(m, "num_heads")), 0)


@contextlib.contextmanager
def _quiet(logger: str):
    """Its warnings are kept back: a retry each, where one line at the end says it all."""
    named = logging.getLogger(logger)
    level = named.level
    named.setLevel(logging.ERROR)
    try:
        yield
    finally:
        named.setLevel(level)


def _encoder_names(tensors: Tensors, encoder: Tensors, vit: ViT) -> tuple[Tensors, dict[str, str], str]:
    """What belongs to the encoder, under timm's names; {timm's name: the start's}; and in words which, and what is left.

    It lies under the prefix with most of the encoder's names; of several with as many the file's first is taken and the
    others are named. What certainly belongs to a decoder is left.
    """
    prefix, others, count = _prefix(tensors, encoder)
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    names = {name: prefix + name for name in inside}
    how = f" (as many are under {_listed([repr(other) for other in others])})" if others else ""
    whole = encoder.keys() - {"pos_embed", "cls_token"} <= inside.keys()
    converted = None if whole else under_timms_names(tensors, vit)
    if converted and len(encoder.keys() & converted[0].keys()) > count:
        inside, prefix = converted
        where = {tensor.data_ptr(): name for name, tensor in tensors.items()}  # most are the file's very own tensors
        same = {name: prefix + name if prefix + name in tensors else "" for name in inside}  # the others have changed
        names = {name: where.get(tensor.data_ptr(), same[name]) for name, tensor in inside.items()}
        how = " under another code's names"
    taken = {name: tensor for name, tensor in inside.items() if not NOT_ENCODER.match(name)}
    used = {names[name] for name in taken}
    left = [name for name in tensors if name not in used]
    said = f"{len(taken)} tensors" + (f" under '{prefix}'" if prefix else "") + how
    return taken, names, said + (f", {len(left)} left out ({_listed(left, 3)})" if left else "")


def _prefix(tensors: Tensors, encoder: Tensors) -> tuple[str, list[str], int]:
    """The prefix with most of the encoder's names, others with as many, and how many these are."""
    found = Counter()
    for name in tensors:
        ends = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        found.update(name[:end] for end in ends if name[end:] in encoder)
    most = max(found.values(), default=0)
    prefix, *others = [prefix for prefix, count in found.items() if count == most] or [""]
    return prefix, others, most


def _fitted_embedding(tensors: Tensors, vit: ViT) -> tuple[Tensors, list[str]]:
    """Class token and position embedding (1, prefix + patches, D) as vit has them, and what was changed, in words.

    Some models add no position to the class token (timm's no_embed_class): nothing is zero there, and a position the
    file has is added to the token itself, so both compute the same.
    """
    tensors, changes = dict(tensors), []
    if vit.pos_embed is None and vit.cls_token is None and tensors.pop("cls_token", None) is not None:
        changes.append("its class token left out")
    tokens = [tensors[name] for name in ("pos_embed", "cls_token", "reg_token") if name in tensors]
    if "pos_embed" not in tensors or any(token.ndim != 3 or token.shape[0] != 1 for token in tokens):
        return tensors, changes
    position, grid = tensors["pos_embed"], vit.patch_embed.grid_size
    prefix = [name for name in ("cls_token", "reg_token") if name in tensors]  # in the order in which timm has them
    lengths = [tensors[name].shape[1] for name in prefix]
    placed = _prefix_positions(position.shape[1], sum(lengths), math.prod(grid), vit.no_embed_class)
    if placed is None:
        return tensors, changes
    positions = position[:, :placed] if placed else position.new_zeros(1, sum(lengths), position.shape[2])
    positions, patches = dict(zip(prefix, positions.split(lengths, dim=1) if prefix else ())), position[:, placed:]
    if patches.shape[1] != math.prod(grid):
        side = math.isqrt(patches.shape[1])
        patches = timm.layers.resample_abs_pos_embed(patches, list(grid), num_prefix_tokens=0)
        changes.append(f"position embedding resampled from {side} x {side} to {grid[0]} x {grid[1]}")
    if "cls_token" in tensors and vit.cls_token is None:
        del tensors["cls_token"], positions["cls_token"]
        changes.append("its class token left out")
    if vit.no_embed_class:
        tensors |= {name: tensors[name] + own for name, own in positions.items()}
        tensors["pos_embed"] = patches
    else:
        tensors["pos_embed"] = torch.cat([*positions.values(), patches], dim=1)
    return tensors, changes


def _prefix_positions(length: int, prefix: int, patches: int, none_first: bool) -> int | None:
    """How many of `length` positions belong to the `prefix` tokens: all or none, as the model has it where both would do.

    The rest is `patches`, or a square.
    """
    rests = {n: length - n for n in ((0, prefix) if none_first else (prefix, 0)) if length > n}
    return next((n for n, rest in rests.items() if rest == patches or math.isqrt(rest) ** 2 == rest), None)


def _of_another_kind(tensors: Tensors, encoder: Tensors) -> str:
    """Which of the encoder's tensors hold no plain floating-point numbers (int8 weights have scales of their own)."""
    odd = [
        f"{name} {tensors[name].dtype}".replace("torch.", "")
        for name in sorted(encoder.keys() & tensors.keys())
        if tensors[name].dtype not in FLOATS or tensors[name].layout != torch.strided
    ]
    return f"no floating-point numbers {_listed(odd)}; give the weights before they were quantized or packed" if odd else ""


def _problems(tensors: Tensors, encoder: Tensors) -> str:
    """What does not fit, in words; nothing where all does."""
    both = sorted(encoder.keys() & tensors.keys())
    shapes = [(n, *map(tuple, (tensors[n].shape, encoder[n].shape))) for n in both if tensors[n].shape != encoder[n].shape]
    found = {
        "missing": sorted(encoder.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - encoder.keys()),
        "of another shape": [f"{name} {theirs}, here {own}" for name, theirs, own in shapes],
        "not finite": [name for name in both if not tensors[name].isfinite().all()],
    }
    return "; ".join(f"{what} {_listed(names)}" for what, names in found.items() if names)


def _listed(names: list, most: int = 5) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
