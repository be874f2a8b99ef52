"""The weights `model.init` names, a timm pretrained tag or a file, fitted to the model.

Files come in several layouts: timm's names; those of the original masked autoencoder (He et al. 2022), a dict under
"model" that may hold the decoder too; checkpoints of fine-tuning scripts built on it (LiVT), with the optimizer and
the script's arguments beside "model" and perhaps "module." or "encoder." before every name; and Stage 0 of another
run, outputs/NAME/start/weights.safetensors. Only the encoder is taken: final norm and head belong to the decoder
and start anew, whether the file calls its norm `norm` (class token) or `fc_norm` (average pooling).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import re
from pathlib import Path

import torch

from ..artifacts.files import read_tensors
from ..backend.timm_import import timm
from ..config import schema as cfg
from ..errors import UserError
from .vit import VisionTransformer, depth_of, n_depths

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NOT_ENCODER = re.compile(r"(norm|fc_norm|head)\.|decoder_|mask_token$")  # decoder_*, mask_token: a masked autoencoder's
Tensors = dict[str, torch.Tensor]


def given_start(model: cfg.Model, vit: VisionTransformer) -> str:
    """Load the weights `model.init` names into the encoder of vit; returns where from, and what was changed to fit.

    Raises UserError, and takes nothing, where a tensor of the encoder is missing, unknown, of another shape or not finite.
    """
    path = weights_file(model)
    if path:
        tensors, origin = read_weights(path), f"the file {path.name}"
    else:
        tensors, origin = _pretrained(model), f"timm's pretrained weights '{model.init}'"
    tensors, changes = _fitted_embedding(_encoder_names(tensors), vit)
    depths, own = depth_of(vit), dict(vit.named_parameters())
    encoder = {name: own[name] for name in own if depths[name] <= n_depths(vit)}
    problems = _problems(tensors, encoder)
    if problems:
        hint = "; for a model without a class token set model.class_token: false" if "missing cls_token" in problems else ""
        raise UserError(f"model.init '{model.init}': weights do not fit the model: {problems}{hint}")
    with torch.no_grad():
        for name, parameter in encoder.items():
            parameter.copy_(tensors[name])
    return ", ".join([origin, *changes])


def weights_file(model: cfg.Model) -> Path | None:
    """The file of weights `model.init` names, if it names one. Raises UserError where it is not there."""
    if not model.init.endswith(SUFFIXES):
        return None
    path = cfg.PROJECT / Path(model.init).expanduser()
    if not path.is_file():
        raise UserError(f"model.init: no such file {path}; give the path from the project's folder, or a full one")
    return path


def read_weights(path: Path) -> Tensors:
    """The state dict in a file of one of SUFFIXES, without running code from it. Raises UserError, one line."""
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
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    odd = [name for name, tensor in content.items() if not isinstance(tensor, torch.Tensor)] if isinstance(content, dict) else []
    if not isinstance(content, dict) or not content or odd:
        found = f"beside tensors it has {_listed(odd)}" if odd else f"it holds a {type(content).__name__}"
        raise UserError(f"{path}: no state dict, by itself or under 'model' or 'state_dict': {found}")
    return content


def _pretrained(model: cfg.Model) -> Tensors:
    architecture = model.init.split(".")[0]
    if not timm.is_model(architecture):
        known = f"masked_autoencoding, scratch, a file ({', '.join(SUFFIXES)}) nor a timm model"
        raise UserError(f"model.init '{model.init}': neither {known}")
    if not timm.is_model_pretrained(model.init):
        known = timm.list_pretrained(f"{architecture}.*")
        raise UserError(f"model.init '{model.init}': timm has no such weights; it has {', '.join(known) or 'none of this model'}")
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


def _encoder_names(tensors: Tensors) -> Tensors:
    """Under timm's names, without what certainly belongs to a decoder."""
    for prefix in ("module.", "encoder."):
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if not NOT_ENCODER.match(name)}


def _fitted_embedding(tensors: Tensors, vit: VisionTransformer) -> tuple[Tensors, list[str]]:
    """Class token and position embedding (1, prefix + patches, D) as vit has them, and what was changed, in words.

    Some models add no position to the class token (timm's no_embed_class): nothing is zero there, and a position the
    file has is added to the token itself, so both compute the same.
    """
    tensors, changes = dict(tensors), []
    if "pos_embed" not in tensors or tensors["pos_embed"].ndim != 3:
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


def _listed(names: list) -> str:
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
