"""What a parameter file may hold, as validated, frozen objects: one section each, defaults are the paper's where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .paths import PROJECT

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BASELINES = ("ce", "logit_adjusted_ce", "balanced_bce")
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Digits(Section):
    """5,000 real MNIST digits that a Python package carries, cut to a long tail."""

    dataset: Literal["digits"]
    largest: Count = 400
    imbalance_ratio: Annotated[float, Field(ge=1)] = 100.0
    test_per_class: Count = 100
    mean: tuple[float, ...] = Field((0.1307,), strict=False)
    std: tuple[Positive, ...] = Field((0.3081,), strict=False)


class Cifar100(Section):
    """CIFAR-100 through torchvision, cut to a long tail; its own test set."""

    dataset: Literal["cifar100"]
    folder: str = "data/cifar100"  # fetched into it once
    download: bool = True
    largest: Count = 500
    imbalance_ratio: Annotated[float, Field(ge=1)] = 100.0
    mean: tuple[float, ...] = Field(IMAGENET_MEAN, strict=False)
    std: tuple[Positive, ...] = Field(IMAGENET_STD, strict=False)


class Files(Section):
    """Image files: a part is a folder with a folder a class, a CSV (path,label) or a list (a `path label` a line).

    Paths in a CSV or list count from `root` (default: the folder it lies in).
    """

    dataset: Literal["files"]
    train: str
    val: str | None = None
    test: str | None = None  # without one, `test_per_class` images a class are held out of the training part
    evaluate: Literal["test", "val"] = "test"
    root: str | None = None
    class_names: str | None = None  # a text file, a name a line, for lists that number their classes
    protocol: Literal["imagenet_lt", "places_lt"] | None = None  # counts known from publications, checked on loading
    test_per_class: Count = 10
    cache: bool = False  # decode every image once into one file of its own
    crop_share: Annotated[float, Field(gt=0, le=1)] = 0.875  # of the resized image's sides, kept at evaluation
    mean: tuple[float, ...] = Field(IMAGENET_MEAN, strict=False)
    std: tuple[Positive, ...] = Field(IMAGENET_STD, strict=False)

    @model_validator(mode="after")
    def _evaluated_part_is_there(self):
        if self.evaluate == "val" and self.val is None:
            raise ValueError("evaluate 'val' needs the key val")
        return self


DATASETS = {"digits": Digits, "cifar100": Cifar100, "files": Files}
Data = Annotated[Digits | Cifar100 | Files, Field(discriminator="dataset")]


class Model(Section):
    """A timm VisionTransformer. What is left out (null) stays as the architecture has it."""

    architecture: str = "vit_base_patch16_224"
    image_size: Count | None = None
    patch_size: Count | None = None
    width: Count | None = None
    depth: Count | None = None
    heads: Count | None = None
    channels: Count = 3
    pooling: Literal["avg", "token"] = "avg"
    class_token: bool = True
    init: str = "masked_autoencoding"  # or scratch, a timm pretrained tag, a file of weights
    head_init_std: Positive | None = None  # of the head's weights; LiVT: 2e-5

    @model_validator(mode="after")
    def _class_token_is_pooled(self):
        if self.pooling == "token" and not self.class_token:
            raise ValueError("pooling 'token' needs class_token: true")
        return self

    @model_validator(mode="after")
    def _patches_cover_the_image(self):
        if self.image_size and self.patch_size and self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        return self


class Recipe(Section):
    """Optimisation and augmentation shared by every training (section 6.2).

    A batch is worked through in parts of `micro_batch` images, shared out over the processes: how many processes
    there are does not change the training, and memory is bounded.
    """

    batch_size: Count = 1024
    micro_batch: Count | None = None  # null: the batch in one part, or one part a process
    learning_rate: Positive = 1e-3
    final_learning_rate: NonNegative = 1e-6
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.99), strict=False)
    weight_decay: NonNegative = 0.05
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    random_shift: Annotated[int, Field(ge=0)] = 0  # pixels, each way: an augmentation for small images
    random_crop: tuple[Positive, Positive] | None = Field(None, strict=False)  # smallest and largest share of the area
    flip: bool = False
    rand_augment: tuple[NonNegative, NonNegative] | None = Field(None, strict=False)  # magnitude and its deviation
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    random_erasing: Fraction = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False  # torch.compile


class Training(Section):
    """Length of one training; its learning rate where it differs from the recipe's."""

    epochs: Count
    warmup_epochs: NonNegative = 0.0
    learning_rate: Positive | None = None


