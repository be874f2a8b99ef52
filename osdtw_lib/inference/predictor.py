"""A trained row of the accuracy table, by default OSDTW refined, ready for new images (Algorithm 1, lines 21 to 26)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import methods
from ..artifacts.files import checksum, read_tensors
from ..artifacts.manifest import damage, read_manifest
from ..config.load import load_config
from ..config.paths import PROJECT
from ..data.augment import photograph
from ..data.batches import normalized
from ..data.image_files import converted
from ..errors import UserError
from ..evaluation.scores import scores_over
from ..methods._base import Method, Problem, Row
from ..methods.osdtw import ROWS
from ..models.vit import ViT, image_size

UNFINISHED = "run ./run_all.sh with its parameter file first"


class Predictor:
    """images -> class probabilities (B, K); `class_names` (K,) names the columns.

    A softmax over the row's scores. Given that exactly one class is right, both of OSDTW's likelihoods make the probability of
    class k proportional to exp(s_k), s_k being its raw log-odds: its argmax is Algorithm 1's.
    """

    def __init__(self, row: Row, network, about: dict):
        """about: predictor.json, as `Problem.described` writes it."""
        self.row, self.network, self.class_names = row, network.eval(), tuple(about["class_names"])
        self.mean, self.std, self.channels = about["mean"], about["std"], about["model"]["channels"]
        vit = next(module for module in network.modules() if isinstance(module, ViT))
        self.size = image_size(vit)  # (height, width)
        self._seen = photograph(None, self.size, about["crop_share"], interpolation=about.get("interpolation", "bicubic"))

    def __call__(self, images) -> np.ndarray:
        """Probabilities (B, K), a row an image; the images are read one after another and stay as they are.

        images: uint8 array or tensor (B, H, W, C), C being 1, 3 or 4; or Pillow images of any size and mode, a list or
        whatever gives them in turn. Raises ValueError, one sentence, for anything else, and UserError for an image
        whose pixels have no known range.
        """
        pixels, rows = map(self.seen, _pictures(images)), [np.zeros((0, len(self.class_names)))]
        while batch := list(islice(pixels, 256)):
            rows.append(self.probabilities(np.stack(batch)))
        return np.concatenate(rows)

    def seen(self, image: Image.Image) -> np.ndarray:
        """As evaluation sees it, uint8 (height, width, channels): resized, the middle of it."""
        return np.asarray(self._seen(converted(image, self.channels))).reshape(*self.size, self.channels)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """What `seen` gave of several images, uint8 (B, height, width, channels) -> (B, K)."""
        batch = normalized(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.mean, self.std)
        scores = scores_over(self.network, self.row.scores, [(batch, None)]).astype(np.float64)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)


def _pictures(images) -> Iterator[Image.Image]:
    wanted = "images are Pillow images in a list, or uint8 of shape (B, H, W, C) with C of 1, 3 or 4 and no side of 0"
    if isinstance(images, (np.ndarray, torch.Tensor)):
        shape = tuple(images.shape)
        if images.dtype not in (np.uint8, torch.uint8) or len(shape) != 4 or shape[3] not in (1, 3, 4) or 0 in shape[1:]:
            raise ValueError(f"{wanted}, got {images.dtype} of shape {shape}")
        arrays = images.cpu().numpy() if isinstance(images, torch.Tensor) else images
        images = (Image.fromarray(array[..., 0] if shape[3] == 1 else array) for array in arrays)
    elif not isinstance(images, Iterable):
        raise ValueError(f"{wanted}, got one {type(images).__name__}")
    for image in images:
        if not isinstance(image, Image.Image) or 0 in image.size:
            what = f"an image of {image.width} x {image.height}" if isinstance(image, Image.Image) else type(image).__name__
            raise ValueError(f"{wanted}, got {what} among them")
        yield image


def load_predictor(folder: str | Path, method: str = "osdtw") -> Predictor:
    """The predictor of a finished run, outputs/NAME (a relative path counts from here, then from the project).

    The run's parameter file does as well as its folder. method: a row of its accuracy table. Only a method that lies in a file
    of its own has that file run, and only where it is the one that was trained. Raises UserError where the run has none or its
    files were damaged.
    """
    folder = load_config(folder).folder if Path(folder).suffix in (".yaml", ".yml") else Path(folder)
    folder = folder if os.path.isdir(folder) else PROJECT / folder
    stage = "stage3" if method in ROWS else _trained(folder, method)
    about = json.loads((_finished(folder, stage) / "predictor.json").read_text(encoding="utf-8"))
    if method in ROWS:
        about["stage3"] = (read_manifest(folder / "stage3") or {})["parameters"]["stage3"]
        row = ROWS[method](Problem.of(about), about["shared_depth"])
    else:
        kind = _method(method, about, folder)
        row = kind(Problem.of(about), kind.Parameters.model_validate(about["parameters"]))
    network = row.network(lambda stage, name: read_tensors(_finished(folder, stage) / f"{name}.safetensors"))
    return Predictor(row, network, about)


def _trained(folder: Path, method: str) -> str:
    """The artifact of a method. Raises UserError naming those there are."""
    trained = sorted(path.parent.name for path in folder.glob("baselines/*/manifest.json"))
    if method not in trained:
        raise UserError(f"{folder}: no method '{method}' was trained there; there are {', '.join((*ROWS, *trained))}")
    if not (folder / "baselines" / method / "predictor.json").exists():
        raise UserError(f"{folder / 'baselines' / method}: no predictor.json; remove this folder and run ./run_all.sh --from 06")
    return f"baselines/{method}"


def _method(name: str, about: dict, folder: Path) -> type[Method]:
    file = about.get("file")
    if file is None:
        return methods.load(name)
    if not Path(file).is_file() or checksum(Path(file)) != about["sha256"]:
        raise UserError(f"{folder}: '{name}' was trained from {file}, which is gone or was changed since; {UNFINISHED}")
    return methods.load(file)


def _finished(folder: Path, stage: str) -> Path:
    """A stage's folder, whole. Raises UserError otherwise."""
    manifest = read_manifest(folder / stage)
    if manifest is None:
        named = stage.replace("stage", "Stage ")
        raise UserError(f"{folder}: no finished {named} there; {UNFINISHED}")
    wrong = damage(folder / stage, manifest)
    if wrong:
        raise UserError(f"{folder / stage}: {wrong}; run ./run_all.sh --from 06 with its parameter file")
    return folder / stage
