"""What a parameter file may hold, as validated, frozen objects: one section each, defaults are the paper's where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from .measurements import Ablation, Calibration, Methods, Theory, Verdict
from .paths import PROJECT
from .proxy import Direct, Fisher, Selection
from .trainings import MaskedAutoencoding, Stage1, Stage2, Stage3, Training as Training
from .values import Depth as Depth, Epochs as Epochs, Layers as Layers, NonNegative as NonNegative  # for methods' own sections
from .values import Side as Side, Warmup as Warmup
from .values import (
    Batch,
    Beta,
    Count,
    Deviations,
    Fraction,
    Likelihood,
    Magnitude,
    Means,
    Number,
    Rate,
    Ratio,
    Section,
    Seed,
    Shares,
    Strength,
    Text,
    since,
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")
BESIDE_RUNS = ("index.html", "cache")  # what lies in outputs/ beside the folders of the runs


class Pixels(Section):
    """How images are brought to the network. Null: as the start was trained, where it says so, else as `usual` has it."""

    usual: ClassVar[dict]

    mean: Means | None = Field(None, strict=False)
    std: Deviations | None = Field(None, strict=False)

    @property
    def filled(self):
        """What is left open, as `usual` has it."""
        left = {key: value for key, value in self.usual.items() if getattr(self, key) is None}
        return self.model_copy(update=left) if left else self


class WholeSet(Pixels):
    """A data set that is cut to a long tail here; what an own one may choose is fixed by its class."""

    evaluate: ClassVar[str] = "test"
    crop_share: ClassVar[float] = 1.0
    interpolation: ClassVar[str] = "bicubic"
    cache: ClassVar[bool] = False  # its pixels are decoded
    protocol: ClassVar[str | None] = None
    images_are: ClassVar[str]  # in words, and what the model has to be for them
    model_is: ClassVar[dict[str, int]]


class Digits(WholeSet):
    """5,000 real MNIST digits that a Python package carries, cut to a long tail."""

    images_are, model_is = "the digits are 28 x 28 and grey", {"image_size": 28, "channels": 1}
    usual: ClassVar[dict] = {"mean": (0.1307,), "std": (0.3081,)}

    dataset: Literal["digits"]
    largest: Count = 400
    imbalance_ratio: Ratio = 100.0
    test_per_class: Count = 100


class Optdigits(WholeSet):
    """The 1,797 real handwritten digits that scikit-learn carries, 8 x 8, cut to a long tail."""

    images_are, model_is = "these digits are 8 x 8 and grey", {"image_size": 8, "channels": 1}
    usual: ClassVar[dict] = {"mean": (0.3053,), "std": (0.3759,)}

    dataset: Literal["optdigits"]
    largest: Count = 120
    imbalance_ratio: Ratio = 30.0
    test_per_class: Count = 50


class Letters(WholeSet):
    """Capital letters A to Z, drawn from a folder of fonts, cut to a long tail; no family of fonts both trains and tests."""

    images_are, model_is = "the letters are 28 x 28 and grey", {"image_size": 28, "channels": 1}
    usual: ClassVar[dict] = {"mean": (0.1921,), "std": (0.3618,)}

    dataset: Literal["letters"]
    fonts: Text = "data/fonts"  # .ttf and .otf, in whatever folders within
    largest: Count = 240
    imbalance_ratio: Ratio = 60.0
    test_per_class: Count = 80


class Cifar(WholeSet):
    """CIFAR-10 or CIFAR-100 through torchvision, cut to a long tail; its own test set."""

    images_are, model_is = "CIFAR has colour images", {"channels": 3}
    test_per_class: ClassVar[int] = 0  # its own test set
    usual: ClassVar[dict] = IMAGENET

    dataset: Literal["cifar10", "cifar100"]
    folder: Text  # fetched into it once; data/cifar10 or data/cifar100
    download: bool = True
    largest: Count  # 5000 or 500, all there are
    imbalance_ratio: Ratio = 100.0

    @model_validator(mode="before")
    @classmethod
    def _own_folder_and_size(cls, given: dict) -> dict:
        return {"folder": f"data/{given.get('dataset')}", "largest": 5000 if given.get("dataset") == "cifar10" else 500} | given


class Files(Pixels):
    """Image files: a part is a folder with a folder a class, a CSV (path,label), a list (a `path label` a line), or JSON
    annotations.

    Paths in a file count from `root` (default: the folder it lies in).
    """

    usual: ClassVar[dict] = IMAGENET | {"crop_share": 0.875, "interpolation": "bicubic"}

    dataset: Literal["files"]
    train: Text
    val: Text | None = None
    test: Text | None = None  # without one, `test_per_class` images a class are held out of the training part
    evaluate: Literal["test", "val"] = "test"
    root: Text | None = None
    class_names: Text | None = None  # a text file, a name a line, for lists that number their classes
    protocol: Literal["imagenet_lt", "places_lt", "inaturalist2018"] | None = None  # published counts, checked on loading
    test_per_class: Count = 10
    cache: bool | Literal["auto"] = False  # decode every image once into one file; auto: for a GPU, where the disk has room
    crop_share: Annotated[Number, Field(ge=0.1, le=1)] | None = None  # of the resized image's sides, kept at evaluation
    interpolation: Literal["bicubic", "bilinear"] | None = None

    @model_validator(mode="after")
    def _evaluated_part_is_there(self):
        if self.evaluate == "val" and self.val is None:
            raise ValueError("evaluate 'val' needs the key val")
        return self

    @property
    def channels(self) -> int:
        return len(self.mean or self.usual["mean"])


# each is loaded by its file in data/sets/
Data = Annotated[Digits | Optdigits | Letters | Cifar | Files, Field(discriminator="dataset")]
DATASETS = {name: kind for kind in get_args(get_args(Data)[0]) for name in get_args(kind.model_fields["dataset"].annotation)}


class Model(Section):
    """A timm VisionTransformer or Eva. What is left out (null) stays as the architecture has it."""

    architecture: Text = "vit_base_patch16_224"
    image_size: Side | None = None
    patch_size: Side | None = None
    width: Side | None = None
    depth: Layers | None = None
    heads: Side | None = None
    channels: Annotated[int, Field(ge=1, le=1000)] = 3
    pooling: Literal["avg", "token"] = "avg"
    class_token: bool = True
    init: Text = "masked_autoencoding"  # or scratch, a timm pretrained tag, a file of weights
    head_init_std: Annotated[Number, Field(gt=0, le=1000)] | None = None  # of the head's weights; LiVT: 2e-5

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

    @property
    def tag(self) -> str | None:
        """The timm pretrained tag that `init` names, if it names one."""
        made = self.init in ("masked_autoencoding", "scratch") or self.init.endswith(WEIGHT_FILES)
        return None if made else self.init


class Recipe(Section):
    """Optimisation and augmentation shared by every training (section 6.2).

    A batch is worked through in parts of `micro_batch` images, shared out over the processes: how many processes there are does
    not change the training, and memory is bounded. Without it each process has one part, so that their number changes what is
    drawn at random.
    """

    batch_size: Batch = 1024
    micro_batch: Batch | None = None  # null: the batch in one part, or one part a process
    learning_rate: Rate = 1e-3
    final_learning_rate: Strength = 1e-6
    betas: tuple[Beta, Beta] = Field((0.9, 0.99), strict=False)
    weight_decay: Strength = 0.05
    layer_decay: Annotated[Number, Field(ge=0.01, le=1)] = 0.75
    drop_path: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    random_shift: Annotated[int, Field(ge=0, le=65_536)] = 0  # pixels, each way: an augmentation for small images
    random_crop: Shares | None = Field(None, strict=False)  # smallest and largest share of the area
    flip: bool = False
    rand_augment: tuple[Magnitude, Magnitude] | None = Field(None, strict=False)  # magnitude and its deviation
    mixup: Strength = 0.0
    cutmix: Strength = 0.0
    random_erasing: Fraction = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False  # torch.compile


class Config(Section):
    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"  # processes that train together; auto: one a GPU
    loader_workers: Literal["auto"] | Annotated[int, Field(ge=0, le=1024)] = "auto"  # processes of each that read images
    jobs_per_gpu: Annotated[int, Field(ge=1, le=64)] = 1  # trainings of the grid and the verdict at once on one GPU
    reproducible: bool = False  # on CPUs: the same digits on every x86-64 processor with AVX2, slower
    outputs: Text = "outputs"
    likelihood: Likelihood = "bernoulli"
    logit_adjustment: Strength = 1.0
    head_share: Fraction = since(0.5)  # of the classes, the most frequent ones: the head task's; the paper's half
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
    calibration: Calibration = Calibration()
    verdict: Verdict = Verdict()
    baselines: Methods = {"ce": {}, "logit_adjusted_ce": {}, "balanced_bce": {}}

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name.lower() in BESIDE_RUNS:
            raise ValueError("is what outputs/ itself needs; choose another name")
        return name

    @model_validator(mode="after")
    def _usual_pixels(self):
        """Where the start says nothing of its pixels; a tag's are known to timm alone (models/start_pixels.py)."""
        if self.model.tag is None:
            self.__dict__["data"] = self.data.filled
        return self

    @model_validator(mode="after")
    def _model_fits_the_images(self):
        if isinstance(self.data, WholeSet) and any(
            getattr(self.model, key) != value for key, value in self.data.model_is.items()
        ):
            wanted = " and ".join(f"model.{key}: {value}" for key, value in self.data.model_is.items())
            raise ValueError(f"{self.data.images_are}: set {wanted}")
        if isinstance(self.data, Files) and self.model.channels not in (1, 3):
            raise ValueError(f"model.channels: image files are read as grey (1) or colour (3), got {self.model.channels}")
        for name in ("mean", "std"):
            if len(getattr(self.data.filled, name)) != self.model.channels:
                raise ValueError(f"data.{name}: one number a channel, and model.channels is {self.model.channels}")
        return self

    @model_validator(mode="after")
    def _proxy_of_all_samples(self):
        if self.stage1.samples == "own" and self.selection.shared_depth is None:
            raise ValueError(
                "stage1.samples: own: every form of the proxy is of tasks that learn from all images; name the choice yourself, "
                "selection.shared_depth and selection.head_weight"
            )
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
