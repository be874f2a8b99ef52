"""What a small run on the digits has to give: its settings, and a band for each number."""

from __future__ import annotations

from typing import NamedTuple


class Band(NamedTuple):
    """A number of a stage, in words, and where it has to lie."""

    stage: str
    what: str
    low: float
    high: float


SETTINGS = {
    "name": "check",
    "device": "cpu",
    "data": {
        "dataset": "digits",
        "test_per_class": 100,
        "largest": 200,
        "imbalance_ratio": 20,
        "mean": [0.1307],
        "std": [0.3081],
    },
    "model": {
        "image_size": 28,
        "patch_size": 7,
        "width": 48,
        "depth": 4,
        "heads": 4,
        "channels": 1,
        "class_token": False,
        "init": "masked_autoencoding",
    },
    "recipe": {"batch_size": 64, "learning_rate": 2e-3, "weight_decay": 0.05, "layer_decay": 1.0, "drop_path": 0.0},
    "stage0": {
        "epochs": 60,
        "warmup_epochs": 5,
        "decoder_width": 48,
        "decoder_depth": 1,
        "decoder_heads": 4,
        "normalize_patches": False,
    },
    "stage1": {"epochs": 25, "warmup_epochs": 2},
    "stage2": {"epochs": 25, "warmup_epochs": 2},
    "stage3": {"epochs": 8, "learning_rate": 1e-3},
    "direct": {"images": 150, "power": 2, "damping": "evidence"},
    "selection": {"form": "direct", "loss": "prediction", "shared_depth": 2, "head_weight": 0.5},
}
BANDS: dict[str, Band] = {}
