"""Pixels as the start was trained on: what timm says of a pretrained tag, where the parameter file says nothing."""

from __future__ import annotations


from ..backend.timm_import import timm
from ..config.schema import Config, Model
from .vit import outline


def with_start_pixels(config: Config) -> Config:
    """The same with mean, std, crop_share, interpolation and image size as the start was trained, where they are left open.

    What timm does not say, or says of another number of channels, is as the data set's `usual` has it; an image size that
    is the architecture's own stays open. Nothing is fetched. Raises UserError for an architecture that cannot be built.
    """
    own, data, model = own_pixels(config.model), config.data, config.model
    left = {key: own[key] for key in data.usual.keys() & own.keys() if getattr(data, key) is None}
    changed = {"data": data.model_copy(update=left).filled}
    size = own.get("image_size")
    if model.image_size is None and size and size % (model.patch_size or 1) == 0 and size != _size_of(model):
        changed["model"] = model.model_copy(update={"image_size": size})
    return config.model_copy(update=changed)


def other_pixels(config: Config) -> str:
    """In one line, where the parameter file names other pixels than the start's own; nothing where it does not."""
    own, data, model = own_pixels(config.model), config.data, config.model
    named = {f"data.{key}": (getattr(data, key), own[key]) for key in data.usual if key in own}
    if model.image_size and "image_size" in own:
        named["model.image_size"] = model.image_size, own["image_size"]
    differ = [f"{key} {_said(here)} for {_said(theirs)}" for key, (here, theirs) in named.items() if here != theirs]
    return f"the parameter file names other pixels than the start was trained on: {', '.join(differ)}" if differ else ""


def own_pixels(model: Model) -> dict:
    """What timm says of a tag, under the parameter file's keys; nothing of a file, of random weights and of an unknown tag."""
    if model.tag is None or not timm.is_model(model.tag.split(".")[0]) or not timm.is_model_pretrained(model.tag):
        return {}
    said = timm.get_pretrained_cfg(model.tag)
    own = {"crop_share": said.crop_pct, "interpolation": said.interpolation}
    if len(said.mean) == model.channels:
        own |= {"mean": tuple(said.mean), "std": tuple(said.std)}
    if said.input_size[1] == said.input_size[2]:
        own["image_size"] = said.input_size[1]
    return {key: value for key, value in own.items() if value is not None}


def _size_of(model: Model) -> int:
    return outline(model, 1).patch_embed.img_size[0]


def _said(value) -> str:
    return f"[{', '.join(f'{v:.4g}' for v in value)}]" if isinstance(value, tuple) else str(value)
