"""What a method is: the problem it is given, and what table, plan, predictor and figures ask of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import Config, Model, Section, Stage3, Training
from ..errors import UserError
from ..longtail import TASKS, class_priors, head_tail_partition
from ..models.likelihoods import Bernoulli, Categorical, task_likelihoods
from ..models.vit import ViT, build_vit
from ..models.weights import load_weights
from ..data.augment import UNMIXED
from ..training.phase import Phase, hard

Read = Callable[[str, str], dict[str, Tensor]]  # (stage, file) -> the tensors that were kept


@dataclass(frozen=True)
class Problem:
    """All that a method may know: the parameter file, the classes and their training counts; nothing of the test set.

    vit(outputs): a network, from the common start where it is to be trained. device: where networks are.
    """

    config: Config
    class_names: tuple[str, ...]
    class_counts: np.ndarray  # (K,)
    vit: Callable[[int], ViT]
    device: torch.device = torch.device("cpu")

    @property
    def n_classes(self) -> int:
        return len(self.class_counts)

    @property
    def length(self) -> Training:
        """How long a method of one training trains: as Stage 2."""
        return self.config.stage2

    @cached_property
    def priors(self) -> np.ndarray:
        return class_priors(self.class_counts)

    @cached_property
    def partition(self) -> dict[str, np.ndarray]:
        """head / tail."""
        return dict(zip(TASKS, head_tail_partition(self.class_counts, self.config.head_share)))

    @cached_property
    def likelihoods(self) -> dict:
        """head / tail."""
        found = task_likelihoods(self.config.likelihood, self.class_counts, self.partition, self.config.logit_adjustment)
        return {task: likelihood.to(self.device) for task, likelihood in found.items()}

    def constant(self, values) -> Tensor:
        """Numbers that a loss needs again and again, where networks are: a copy in the loss would wait for the device."""
        return torch.as_tensor(values).to(self.device)

    def described(self, **row) -> dict:
        """For predictor.json: what a predictor needs to know beside the weights; `row` says which row they are of."""
        data = self.config.data
        return {
            "model": self.config.model.model_dump(mode="json"),
            **row,
            "likelihood": self.config.likelihood,
            "logit_adjustment": self.config.logit_adjustment,
            "head_share": self.config.head_share,
            "class_names": self.class_names,
            "class_counts": self.class_counts.tolist(),
            "mean": data.mean,
            "std": data.std,
            "crop_share": data.crop_share,
            "interpolation": data.interpolation,
        }

    @classmethod
    def of(cls, about: dict) -> Problem:
        """The problem that `described` said, as far as networks and scores go; the weights are random, to be overwritten."""
        model = Model.model_validate(about["model"])
        config = Config.model_construct(
            model=model,
            likelihood=about["likelihood"],
            logit_adjustment=about.get("logit_adjustment", 1.0),
            head_share=about.get("head_share", 0.5),
            stage3=Stage3.model_validate(about.get("stage3", {})),
        )
        counts = np.asarray(about["class_counts"])
        return cls(config, tuple(about["class_names"]), counts, lambda outputs: build_vit(model, outputs))


def shares_left(priors: np.ndarray, strength: float) -> np.ndarray:
    """(K,): for which class shares scores answer that had strength log(priors) taken out: priors^(1 - strength), normalised."""
    logs = (1 - strength) * np.log(priors)
    left = np.exp(logs - logs.max())
    return left / left.sum()


def shares_of_weighted(class_counts: np.ndarray, weights: np.ndarray, batch: int) -> np.ndarray:
    """(K,): for which class shares scores answer that a cross-entropy weighted by w_k trained, each batch's mean being by its own
    sum of weights. That is least at E[w_k n_k / sum w], n_k of a batch's images being of class k: below n_k w_k for a heavy
    class, which makes its own batches' sum larger.

    E[1 / (w_k + the others' sum)] is the integral over t of exp(-t w_k) (sum_j pi_j exp(-t w_j))^(batch - 1).
    """
    priors, weights = class_priors(class_counts), np.asarray(weights, float)
    t = np.geomspace(1e-7 / (batch * weights.max()), 60 / (batch * weights.min()), 800)
    decays = np.exp(-np.outer(weights, t))  # (K, 800)
    inverse = np.trapezoid(decays * (priors @ decays) ** (batch - 1) * t, np.log(t), axis=1)
    left = priors * weights * inverse
    return left / left.sum()


class Row(ABC):
    """A row of the accuracy table: a network that was trained, and how it scores."""

    name: str  # in tables, folders and commands
    title: str  # for readers
    source: str  # who proposed it: authors, year, equation
    # softmax(scores) is p(class | image) under these priors: "training", "balanced", or "adjusted": those that are left of the
    # training set's where the loss has added the run's `logit_adjustment` times their logarithms
    prior: str = "balanced"

    def __init__(self, problem: Problem):
        self.problem = problem

    @property
    def shares(self) -> np.ndarray:
        """(K,): the class shares under which softmax(scores) is p(class | image), as `prior` says them."""
        taken = {"training": 0.0, "balanced": 1.0, "adjusted": self.problem.config.logit_adjustment}
        return shares_left(self.problem.priors, taken[self.prior])

    @abstractmethod
    def network(self, read: Read) -> nn.Module:
        """As it was trained."""

    @abstractmethod
    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        """(B, K), in class order; the largest is the prediction."""


class Method(Row):
    """A row that is trained by its phases alone, one after the other. Its name is that of its file.

    after: a method whose trained network it starts from; that one is trained, and has its row, too.
    space: {parameter: values to try} where the verdict tunes; at most two. Without it the recipe's weight decay is tried.
    """

    file: Path | None = None  # of a method that lies elsewhere, and what was imported from it
    code: bytes = b""
    after: str | None = None
    space: dict[str, tuple] | None = None

    class Parameters(Section):
        """Its own keys in the parameter file, with its paper's values."""

    def __init__(self, problem: Problem, parameters: Section | None = None):
        super().__init__(problem)
        self.parameters = parameters or self.Parameters()

    @abstractmethod
    def build(self) -> nn.Module:
        """The network to be trained, from `problem.vit`."""

    @abstractmethod
    def phases(self) -> list[Phase]:
        """The trainings, in order; none where `build`'s network is finished as it is."""

    @classmethod
    def file_sha256(cls) -> str:
        """Of its own file as it was imported, whatever has become of it since."""
        return hashlib.sha256(cls.code).hexdigest()

    def begin(self, network: nn.Module, trained: dict[str, Tensor]) -> None:
        """The weights of `after`'s network into the built one; where that is of another kind, into what holds them."""
        load_weights(network, trained)

    def network(self, read: Read) -> nn.Module:
        return load_weights(self.build(), read(f"baselines/{self.name}", "network"))


class PlainNetwork(Method):
    """One network over all classes, which scores as it is."""

    def build(self) -> ViT:
        return self.problem.vit(self.problem.n_classes)

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images).float()


class OneNetwork(PlainNetwork):
    """One network over all classes and one training as long as Stage 2, for a loss of hard labels, one number an image.

    mixing: whether the recipe's mixup and cutmix stay on; the loss is then that of both labels, each with its share.
    """

    mixing = True
    sampling: str | tuple[float, ...] | Callable = "images"

    @abstractmethod
    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """scores float32 (B, K), labels (B,) -> (B,)."""

    def class_weights(self, epoch: int) -> Tensor | None:
        """(K,), or None where all classes count alike."""

    def phases(self) -> list[Phase]:
        def losses(network, part):
            scores = network(part.images).float()
            return {self.name: hard(part, lambda labels: self._each(scores, labels), self.class_weights(part.epoch))}

        recipe = {} if self.mixing else UNMIXED
        return [Phase(self.problem.length, losses, class_weights=self.class_weights, sampling=self.sampling, recipe=recipe)]

    def _each(self, scores: Tensor, labels: Tensor) -> Tensor:
        found = self.loss(scores, labels)
        if found.shape != labels.shape:  # a mean would train, without class weights and with one share for all mixed images
            wanted = f"one number an image, ({len(labels)},), as reduction='none' gives"
            raise UserError(f"{self.name}: loss(scores, labels) is {wanted}; it is of shape {tuple(found.shape)}")
        return found


class PlainCrossEntropy(OneNetwork):
    """-log softmax(z)_y, for what differs in the images alone."""

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels, reduction="none")


class SingleNetwork(PlainNetwork):
    """One network over all classes and one training as long as Stage 2, for a loss that is a likelihood."""

    @abstractmethod
    def likelihood(self) -> Bernoulli | Categorical: ...

    def phases(self) -> list[Phase]:
        likelihood = self.likelihood().to(self.problem.device)

        def losses(network, part):
            return {self.name: -likelihood(network(part.images), part.labels).mean()}

        return [Phase(self.problem.length, losses)]
