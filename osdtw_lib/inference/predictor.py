"""The trained two-branch model, ready for new images (Algorithm 1, lines 21 to 26)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..artifacts.files import read_tensors
from ..artifacts.manifest import damage, read_manifest
from ..config.load import load_config
from ..config.paths import PROJECT
from ..config.schema import Model
from ..data.augment import photograph
from ..data.batches import normalized
from ..data.image_files import converted, open_image
from ..errors import UserError
from ..evaluation.scores import class_scores
from ..longtail import head_tail_partition
from ..models.likelihoods import task_likelihoods
from ..models.two_branch import TwoBranchViT
from ..models.vit import build_vit
from ..models.weights import load_weights


class Predictor:
    """images -> class probabilities (B, K); `class_names` (K,) names the columns.

    Given that exactly one class is right, both likelihoods make the probability of class k proportional to
    exp(s_k), s_k being its raw log-odds: a softmax over both heads' scores. Its argmax is Algorithm 1's.
    """

    def __init__(self, network: TwoBranchViT, likelihoods: dict, class_names: tuple[str, ...], mean, std, channels: int,
                 crop_share: float = 1.0):
        self.network, self.likelihoods, self.class_names = network.eval(), likelihoods, class_names
        self.mean, self.std, self.channels = mean, std, channels
        self.size = tuple(network.head.patch_embed.img_size)  # (height, width)
        self._seen = photograph(None, self.size, crop_share)

    def __call__(self, images) -> np.ndarray:
        """images: uint8 array or tensor (B, H, W, C), or a list of PIL images of any size.

        Raises ValueError for another type or shape.
        """
        pixels = self._pixels(images)
        if len(pixels) == 0:
            return np.zeros((0, len(self.class_names)))
        batches = [(normalized(part.permute(0, 3, 1, 2), self.mean, self.std), None) for part in pixels.split(256)]
        scores = class_scores(self.network, self.likelihoods, batches).astype(np.float64)
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


def load_predictor(folder: str | Path) -> Predictor:
    """The predictor of a finished run, outputs/NAME (a relative path counts from here, then from the project).

    The run's parameter file does as well as its folder. Raises UserError where the run has none or its files were damaged.
    """
    folder = load_config(folder).folder if Path(folder).suffix in (".yaml", ".yml") else Path(folder)
    stage = (folder if folder.is_dir() else PROJECT / folder) / "stage3"
    manifest = read_manifest(stage)
    if manifest is None:
        raise UserError(f"{folder}: no finished Stage 3 there; run ./run_all.sh with its parameter file first")
    wrong = damage(stage, manifest)
    if wrong:
        raise UserError(f"{stage}: {wrong}; run ./run_all.sh --from 06 with its parameter file")
    about = json.loads((stage / "predictor.json").read_text(encoding="utf-8"))
    model, counts = Model.model_validate(about["model"]), about["class_counts"]
    groups = dict(zip(("head", "tail"), head_tail_partition(counts)))
    likelihoods = task_likelihoods(about["likelihood"], counts, groups)
    head, tail = (build_vit(model, likelihoods[task].n_outputs) for task in groups)
    network = load_weights(TwoBranchViT(head, tail, about["shared_depth"]), read_tensors(stage / "network.safetensors"))
    return Predictor(network, likelihoods, tuple(about["class_names"]), about["mean"], about["std"], model.channels,
                     about["crop_share"])


def predict_files(folder: str | Path, files: list[str], top: int = 1) -> list[tuple[str, str, float]]:
    """(file, class, probability), the `top` classes a file. Raises UserError naming a file that is no image."""
    images = [open_image(file) for file in files]
    predictor = load_predictor(folder)
    rows = []
    for file, row in zip(files, predictor(images)):
        rows += [(file, predictor.class_names[k], float(row[k])) for k in np.argsort(-row)[:top]]
    return rows