class MaskedAutoencoding(Training):
    """Stage 0. The paper's start: 800 epochs at mask ratio 0.75."""

    epochs: Count = 800
    warmup_epochs: NonNegative = 40.0
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    decoder_width: Count = 512
    decoder_depth: Count = 8
    decoder_heads: Count = 16
    normalize_patches: bool = True


class Stage1(Training):
    epochs: Count = 100
    warmup_epochs: NonNegative = 10.0
    samples: Literal["all", "own"] = "all"


class Stage2(Training):
    epochs: Count = 100
    warmup_epochs: NonNegative = 10.0


class Stage3(Training):
    """The refinement: decoders only, shared encoder frozen."""

    epochs: Count = 30
    warmup_epochs: NonNegative = 0.0
    decoders: Literal["stage1", "stage2"] = "stage1"


class Fisher(Section):
    batch_size: Count = 64
    buffer_megabytes: Positive = 64.0


class Direct(Section):
    """The measured bias: how many training images, at most, how many at a time; how both encoders are merged (direct.py)."""

    images: Count = 2000
    power: Positive = 2.0
    damping: Literal["evidence"] | NonNegative = 0.0
    batch_size: Count = 64


class Selection(Section):
    """Which form of the proxy selects, or the choice itself (both shared_depth and head_weight)."""

    form: Literal["paper", "damped", "direct"] = "direct"
    loss: Literal["training", "balanced", "prediction"] = "prediction"
    damping: Literal["evidence"] | NonNegative = "evidence"
    shared_depth: Annotated[int, Field(ge=0)] | None = None
    head_weight: Fraction | None = None

    @model_validator(mode="after")
    def _both_or_none(self):
        if (self.shared_depth is None) != (self.head_weight is None):
            raise ValueError("give both shared_depth and head_weight to name the choice yourself, or neither")
        return self


class Theory(Section):
    """Notebook 07: repetitions of the simulation, images of each set whose scores are multiplied."""

    # with more, the simulation would see the order after the one under test
    repetitions: Annotated[int, Field(ge=400, le=100_000)] = 20_000
    images: Count = 2000


class Ablation(Section):
    """The measured grid of notebook 08, the paper's section 6.4."""

    depths: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, strict=False)  # all there are
    head_weights: tuple[Fraction, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), strict=False, min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1), strict=False, min_length=1)
    likelihoods: tuple[Literal["bernoulli", "categorical"], ...] = Field(("bernoulli", "categorical"), strict=False)
    refinement_epochs: Count | None = None  # as stage3


class Config(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Literal["auto"] | Count = "auto"  # processes that train together; auto: one a GPU
    loader_workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"  # processes of each that read images
    reproducible: bool = False  # on CPUs: the same digits on every x86-64 processor with AVX2, slower
    outputs: str = "outputs"
    likelihood: Literal["bernoulli", "categorical"] = "bernoulli"
    logit_adjustment: NonNegative = 1.0
    data: Data
    model: Model = Model()
    recipe: Recipe = Recipe()
    stage0: MaskedAutoencoding = MaskedAutoencoding()
    stage1: Stage1 = Stage1()
    fisher: Fisher = Fisher()
    direct: Direct = Direct()
    selection: Selection = Selection()
    stage2: Stage2 = Stage2()
    stage3: Stage3 = Stage3()
    theory: Theory = Theory()
    ablation: Ablation = Ablation()
    baselines: tuple[Literal["ce", "logit_adjusted_ce", "balanced_bce"], ...] = Field(BASELINES, strict=False)

    @model_validator(mode="after")
    def _model_fits_the_images(self):
        if self.data.dataset == "digits" and (self.model.image_size, self.model.channels) != (28, 1):
            raise ValueError("the digits are 28 x 28 and grey: set model.image_size: 28 and model.channels: 1")
        if self.data.dataset == "cifar100" and self.model.channels != 3:
            raise ValueError("CIFAR-100 has colour images: set model.channels: 3")
        for name in ("mean", "std"):
            if len(getattr(self.data, name)) != self.model.channels:
                raise ValueError(f"data.{name}: one number a channel, and model.channels is {self.model.channels}")
        return self

    @model_validator(mode="after")
    def _reproducible_as_far_as_known(self):
        if self.reproducible and (self.device == "cuda" or self.recipe.compile or self.recipe.precision != "fp32"):
            raise ValueError("reproducible: true needs device: cpu (or auto), recipe.precision: fp32 and recipe.compile: false")
        return self

    @property
    def folder(self) -> Path:
        """outputs/NAME; a relative `outputs` counts from the project's folder."""
        return PROJECT / Path(self.outputs).expanduser() / self.name
