"""One parameter file opened: where its results lie, what each stage depends on, and the data."""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from .. import longtail
from ..artifacts.artifact import Artifact
from ..artifacts.files import checksum
from ..backend import reproducible
from ..config.load import load_config
from ..config.schema import Config, Recipe
from ..data.batches import Batches
from ..data.decoded_cache import decoded
from ..data.image_files import ImageFiles
from ..data.sets import load_source
from ..data.source import LabelledImages
from ..data.splits import split_indices
from ..errors import UserError
from ..longtail import TASKS
from ..models.likelihoods import task_likelihoods
from ..models.pretrained import weights_file
from ..models.two_branch import TwoBranchViT
from ..models.vit import VisionTransformer, build_vit, n_depths

# Which notebook makes which stages, in order; "to redo from 05" and "run 03 first" are read off here.
NOTEBOOKS = {
    "01_data_split": ("split",),
    "02_starting_point": ("start",),
    "03_stage1_fisher": ("stage1", "fisher"),
    "04_proxy_explorer": ("direct", "proxy"),
    "05_stage2_joint": ("stage2",),
    "06_stage3_tables": ("stage3", "baselines", "tables"),
    "07_theory": ("simulation", "label_dependence"),
}
# Hours on a large data set: only where asked for (--ablations, or --from 08).
OPTIONAL = {"08_ablations": ("ablation",)}


