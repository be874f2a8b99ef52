"""The trained two-branch model, ready for new images (Algorithm 1, lines 21 to 26)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
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
from ..data.image_files import converted
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
        scores = class_scores(self.network, self.likelihoods, [(batch, None)]).astype(np.float64)
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


def load_predictor(folder: str | Path) -> Predictor:
    """The predictor of a finished run, outputs/NAME (a relative path counts from here, then from the project).

    The run's parameter file does as well as its folder. Raises UserError where the run has none or its files were damaged.
    """
    folder = load_config(folder).folder if Path(folder).suffix in (".yaml", ".yml") else Path(folder)
    stage = (folder if os.path.isdir(folder) else PROJECT / folder) / "stage3"
    manifest = read_manifest(stage)
    if manifest is None:
        raise UserError(f"{folder}: no finished Stage 3 there; run ./run_all.sh with its parameter file first")
    wrong = damage(stage, manifest)
    if wrong:
        raise UserError(f"{stage}: {wrong}; run ./run_all.sh --from 06 with its parameter file")
    about = json.loads((stage / "predictor.json").read_text())
    model, counts = Model.model_validate(about["model"]), about["class_counts"]
    groups = dict(zip(("head", "tail"), head_tail_partition(counts)))
    likelihoods = task_likelihoods(about["likelihood"], counts, groups)
    head, tail = (build_vit(model, likelihoods[task].n_outputs) for task in groups)
    network = load_weights(TwoBranchViT(head, tail, about["shared_depth"]), read_tensors(stage / "network.safetensors"))
    return Predictor(network, likelihoods, tuple(about["class_names"]), about["mean"], about["std"], model.channels,
                     about["crop_share"])
