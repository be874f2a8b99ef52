"""The weights `model.init` names, a timm pretrained tag or a file, fitted to the model.

Files come in many layouts: timm's names, alone or under "model", "state_dict", "model_ema" beside an optimizer; the
masked autoencoder's of He et al. (2022), with its decoder; under the prefixes that wrappers leave ("module.",
"base_encoder.", ...); and Stage 0 of another run, outputs/NAME/start/weights.safetensors. None is known by name: the
prefix is taken under which most of the model's own names are found. Only the encoder is taken: final norm and head
belong to the decoder and start anew, whether the file calls its norm `norm` (class token) or `fc_norm` (average pooling).
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

import torch

from ..artifacts.files import read_tensors
from ..backend.timm_import import timm
from ..config import schema as cfg
from ..errors import UserError
from .vit import VisionTransformer, depth_of, n_depths

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NOT_ENCODER = re.compile(r"(norm|fc_norm|head)\.|decoder_|mask_token$")  # decoder_*, mask_token: a masked autoencoder's
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MOST_LEVELS = 4  # of dicts within dicts that are looked through
Tensors = dict[str, torch.Tensor]


def given_start(model: cfg.Model, vit: VisionTransformer) -> str:
    """Load the weights `model.init` names into the encoder of vit; returns where from, what was taken, left and changed.

    Raises UserError, and takes nothing, where a tensor of the encoder is missing, unknown, of another shape, of whole
    numbers or not finite.
    """
    path = weights_file(model)
    if path:
        tensors, origin = read_weights(path), f"the file {path.name}"
    else:
        tensors, origin = _pretrained(model), f"timm's pretrained weights '{model.init}'"
    depths, own = depth_of(vit), dict(vit.named_parameters())
    encoder = {name: own[name] for name in own if depths[name] <= n_depths(vit)}
    tensors, taken = _encoder_names(tensors, encoder)
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
    return ", ".join([origin, taken, *changes])


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


def _pretrained(model: cfg.Model) -> Tensors:
    require_start(model)
    with torch.device("meta"):
        outline = timm.models.model_entrypoint(model.init.split(".")[0])()
    if not isinstance(outline, VisionTransformer):
        kind = type(outline).__name__
        raise UserError(
            f"model.init '{model.init}': a {kind}, no timm VisionTransformer (nothing was fetched); try vit_base_patch16_224.mae"
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


def _encoder_names(tensors: Tensors, encoder: Tensors) -> tuple[Tensors, str]:
    """What lies under the prefix with most of the encoder's names, under timm's names; and in words which, and what is left.

    Of several prefixes with as many the file's first is taken and the others are named. What certainly belongs to a
    decoder is left.
    """
    found = Counter()
    for name in tensors:
        ends = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        found.update(name[:end] for end in ends if name[end:] in encoder)
    most = max(found.values(), default=0)
    prefix, *others = [prefix for prefix, count in found.items() if count == most] or [""]
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    taken = {name: tensor for name, tensor in inside.items() if not NOT_ENCODER.match(name)}
    said = f"{len(taken)} tensors" + (f" under '{prefix}'" if prefix else "")
    also = f" (as many are under {_listed([repr(other) for other in others])})" if others else ""
    left = [name for name in tensors if name.removeprefix(prefix) not in taken or not name.startswith(prefix)]
    return taken, said + also + (f", {len(left)} left out ({_listed(left, 3)})" if left else "")


def _fitted_embedding(tensors: Tensors, vit: VisionTransformer) -> tuple[Tensors, list[str]]:
    """Class token and position embedding (1, prefix + patches, D) as vit has them, and what was changed, in words.

    Some models add no position to the class token (timm's no_embed_class): nothing is zero there, and a position the
    file has is added to the token itself, so both compute the same.
    """
    tensors, changes = dict(tensors), []
    tokens = [tensors[name] for name in ("pos_embed", "cls_token", "reg_token") if name in tensors]
    if "pos_embed" not in tensors or any(token.ndim != 3 or token.shape[0] != 1 for token in tokens):
        return tensors, changes
    position, grid = tensors["pos_embed"], vit.patch_embed.grid_size
    prefix = [name for name in ("cls_token", "reg_token") if name in tensors]  # in the order in which timm has them
    lengths = [tensors[name].shape[1] for name in prefix]
    placed = _prefix_positions(position.shape[1], sum(lengths), math.prod(grid))
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


def _prefix_positions(length: int, prefix: int, patches: int) -> int | None:
    """How many of `length` positions belong to the `prefix` tokens: all or none. The rest is `patches`, or a square."""
    candidates = (prefix, 0)
    same = [n for n in candidates if length - n == patches]
    square = [n for n in candidates if length > n and math.isqrt(length - n) ** 2 == length - n]
    return next(iter(same + square), None)


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
