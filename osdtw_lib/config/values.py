"""What a section of a parameter file is, and what a number, a name or a path in it may be: the types its keys have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Likelihood = Literal["bernoulli", "categorical"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def _of_single_precision(value: float) -> float:
    if value and not 1e-30 <= abs(value) <= 1e30:
        raise ValueError("a number is 0 or of a size that single precision holds, 1e-30 to 1e30")
    return value


def _usable(text: str) -> str:
    """A name or path that the system's own functions take: they raise errors of many kinds for others."""
    if not text.strip():
        raise ValueError("is empty")
    if any(ord(character) < 32 for character in text):
        raise ValueError("holds a control character")
    if len(os.fsencode(text)) > 4000 or max(len(os.fsencode(part)) for part in text.split("/")) > 255:
        raise ValueError("is too long: a name has 255 bytes at most, a path 4,000")
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"nobody here has the home folder {text.split('/')[0]}") from None
    return text


def _least_first(shares: tuple[float, float]) -> tuple[float, float]:
    if shares[0] > shares[1]:
        raise ValueError("the smallest share comes first, then the largest")
    return shares


def _distinct(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("the same value is given twice")
    return values


def _count_or_share(value: float) -> float:
    if isinstance(value, float) and not 1e-6 <= value < 1 or value < 1e-6 or value > 1_000_000_000:
        raise ValueError("a whole number of images of each class, or a share of them above 0 and below 1")
    return value


def _one_trains_both(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not any(0 < weight < 1 for weight in weights):
        raise ValueError("name one between 0 and 1: at either end a task is not trained, and none of them can be picked")
    return weights


def since(default: Any) -> Any:
    """The default of a key that is younger than results there are: at it the key is in no artifact's key, and they stay done."""
    return Field(default, exclude_if=lambda value: value == default)


# bounds: what is beyond them is a slip of the pen, or would stop a run in its middle
Distinct = AfterValidator(_distinct)
Text = Annotated[str, AfterValidator(_usable)]
Number = Annotated[float, AfterValidator(_of_single_precision)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
HeadWeights = Annotated[tuple[Fraction, ...], Distinct, AfterValidator(_one_trains_both)]
NonNegative = Annotated[Number, Field(ge=0)]
Strength = Annotated[Number, Field(ge=0, le=1000)]  # 0 is off
Rate = Annotated[Number, Field(ge=1e-12, le=1000)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]  # of images
Batch = Annotated[int, Field(ge=1, le=1_000_000)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Warmup = Annotated[Number, Field(ge=0, le=1_000_000)]
Side = Annotated[int, Field(ge=1, le=65_536)]  # of images and layers
Several = Annotated[int, Field(ge=2, le=100)]  # networks
Depth = Annotated[int, Field(ge=0, le=1000)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Magnitude = Annotated[Number, Field(ge=0, le=10)]
Area = Annotated[Number, Field(ge=0.001, le=1)]
Beta = Annotated[Number, Field(ge=0, lt=1)]
Ratio = Annotated[Number, Field(ge=1, le=1e9)]
Shares = Annotated[tuple[Area, Area], AfterValidator(_least_first)]
Means = tuple[Annotated[Number, Field(ge=-1000, le=1000)], ...]
HeldOut = Annotated[int | float, AfterValidator(_count_or_share)]  # images of each class, or a share of them
Deviations = tuple[Annotated[Number, Field(ge=1e-6, le=1000)], ...]