class Run:
    """A parameter file with everything derived from it; holds no results, but knows where they are."""

    def __init__(self, config: Config):
        self.config, self.folder = config, config.folder
        if config.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device: cuda was asked for and none is visible; set device: auto")
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(auto if config.device == "auto" else config.device)
        if config.reproducible and self.device.type == "cuda":
            raise UserError("reproducible: true holds on CPUs alone, and device: auto takes the GPU here; set device: cpu")
        if config.reproducible and reproducible.active():
            reproducible.switch_off_blocked_products()
        visible = torch.cuda.device_count() if self.device.type == "cuda" else 1
        self.workers = visible if config.workers == "auto" else config.workers
        if self.device.type == "cuda" and self.workers > visible:
            raise UserError(f"workers: {self.workers} processes were asked for and {visible} GPUs are visible; set workers: auto")
        chosen = config.selection.shared_depth
        if chosen is not None and chosen > self.n_depths:
            raise UserError(f"selection.shared_depth: the model has {self.n_depths} blocks, got {chosen}")
        self.train  # noqa: B018  data that cannot be had is said at once

    # data -------------------------------------------------------------------------------------------------

    @cached_property
    def source(self):
        return load_source(self.config.data)

    @cached_property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        return split_indices(self.source, self.config.data, self.config.seed)

    @cached_property
    def train(self) -> LabelledImages | ImageFiles:
        return self.source.images.subset(self.indices[0])

    @cached_property
    def test(self) -> LabelledImages | ImageFiles:
        return self.source.images.subset(self.indices[1])

    @property
    def caption(self) -> str:
        """Data set, counts and part, for every table over this run."""
        return self.source.caption(*self.indices, getattr(self.config.data, "evaluate", "test"))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @cached_property
    def class_counts(self) -> np.ndarray:
        return np.bincount(self.train.labels, minlength=len(self.class_names))

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """many / medium / few."""
        return longtail.shot_groups(self.class_counts)

    @cached_property
    def partition(self) -> dict[str, np.ndarray]:
        """head / tail."""
        return dict(zip(TASKS, longtail.head_tail_partition(self.class_counts)))

    @cached_property
    def likelihoods(self) -> dict:
        return task_likelihoods(
            self.config.likelihood, self.class_counts, self.partition, self.config.logit_adjustment
        )

    def batches(
        self, images: LabelledImages | ImageFiles, batch_size: int | None = None, recipe: Recipe | None = None
    ) -> Batches:
        # the same seed for every stage and baseline: all see the same batches in the same order
        if getattr(self.config.data, "cache", False) and any(images is whole for whole in (self.train, self.test)):
            side = round(max(self.image_size) / self.config.data.crop_share)
            images = decoded(images, side, self.folder.parent / "cache")
        options = {"device": self.device, "batch_size": batch_size, "recipe": recipe}
        return Batches(images, self.config, self.image_size, len(self.class_names), **options)

    # models -----------------------------------------------------------------------------------------------

    @cached_property
    def _outline(self) -> VisionTransformer:
        """The network without memory for its weights."""
        with torch.device("meta"):
            return build_vit(self.config.model, 1)

    @property
    def n_depths(self) -> int:
        return n_depths(self._outline)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images a network takes."""
        return tuple(self._outline.patch_embed.img_size)

    def vit(self, n_outputs: int) -> VisionTransformer:
        """A network with random weights that depend on the seed and the number of outputs alone."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed("vit"))
            return build_vit(self.config.model, n_outputs, self.config.recipe.drop_path).to(self.device)

    def two_branch(self, shared_depth: int) -> TwoBranchViT:
        head, tail = (self.vit(self.likelihoods[task].n_outputs) for task in TASKS)
        return TwoBranchViT(head, tail, shared_depth)

    def seed(self, purpose: str) -> int:
        return zlib.crc32(f"{self.config.seed}/{purpose}".encode())

    # stages -----------------------------------------------------------------------------------------------

    def artifact(self, name: str, *, head_weight: float | None = None, shared_depth: int | None = None) -> Artifact:
        """The results of a stage as this parameter file asks for them, whether or not they are there."""
        c = self.config

        def dump(*sections: str) -> dict:
            values = c.model_dump(mode="json")
            return {s: values[s] for s in sections}

        training = dump("recipe")
        task = dump("likelihood", "logit_adjustment")
        if name == "split":
            parameters = {**dump("seed", "data"), "images": self.source.fingerprint()}
            return Artifact(name, self.folder / name, parameters)
        if name == "start":
            return self._make(name, ("split",), dump("model") | self._origin())
        if name == "stage1":
            return self._make(name, ("start",), dump("stage1") | task | training)
        if name == "fisher":
            return self._make(name, ("stage1",), {"precision": c.recipe.precision})
        if name == "proxy":
            return self._make(name, ("fisher", "direct"), dump("selection"))
        if name == "direct":
            return self._make(name, ("fisher",), c.direct.model_dump(mode="json", exclude={"batch_size"}))
        if name == "stage2":
            return self._make(name, ("start",), dump("stage2") | task | training | {"head_weight": head_weight})
        if name == "stage3":
            before = (self.artifact("stage1"), self.artifact("stage2", head_weight=head_weight))
            return Artifact(name, self.folder / name, dump("stage3") | training | {"shared_depth": shared_depth}, before)
        if name.startswith("baselines/"):
            return self._make(name, ("start",), {"method": name.split("/")[1]} | dump("stage2", "logit_adjustment") | training)
        if name == "simulation":
            return self._make(name, (), {"repetitions": c.theory.repetitions})
        if name == "label_dependence":
            return self._make(name, ("fisher",), {"images": c.theory.images, "damping": c.selection.damping})
        raise ValueError(f"no stage '{name}'")

    def _origin(self) -> dict:
        """What the starting point's key holds beside the model: Stage 0's parameters, or the given weights."""
        if self.config.model.init == "masked_autoencoding":
            values = self.config.model_dump(mode="json")
            return {"stage0": values["stage0"], "recipe": values["recipe"]}
        path = weights_file(self.config.model)
        return {"weights": checksum(path)} if path else {}

    def _make(self, name: str, before: tuple[str, ...], parameters: dict) -> Artifact:
        if self.config.reproducible:
            parameters = parameters | {"reproducible": True}
        return Artifact(name, self.folder / name, parameters, tuple(self.artifact(b) for b in before))


def open_run(params_file: str | Path) -> Run:
    """Open a parameter file. Raises UserError, one line, where it is not valid."""
    return Run(load_config(params_file))


def notebook_of(stage: str) -> str:
    return next(book for book, stages in (NOTEBOOKS | OPTIONAL).items() if stage.split("/")[0] in stages)
