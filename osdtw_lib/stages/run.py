"""One parameter file opened: where its results lie, what each stage depends on, and the data."""

from __future__ import annotations

import copy
import importlib
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from .. import longtail, methods
from ..artifacts.artifact import Artifact
from ..artifacts.manifest import read_manifest
from ..backend import gpus, precision, reproducible
from ..config.load import load_config
from ..config.schema import Config
from ..data import sets
from ..data.batches import Batches
from ..data.decoded_cache import decoded, has_room
from ..data.image_files import ImageFiles
from ..data.source import LabelledImages
from ..data.splits import set_aside
from ..errors import UserError
from ..methods._base import Method, Problem
from ..models.flops import is_small
from ..models.pretrained import require_start
from ..models.start_pixels import with_start_pixels
from ..models.vit import ViT, build_vit, image_size, n_depths, outline
from . import CONTENTS


class Run:
    """A parameter file with everything derived from it; holds no results, but knows where they are.

    asked: {name: (method, its parameters)} of the baselines. A measurement over other seeds or cells opens runs of its own:
    with the data already read (source), with results elsewhere (place: artifact's name -> folder), and at a fixed choice
    (shared_depth, head_weight) instead of the selection's.
    """

    copies_are_leaks = True  # whether a copy of a training image may not test

    def __init__(self, config: Config, *, source=None, place: Callable[[str], Path] | None = None):
        self.config = config = with_start_pixels(config)
        self.folder = config.folder
        self.locked = self.folder  # the folder whose lock covers what is made
        self.place = place or (lambda name: self.folder / name)
        self.fixed_choice: dict | None = None
        if source is not None:
            self.source = source
        self.asked = methods.asked(config)
        if config.verdict.methods:  # a name that is none is said at once, not in notebook 09
            methods.asked(config.model_copy(update={"baselines": config.verdict.methods}))
        self.device = torch.device(gpus.choose(config.device))
        precision.no_tf32()
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
        require_start(config.model)
        self.train, self._outline  # noqa: B018  data that cannot be had and a model that cannot be built are said at once
        if config.data.cache == "auto":
            self.config = config.model_copy(update={"data": config.data.model_copy(update={"cache": self._is_cached()})})

    # data -------------------------------------------------------------------------------------------------

    @property
    def cache(self) -> Path:
        """Shared by all runs of one `outputs`; what lies there can be made again."""
        return self.folder.parent / "cache"

    @cached_property
    def source(self):
        return sets.load_source(self.config.data, self.cache / "contents.json")

    def verify(self) -> None:
        """Read every image file, also those whose size and times are as they were (--verify)."""
        if isinstance(self.source.images, ImageFiles):
            self.source.images.contents.verify(self.source.images.paths.tolist())

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        train, test = sets.of(self.config.data).split(self.source, self.config.data, self.config.seed)
        train, aside = set_aside(self.source, train, self.config.calibration.images, self.config.seed)
        return train, test, aside

    @cached_property
    def indices(self) -> tuple[np.ndarray, np.ndarray]:
        return self._parts[:2]

    @property
    def calibration_indices(self) -> np.ndarray:
        """Of the images set aside, which neither train nor test; empty where `calibration.images` asks for none."""
        return self._parts[2]

    @cached_property
    def train(self) -> LabelledImages | ImageFiles:
        return self.source.images.subset(self.indices[0])

    @cached_property
    def test(self) -> LabelledImages | ImageFiles:
        return self.source.images.subset(self.indices[1])

    @cached_property
    def calibration(self) -> LabelledImages | ImageFiles:
        return self.source.images.subset(self.calibration_indices)

    @property
    def caption(self) -> str:
        """Data set, counts and part, for every table over this run."""
        return self.source.caption(*self.indices, self.config.data.evaluate)

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

    @property
    def partition(self) -> dict[str, np.ndarray]:
        """head / tail."""
        return self.problem.partition

    @property
    def likelihoods(self) -> dict:
        """head / tail."""
        return self.problem.likelihoods

    def batches(
        self, images: LabelledImages | ImageFiles, batch_size: int | None = None, only: np.ndarray | None = None, **training
    ) -> Batches:
        """only: places of the images to take, all of them by default. training: `recipe` and `sampling` of training batches."""
        # the same seed for every stage and baseline: all see the same batches in the same order
        if self.config.data.cache and any(images is whole for whole in (self.train, self.test, self.calibration)):
            images = decoded(images, *self._decoded_as)
        images = images if only is None else images.subset(only)
        options = {"device": self.device, "batch_size": batch_size} | training
        return Batches(images, self.config, self.image_size, len(self.class_names), **options)

    @property
    def _decoded_as(self) -> tuple[int, Path, str]:
        """Side, folder and interpolation of the decoded cache."""
        data = self.config.data
        return round(max(self.image_size) / data.crop_share), self.cache, data.interpolation

    def _is_cached(self) -> bool:
        """`data.cache: auto`: as the split that is there was made, on whatever machine; else for a GPU, where there is room.

        It is other pixels, and in the key what it came to."""
        made = (read_manifest(self.place("split")) or {}).get("parameters", {}).get("data", {})
        if made and made == self.dump("data")["data"] | {"cache": made.get("cache")}:
            return made["cache"]
        parts = [images for images in (self.train, self.test, self.calibration) if len(images)]
        return self.device.type == "cuda" and has_room(parts, *self._decoded_as)

    # models -----------------------------------------------------------------------------------------------

    @cached_property
    def _outline(self) -> ViT:
        """The network without memory for its weights."""
        return outline(self.config.model, 1)

    @property
    def n_depths(self) -> int:
        return n_depths(self._outline)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images a network takes."""
        return image_size(self._outline)

    @cached_property
    def by_one_thread(self) -> bool:
        """Whether its stages are made by one thread each, on however many cores: so they come out the same there too."""
        return self.device.type == "cpu" and is_small(self.config, len(self.class_names))

    def vit(self, n_outputs: int) -> ViT:
        """A network with random weights that depend on the seed and the number of outputs alone."""
        with gpus.random_state_kept():
            torch.manual_seed(self.seed("vit"))
            return build_vit(self.config.model, n_outputs, self.config.recipe.drop_path).to(self.device)

    def seed(self, purpose: str) -> int:
        return zlib.crc32(f"{self.config.seed}/{purpose}".encode())

    # methods and stages -----------------------------------------------------------------------------------

    @cached_property
    def problem(self) -> Problem:
        """What a method may know; its networks have random weights."""
        return Problem(self.config, self.class_names, self.class_counts, self.vit, self.device)

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The baselines asked for, by name."""
        return {name: method(self.problem, parameters) for name, (method, parameters) in self.asked.items()}

    def at(self, choice: dict, place: Callable[[str], Path] | None = None) -> Run:
        """The same run at a fixed choice, shared_depth and head_weight; data and networks are the very same."""
        other = copy.copy(self)
        other.fixed_choice, other.place = choice, place or self.place
        return other

    def artifact(self, name: str) -> Artifact:
        """The results of a stage ("baselines/METHOD": of a method) as this run asks for them, whether or not they are there.

        What is in its key stands in the stage's file.
        """
        stage, *method = name.split("/")
        if stage not in CONTENTS:
            raise ValueError(f"no stage '{stage}'")
        module = module_of(stage)
        if hasattr(module, "inputs"):
            inputs = module.inputs(self, *method)
        else:  # of a light stage the values enter the key, among the parameters
            needs = [need for need in CONTENTS[stage].needs if not CONTENTS[need].light]
            inputs = tuple(self.artifact(one) for need in needs for one in self.artifacts_of(need))
        parameters = module.parameters(self, *method)
        if self.config.reproducible and stage != "split":  # other digits, so another result
            parameters = parameters | {"reproducible": True}
        return Artifact(name, self.place(name), parameters, inputs)

    def needs_of(self, name: str) -> list[str]:
        """The stages that have to be there before this one runs; at a fixed choice nothing is selected."""
        needs = CONTENTS[name.split("/")[0]].needs
        return [need for need in needs if not (self.fixed_choice and need == "selection")]

    def artifacts_of(self, stage: str) -> list[str]:
        """The artifacts of a stage by name: itself, or "baselines/METHOD" for each method asked for."""
        return [f"baselines/{method}" for method in self.asked] if stage == "baselines" else [stage]

    def read(self, stage: str, name: str) -> dict[str, torch.Tensor]:
        """Tensors that a stage has kept. Raises UserError where it is not done."""
        return self.artifact(stage).tensors(name)

    def dump(self, *sections: str) -> dict:
        """Sections of the parameter file, for a key."""
        values = self.config.model_dump(mode="json", include=set(sections))
        if values.get("data", {}).get("interpolation") == "bicubic":  # as it always was before it could be chosen
            del values["data"]["interpolation"]
        if values.get("recipe", {}).get("layer_decay", 1) != 1:  # it was none on the embedding beyond the first block's
            values["recipe"]["layer_decay_of"] = "the embedding too"
        return {section: values[section] for section in sections if section in values}


