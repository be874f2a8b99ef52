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
# Mean and four standard deviations of seven seeds, each with its own split, start and order; of the logarithm for the Fishers'
# traces and the tail's last loss, which spread by factors. Another processor moves the numbers as another seed does.
BANDS = {
    "images": Band("split", "training images", 676, 676),
    "mean pixel": Band("split", "mean pixel of the training images", 33.4, 35.6),
    "painting, first": Band("start", "masked autoencoding error, first epoch", 1.04, 1.6),
    "painting, last": Band("start", "masked autoencoding error, last epoch", 0.581, 0.61),
    "head, first": Band("stage1", "loss of the head task alone, first epoch", 1.95, 2.3),
    "head, last": Band("stage1", "loss of the head task alone, last epoch", 0.0588, 0.0995),
    "tail, first": Band("stage1", "loss of the tail task alone, first epoch", 0.666, 0.684),
    "tail, last": Band("stage1", "loss of the tail task alone, last epoch", 0.0107, 0.136),
    "head, trace": Band("fisher", "trace of the head task's Fisher", 0.554, 17.7),
    "tail, trace": Band("fisher", "trace of the tail task's Fisher", 0.0252, 49.4),
    "by definition": Band("fisher", "head's Fisher of a layer, by its definition's", 0.999, 1.001),  # a ratio, not of seeds
    "bias, C = 2": Band("direct", "measured bias at C = 2, w_A = 0.5 (nats)", -0.0564, 1.34),
    "bias, C = L": Band("direct", "measured bias at C = 4, w_A = 0.5 (nats)", 0.892, 2.03),
    "paper, depth": Band("proxy", "shared depth that Eq. (18) picks", 4, 4),
    "paper, weight": Band("proxy", "head weight that Eq. (18) picks", 0.5, 0.5),
    "joint, last": Band("stage2", "joint loss, last epoch", 0.0891, 0.299),
    "accuracy, ce": Band("tables", "accuracy, cross-entropy (%)", 46.6, 77.4),
    "accuracy, logit_adjusted_ce": Band("tables", "accuracy, logit-adjusted cross-entropy (%)", 57.3, 76.8),
    "accuracy, balanced_bce": Band("tables", "accuracy, balanced BCE (%)", 52.3, 77.4),
    "accuracy, stage1": Band("tables", "accuracy, Stage 1 (%)", 62.4, 75.2),
    "accuracy, stage2": Band("tables", "accuracy, Stage 2 (%)", 52.3, 73.9),
    "accuracy, osdtw_assembled": Band("tables", "accuracy, OSDTW assembled (%)", 40.7, 73.6),
    "accuracy, osdtw": Band("tables", "accuracy, OSDTW refined (%)", 59.5, 78.3),
}
