"""A trained row of the accuracy table, by default OSDTW refined, ready for new images (Algorithm 1, lines 21 to 26)."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .. import methods
from ..artifacts.artifact import flat
from ..artifacts.files import checksum, read_tensors
from ..artifacts.manifest import damage, read_manifest
from ..config.load import load_config
from ..config.paths import PROJECT
from ..config.schema import Config
from ..data.augment import photograph
from ..data.batches import normalized
from ..data.image_files import converted
from ..data.listings.labels import same_name
from ..errors import UserError
from ..evaluation.calibration import probabilities as softmax
from ..evaluation.class_mix import Estimate, estimate_mix, moved
from ..evaluation.scores import scores_over
from ..methods._base import Method, Problem, Row
from ..methods.osdtw import ROWS
from ..models.start_pixels import with_start_pixels
from ..models.vit import ViT, image_size
from .correction import Correction, load_correction

UNFINISHED = "run ./run_all.sh with its parameter file first"


class Predictor:
    """images -> class probabilities (B, K); `class_names` (K,) names the columns.

    A softmax over the row's scores. Given that exactly one class is right, both of OSDTW's likelihoods make the probability of
    class k proportional to exp(s_k), s_k being its raw log-odds: its argmax is Algorithm 1's. Where the run has a calibration
    part and a temperature helps there, scores are divided by it first, which moves no argmax. Probabilities hold for the class
    shares the row stands for (`shares`, (K,): of OSDTW equal ones, of plain cross-entropy the training set's); `prior` asks for
    others.
    """

    def __init__(self, row: Row, network, about: dict, correction: Correction | None = None):
        """about: predictor.json, as `Problem.described` writes it."""
        self.row, self.network, self.class_names, self.about = row, network.eval(), tuple(about["class_names"]), about
        self.shares = row.shares
        self.mean, self.std, self.channels = about["mean"], about["std"], about["model"]["channels"]
        vit = next(module for module in network.modules() if isinstance(module, ViT))
        self.size = image_size(vit)  # (height, width)
        self.correction = correction or Correction()
        self._seen = photograph(None, self.size, about["crop_share"], interpolation=about.get("interpolation", "bicubic"))

    def __call__(self, images, prior=None) -> np.ndarray:
        """Probabilities (B, K), a row an image; the images are read one after another and stay as they are.

        prior: None, as the row stands; the class mix to expect, as `mix` takes it; or "estimate", from these very images: what
        makes the estimate doubtful is a Python warning.
        images: uint8 array or tensor (B, H, W, C), C being 1, 3 or 4; or Pillow images of any size and mode, a list or
        whatever gives them in turn. Raises ValueError, one sentence, for anything else, and UserError for an image
        whose pixels have no known range.
        """
        scores = self.scores(images)
        if isinstance(prior, str) and prior == "estimate":
            prior = self._estimated_and_said(scores) if len(scores) else None
        return self.probabilities(scores, self.mix(prior))

    def scores(self, images) -> np.ndarray:
        """The row's raw scores (B, K), float32, in class order; of OSDTW log-odds. images as above."""
        pixels, rows = map(self.seen, _pictures(images)), [np.zeros((0, len(self.class_names)), np.float32)]
        while batch := list(islice(pixels, 256)):
            rows.append(self.scores_of(np.stack(batch)))
        return np.concatenate(rows)

    def sets(self, images, coverage: float = 0.9) -> list[list[str]]:
        """For each image the classes, likeliest first, among which the true one is with this probability, by class.

        images: as above. evaluation/conformal.py says what is promised; docs/calibration.md what for. Raises UserError, one
        line, where the run has no calibration part, and ValueError for a coverage not between 0 and 1.
        """
        self.correction.require_sets(coverage)
        raw = softmax(self.scores(images))
        inside = self.correction.sets(raw, coverage)
        return [[self.class_names[k] for k in np.argsort(-p) if held[k]] for p, held in zip(raw, inside)]

    def probabilities(self, scores: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """Raw scores (B, K) -> (B, K), in float64, under class shares (K,); None: those the row stands for."""
        corrected = self.correction.scores(scores)
        return softmax(corrected if mix is None else moved(corrected, self.shares, mix))

    def mix(self, prior) -> np.ndarray | None:
        """Class shares (K,): "uniform", "training", {class name: share} or a pandas Series, an array (K,); None stays None.

        Raises UserError, one line, for shares that name another class or not every one, are negative or do not sum to 1.
        """
        if prior is None:
            return None
        if isinstance(prior, str):
            if prior not in ("uniform", "training"):
                raise UserError(f"prior '{prior}': give uniform, training, estimate, or a share a class")
            return np.full(len(self.class_names), 1 / len(self.class_names)) if prior == "uniform" else self.row.problem.priors
        if hasattr(prior, "keys"):
            given, own = {name: prior[name] for name in prior.keys()}, list(map(same_name, self.class_names))
            prior = {same_name(name) if isinstance(name, str) else name: share for name, share in given.items()}
            if len(prior) < len(given):
                raise UserError("prior: a class has two shares, under two spellings of its name that look the same")
            unknown = [name for name in prior if name not in own]
            missing = [name for name in own if name not in prior]
            if unknown or missing:
                raise UserError(
                    f"prior: {f'no class is called {unknown[0]!r}' if unknown else f'no share for class {missing[0]!r}'}"
                )
            prior = [prior[name] for name in own]
        try:
            shares = np.asarray(prior, float)
        except (TypeError, ValueError) as error:
            raise UserError(f"prior: a share is a number ({error})") from None
        if shares.shape != (len(self.class_names),) or not (shares >= 0).all():
            raise UserError(f"prior: one share, 0 or more, for each of the {len(self.class_names)} classes")
        if abs(shares.sum() - 1) > 1e-3:
            raise UserError(f"prior: the shares sum to {shares.sum():.6g} and not to 1 (within 0.001)")
        return shares / shares.sum()

    def estimated(self, scores: np.ndarray) -> Estimate:
        """The class mix of the images these raw scores (B, K) are of, with standard errors and warnings."""
        return estimate_mix(self.correction.scores(scores), self.shares, self.class_names)

    def _estimated_and_said(self, scores: np.ndarray) -> np.ndarray:
        found = self.estimated(scores)
        for line in found.warnings:
            warnings.warn(line, stacklevel=3)
        return found.shares

    def seen(self, image: Image.Image) -> np.ndarray:
        """As evaluation sees it, uint8 (height, width, channels): resized, the middle of it."""
        return np.asarray(self._seen(converted(image, self.channels))).reshape(*self.size, self.channels)

    def scores_of(self, pixels: np.ndarray) -> np.ndarray:
        """What `seen` gave of several images, uint8 (B, height, width, channels) -> raw scores (B, K)."""
        batch = normalized(torch.from_numpy(pixels).permute(0, 3, 1, 2), self.mean, self.std)
        return scores_over(self.network, self.row.scores, [(batch, None)])


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

    The run's parameter file does as well as its folder; what it says otherwise than what was trained is a Python warning.
    method: a row of its accuracy table. A method that came from a file of its own has that file run as it was trained (a copy is
    kept), and only where it is this one that is asked for. Raises UserError where the run has none or its files were damaged.
    """
    config, folder = _named(folder)
    stage = "stage3" if method in ROWS else _trained(folder, method)
    if config and (others := _other_values(config, folder, stage)):
        was = "what was trained with other values there predicts"
        warnings.warn(f"{folder / stage}: {was}: {', '.join(others)}; {UNFINISHED} for the new ones", stacklevel=2)
    about = json.loads((_finished(folder, stage) / "predictor.json").read_text(encoding="utf-8"))
    made_of: dict[str, str] = {}  # {stage: its key} where it has to be that very one
    if method in ROWS:
        made = _manifest(folder, "stage3")
        about["stage3"], made_of = made["parameters"]["stage3"], made["inputs"]
        if "logit_adjustment" not in about:  # as older runs have it
            about["logit_adjustment"] = _manifest(folder, "stage1")["parameters"]["logit_adjustment"]
        row = ROWS[method](Problem.of(about), about["shared_depth"])
    else:
        kind = _method(method, about, folder)
        row = kind(Problem.of(about), kind.Parameters.model_validate(about["parameters"]))

    def read(stage: str, name: str) -> dict[str, torch.Tensor]:
        if made_of.get(stage) not in (None, _manifest(folder, stage)["key"]):
            raise UserError(f"{folder / stage}: it was made anew after Stage 3, which goes with another one; {UNFINISHED}")
        return read_tensors(_finished(folder, stage) / f"{name}.safetensors")

    return Predictor(row, row.network(read), about, load_correction(folder, method))


def run_folder(folder: str | Path) -> Path:
    """outputs/NAME, named itself or by its parameter file; a relative path counts from here, then from the project."""
    return _named(folder)[1]


def _named(folder: str | Path) -> tuple[Config | None, Path]:
    """The parameter file, where a run is named by it, and its folder."""
    by_file = Path(folder).suffix in (".yaml", ".yml") and not os.path.isdir(folder)
    config = load_config(folder) if by_file else None
    place = config.folder if config else Path(folder)
    return config, place if os.path.isdir(place) else PROJECT / place


def _other_values(config: Config, folder: Path, stage: str) -> list[str]:
    """`stage1.epochs 40 -> 60` for what a stage, or one it was made from, was trained with and the parameter file now says."""
    now, others = flat(with_start_pixels(config).model_dump(mode="json")), {}
    if config.selection.shared_depth is not None and not _chosen_by_hand(folder):
        now |= {"shared_depth": config.selection.shared_depth, "head_weight": config.selection.head_weight}
    asked, name = {Path(name).stem: values for name, values in config.baselines.items()}, stage.partition("/")[2]
    if name in asked:  # of somebody's file, which is not run to look, as far as the parameter file names them
        usual = methods.load(name).Parameters().model_dump(mode="json") if name in methods.names() else {}
        now |= flat({"parameters": usual | asked[name]})
    manifest = read_manifest(folder / stage) or {}
    for name in reversed(manifest.get("inputs", {})):
        others |= dict.fromkeys(_other_values(config, folder, name))
    then = flat(manifest.get("parameters", {}))
    if stage == "split":  # which its key leaves out where they are as they always were
        then = {"data.interpolation": "bicubic", "calibration.images": None} | then
    for key, was in then.items():
        if key in now and now[key] not in ("auto", was):
            others[f"{key} {was} -> {now[key]}"] = None
    return list(others)


def _chosen_by_hand(folder: Path) -> bool:
    try:
        return json.loads((folder / "selection.json").read_text(encoding="utf-8")).get("chosen_by") == "hand"
    except (OSError, ValueError, AttributeError):
        return False


def _trained(folder: Path, method: str) -> str:
    """The artifact of a method. Raises UserError naming those there are."""
    trained = sorted(path.parent.name for path in folder.glob("baselines/*/manifest.json"))
    if method not in trained:
        raise UserError(f"{folder}: no method '{method}' was trained there; there are {', '.join((*ROWS, *trained))}")
    if not (folder / "baselines" / method / "predictor.json").exists():
        again = "remove this folder and run ./run_all.sh --from 06 with its parameter file"
        raise UserError(f"{folder / 'baselines' / method}: no predictor.json; {again}")
    return f"baselines/{method}"


def _method(name: str, about: dict, folder: Path) -> type[Method]:
    """Of a file of one's own as it was when it was trained: where it still is so, else the copy that was kept of it."""
    file, kept = about.get("file"), folder / "baselines" / name / f"{name}.py"
    if file is None:
        return methods.load(name)
    found = next((one for one in (Path(file), kept) if _is_that_file(one, about["sha256"])), None)
    if found is None:
        raise UserError(f"{folder}: '{name}' was trained from {file}, which is gone or was changed since; {UNFINISHED}")
    return methods.load(str(found.absolute()))


def _is_that_file(file: Path, sha256: str) -> bool:
    try:
        return checksum(file) == sha256
    except OSError:
        return False


def _manifest(folder: Path, stage: str) -> dict:
    """Of a finished stage. Raises UserError where it is not."""
    manifest = read_manifest(folder / stage)
    if manifest is None:
        named = stage.replace("stage", "Stage ")
        raise UserError(f"{folder}: no finished {named} there; {UNFINISHED}")
    return manifest


def _finished(folder: Path, stage: str) -> Path:
    """A stage's folder, whole. Raises UserError otherwise."""
    wrong = damage(folder / stage, _manifest(folder, stage))
    if wrong:
        raise UserError(f"{folder / stage}: {wrong}; run ./run_all.sh --from 06 with its parameter file")
    return folder / stage