def module_of(stage: str) -> ModuleType:
    """The file of a stage: parameters(run), make(run, write), perhaps before(run), inputs(run) and publish(run, artifact)."""
    room = CONTENTS[stage].room
    return importlib.import_module(f"..{room}.{stage if room == 'stages' else 'stage'}", __package__)


def remedy(config: Config, name: str) -> str:
    """What to do where a stage fills a GPU's memory: lower the key that its file names as FITS_BY, for a training the part of a
    batch that is worked on at a time."""
    stage = name.split("/")[0]
    key = getattr(module_of(stage), "FITS_BY", "recipe.micro_batch" if CONTENTS[stage].together else None)
    if key is None:
        return "end what else runs on the GPU, and run again"
    section, _, last = key.partition(".")
    now = getattr(getattr(config, section), last) or f"null: a batch's {config.recipe.batch_size} at once, or a process's share"
    several = f", or jobs_per_gpu (now {config.jobs_per_gpu})" if config.jobs_per_gpu > 1 else ""
    anew = {"recipe": "then trains anew what this recipe trained", "fisher": "then begins this pass anew"}
    then = anew.get(section, "then goes on from the last checkpoint")
    return f"lower {key} (now {now}){several}; the same command {then}"


def open_run(params_file: str | Path) -> Run:
    """Open a parameter file. Raises UserError, one line, where it is not valid."""
    return Run(load_config(params_file))


def first_make(name: str) -> str:
    """What to do where an earlier stage's results are not there."""
    stage = name.split("/")[0]
    book = CONTENTS[stage].notebook
    return (
        f"run notebook {book} first (./run_all.sh --from {book[:2]} and the same parameter file), or that stage alone: "
        f"python -m osdtw_lib {stage} and the same parameter file"
    )
