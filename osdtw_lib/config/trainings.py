"""The sections of what is trained: how long each stage is, its warm-up, and what else is its own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .values import Epochs, Layers, Number, Rate, Section, Side, Warmup, since


class Training(Section):
    """Length of one training; its learning rate where it differs from the recipe's."""

    epochs: Epochs
    warmup_epochs: Warmup = 0.0
    learning_rate: Rate | None = None

    @model_validator(mode="after")
    def _warm_up_ends(self):
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epochs, so the whole rate is never reached; give fewer"
            )
        return self

    def lasting(self, epochs: int) -> Self:
        """The same over so many epochs, the warm-up in proportion."""
        return self.model_copy(update={"epochs": epochs, "warmup_epochs": self.warmup_epochs * epochs / self.epochs})


class MaskedAutoencoding(Training):
    """Stage 0. The paper's start: 800 epochs at mask ratio 0.75."""

    epochs: Epochs = 800
    warmup_epochs: Warmup = 40.0
    mask_ratio: Annotated[Number, Field(gt=0, lt=1)] = 0.75
    decoder_width: Side = 512
    decoder_depth: Layers = 8
    decoder_heads: Side = 16
    normalize_patches: bool = True


class Stage1(Training):
    epochs: Epochs = 100
    warmup_epochs: Warmup = 10.0
    samples: Literal["all", "own"] = "all"


class Stage2(Training):
    """The joint network, from the starting point as the paper has it; from_merge: instead so many epochs (ours) from Stage 1's
    encoders, merged by their Fishers as the measured bias has them. `epochs` is also how long a method of one training trains."""

    epochs: Epochs = 100
    warmup_epochs: Warmup = 10.0
    from_merge: Epochs | None = since(None)


class Stage3(Training):
    """The refinement: by each task's likelihood or one over all classes, the shared encoder frozen or not."""

    epochs: Epochs = 30
    warmup_epochs: Warmup = 0.0
    decoders: Literal["stage1", "stage2"] = "stage1"
    likelihood: Literal["separate", "joint"] = since("separate")
    encoder: Literal["frozen", "trained"] = since("frozen")
