"""The parameter file as a validated, frozen object.

One YAML file a data set. A key that does not exist is an error that names the nearest one that does; every
error is one line with the file, the key and what to do.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import UserError

PROJECT = Path(__file__).resolve().parents[1]

BASELINES = ("ce", "logit_adjusted_ce", "balanced_bce")
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Data(Section):
    """Which images, and how they are cut to a long tail."""

    dataset: Literal["digits"]
    largest: Count = 400
    imbalance_ratio: Annotated[float, Field(ge=1)] = 100.0
    test_per_class: Count = 100
    mean: tuple[float, ...] = Field((0.1307,), strict=False)
    std: tuple[Positive, ...] = Field((0.3081,), strict=False)


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
    init: str = "masked_autoencoding"

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
    """Optimisation shared by every training (section 6.2)."""

    batch_size: Count = 1024
    learning_rate: Positive = 1e-3
    final_learning_rate: NonNegative = 1e-6
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.99), strict=False)
    weight_decay: NonNegative = 0.05
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    random_shift: Annotated[int, Field(ge=0)] = 0  # pixels, each way: an augmentation for small images
    precision: Literal["fp32", "bf16"] = "fp32"


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
    """The measured bias: how many training images, at most, how many at a time; the damping of the mean of both encoders."""

    images: Count = 2000
    damping: Literal["evidence"] | NonNegative = 0.0
    batch_size: Count = 64


class Selection(Section):
    """Which form of the proxy selects, or the choice itself (both shared_depth and head_weight)."""

    form: Literal["paper", "damped", "direct"] = "direct"
    prior: Literal["training", "balanced"] = "balanced"
    damping: Literal["evidence"] | NonNegative = "evidence"
    shared_depth: Annotated[int, Field(ge=0)] | None = None
    head_weight: Fraction | None = None

    @model_validator(mode="after")
    def _both_or_none(self):
        if (self.shared_depth is None) != (self.head_weight is None):
            raise ValueError("give both shared_depth and head_weight to name the choice yourself, or neither")
        return self


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
    ablation: Ablation = Ablation()
    baselines: tuple[Literal["ce", "logit_adjusted_ce", "balanced_bce"], ...] = Field(BASELINES, strict=False)

    @model_validator(mode="after")
    def _model_fits_the_images(self):
        if self.data.dataset == "digits" and (self.model.image_size, self.model.channels) != (28, 1):
            raise ValueError("the digits are 28 x 28 and grey: set model.image_size: 28 and model.channels: 1")
        for name in ("mean", "std"):
            if len(getattr(self.data, name)) != self.model.channels:
                raise ValueError(f"data.{name}: one number a channel, and model.channels is {self.model.channels}")
        return self

    @property
    def folder(self) -> Path:
        """outputs/NAME; a relative `outputs` counts from the project's folder."""
        return PROJECT / Path(self.outputs).expanduser() / self.name


def load_config(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Config:
    """Read and check a parameter file.

    overrides: "key.subkey=value" strings, as given to --set; values are YAML.
    Raises UserError, one line, for anything that is not a valid parameter file.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such parameter file{_nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a parameter file: {error}") from None
    values = _parse(text, str(path))
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path}: is empty or no list of `key: value` lines; start from params/mnist_lt.yaml")
    for override in overrides:
        _override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None


def dump_config(config: Config) -> str:
    """The whole parameter file, defaults included, as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers (1e-3 is one), and a key given twice is an error."""

    def construct_mapping(self, node, deep=False):
        seen = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a word", problem_mark=key_node.start_mark)
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key_node.value}' given twice", problem_mark=key_node.start_mark
                )
            seen[key_node.value] = True
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
# integers first, as both patterns match them
for _first in "-+0123456789":
    _Loader.yaml_implicit_resolvers[_first].sort(key=lambda entry: entry[0] != "tag:yaml.org,2002:int")


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist, and the like
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _override(values: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: write --set key=value, for instance --set stage1.epochs=5")
    *sections, last = key.strip().split(".")
    known = _known_keys()
    if ".".join((*sections, last)) not in known:
        raise UserError(f"--set {override}: unknown key '{key.strip()}'{_nearest(key.strip(), known)}")
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[last] = _parse(value, f"--set {override}")


def _known_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += _known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _nearest(word: str, known: list[str]) -> str:
    # the same last word: put in the wrong section, or without its section
    found = [key for key in known if key.split(".")[-1] == word.split(".")[-1]]
    found.sort(key=lambda key: -difflib.SequenceMatcher(None, key, word).ratio())
    found = found or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else f"; known keys: {', '.join(known[:12])} ..."


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (the folder {path.parent} does not exist either)"
    files = sorted(file.name for file in path.parent.glob("*.yaml"))
    found = difflib.get_close_matches(path.name, files, n=1)
    return f"; did you mean {path.parent / found[0]}?" if found else f"; {path.parent} has: {', '.join(files) or 'none'}"


def _explain(error: ValidationError) -> str:
    """The first problem of a pydantic error, in one line a user can act on; a misspelt key before what it leaves unset."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    # keep only names of keys: a union adds the names of its members to the location
    key = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or re.fullmatch(r"[a-z_0-9]+", str(part)))
    known = _known_keys()
    while key and "." in key and first["type"] not in ("extra_forbidden", "missing") and key not in known:
        if re.search(r"\.\d+$", key):
            break
        key = key.rpartition(".")[0]
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(key, known)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error" and key == "data.dataset":
        names = get_args(Data.model_fields["dataset"].annotation)
        message = f"unknown data set; known: {', '.join(names)}"
    problems = len(error.errors())
    more = f" (and {problems - 1} more)" if len({e["loc"][0] for e in error.errors() if e["loc"]}) > 1 else ""
    return f"{key + ': ' if key else ''}{message}, got {first['input']!r}{more}" if key else message + more
