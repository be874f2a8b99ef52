"""The sections of what ranks the cells: the Fisher, the measured bias, and which form of the proxy selects."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .values import Batch, Count, Depth, Fraction, NonNegative, Number, Section


class Fisher(Section):
    batch_size: Batch = 64
    buffer_megabytes: Annotated[Number, Field(gt=0, le=1_000_000)] = 64.0


class Direct(Section):
    """The measured bias: how many training images, at most, how many at a time; how both encoders are merged (direct.py)."""

    images: Count = 2000
    power: Annotated[Number, Field(gt=0, le=1000)] = 2.0
    damping: Literal["evidence"] | NonNegative = 0.0
    batch_size: Batch = 64


class Selection(Section):
    """Which form of the proxy selects, or the choice itself (both shared_depth and head_weight)."""

    form: Literal["paper", "damped", "direct"] = "direct"
    loss: Literal["training", "balanced", "prediction"] = "prediction"
    damping: Literal["evidence"] | NonNegative = "evidence"
    shared_depth: Depth | None = None
    head_weight: Fraction | None = None

    @model_validator(mode="after")
    def _both_or_none(self):
        if (self.shared_depth is None) != (self.head_weight is None):
            raise ValueError("give both shared_depth and head_weight to name the choice yourself, or neither")
        return self
