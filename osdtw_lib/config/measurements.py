"""The sections of what is measured beside a run: notebooks 07 (theory), 08 (the grid), 09 (every method), 10 (calibration)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from .values import Count, Depth, Distinct, Epochs, HeadWeights, HeldOut, Likelihood, Section, Seed, Text


class Theory(Section):
    """Notebook 07: repetitions of the simulation, images of each set whose scores are multiplied."""

    # with more, the simulation would see the order after the one under test
    repetitions: Annotated[int, Field(ge=400, le=100_000)] = 20_000
    images: Count = 2000


class Ablation(Section):
    """The measured grid of notebook 08, the paper's section 6.4."""

    depths: Annotated[tuple[Depth, ...], Distinct] | None = Field(None, strict=False)  # all there are
    head_weights: HeadWeights = Field((0.1, 0.3, 0.5, 0.7, 0.9), strict=False, min_length=1)
    seeds: Annotated[tuple[Seed, ...], Distinct] = Field((0, 1), strict=False, min_length=1)
    likelihoods: Annotated[tuple[Likelihood, ...], Distinct] = Field(("bernoulli", "categorical"), strict=False)
    refinement_epochs: Epochs | None = None  # as stage3


def _with_or_without_parameters(value):
    """[ce, my/method.py, {ldam: {margin: 0.3}}], or {name: parameters}."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    found: dict = {}
    for one in listed:
        one = {one: {}} if isinstance(one, str) else one
        several = isinstance(one, dict) and one is not value and len(one) != 1
        if several or not isinstance(one, dict) or not all(isinstance(v, (dict, type(None))) for v in one.values()):
            raise ValueError("give names of methods or paths of .py files; with parameters: {ce: {key: value}}")
        if twice := found.keys() & one.keys():
            raise ValueError(f"'{min(twice)}' is given twice")
        found |= {name: values or {} for name, values in one.items()}
    return found


Methods = Annotated[dict[str, dict], BeforeValidator(_with_or_without_parameters)]  # and their parameters


class Calibration(Section):
    """Training images set aside to fit temperatures and prediction sets: so many of each class, or a share below 1."""

    images: HeldOut | None = None


class Verdict(Section):
    """Notebook 09: every method over seeds. training_images: whether a seed draws which images train, or only start, order and
    augmentation; others: row files made elsewhere. budgets: as many epochs as Stage 2; as many FLOPs as OSDTW; as many epochs,
    with values tuned on validation images."""

    methods: Methods | None = None  # every one that is known
    seeds: Annotated[tuple[Seed, ...], Distinct] = Field((0, 1, 2), strict=False, min_length=1)
    quick: bool = False  # the first two seeds, without the dear rows
    training_images: Literal["drawn", "kept"] = "kept"
    budgets: Annotated[tuple[Literal["epochs", "osdtw", "tuned"], ...], Distinct] = Field(("epochs",), strict=False, min_length=1)
    others: tuple[Text, ...] = Field((), strict=False)

    @field_validator("budgets")
    @classmethod
    def _the_same_epochs_first(cls, budgets: tuple) -> tuple:
        if "epochs" not in budgets:
            raise ValueError("the other budgets stand on `epochs`; name it too")
        return budgets
