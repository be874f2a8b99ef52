"""A trained row of the accuracy table, by default OSDTW refined, ready for new images (Algorithm 1, lines 21 to 26)."""

from __future__ import annotations

import json
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
from ..data.image_files import converted, open_image
from ..errors import UserError
from ..evaluation.scores import scores_over
from ..methods._base import Method, Problem, Row
from ..methods.osdtw import ROWS
from ..models.vit import VisionTransformer

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
        vit = next(module for module in network.modules() if isinstance(module, VisionTransformer))
        self.size = tuple(vit.patch_embed.img_size)  # (height, width)
        self._seen = photograph(None, self.size, about["crop_share"])

    def __call__(self, images) -> np.ndarray:
        """images: uint8 array or tensor (B, H, W, C), or a list of PIL images of any size.

        Raises ValueError for another type or shape.
        """
        pixels = self._pixels(images)
        if len(pixels) == 0:
            return np.zeros((0, len(self.class_names)))
        batches = [(normalized(part.permute(0, 3, 1, 2), self.mean, self.std), None) for part in pixels.split(256)]
        scores = scores_over(self.network, self.row.scores, batches).astype(np.float64)
        odds = np.exp(scores - scores.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def _pixels(self, images) -> torch.Tensor:
        if not isinstance(images, (np.ndarray, torch.Tensor)):
            arrays = [self._array(image) for image in images]
            return torch.from_numpy(np.stack(arrays) if arrays else np.zeros((0, *self.size, self.channels), np.uint8))
        array = images.numpy() if isinstance(images, torch.Tensor) else images
        if array.dtype != np.uint8 or array.ndim != 4:
            raise ValueError(f"images are uint8 of shape (B, H, W, C), got {array.dtype} of shape {tuple(array.shape)}")
        if array.shape[1:] == (*self.size, self.channels):
            return torch.from_numpy(np.ascontiguousarray(array))
        return self._pixels([Image.fromarray(a[..., 0] if a.shape[-1] == 1 else a) for a in array])

    def _array(self, image: Image.Image) -> np.ndarray:
        """As evaluation sees it: resized, the middle of it."""
        return np.asarray(self._seen(converted(image, self.channels))).reshape(*self.size, self.channels)


def load_predictor(folder: str | Path, method: str = "osdtw") -> Predictor:
    """The predictor of a finished run, outputs/NAME (a relative path counts from here, then from the project).

    The run's parameter file does as well as its folder. method: a row of its accuracy table. Only a method that lies in a file
    of its own has that file run, and only where it is the one that was trained. Raises UserError where the run has none or its
    files were damaged.
    """
    folder = load_config(folder).folder if Path(folder).suffix in (".yaml", ".yml") else Path(folder)
    folder = folder if folder.is_dir() else PROJECT / folder
    stage = "stage3" if method in ROWS else _trained(folder, method)
    about = json.loads((_finished(folder, stage) / "predictor.json").read_text())
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


def predict_files(folder: str | Path, files: list[str], top: int = 1, method: str = "osdtw") -> list[tuple[str, str, float]]:
    """(file, class, probability), the `top` classes a file. Raises UserError naming a file that is no image."""
    images = [open_image(file) for file in files]
    predictor = load_predictor(folder, method)
    rows = []
    for file, row in zip(files, predictor(images)):
        rows += [(file, predictor.class_names[k], float(row[k])) for k in np.argsort(-row)[:top]]
    return rows
