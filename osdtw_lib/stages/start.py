"""Notebook 02: the weights both tasks and every method start from: Stage 0 (masked autoencoding), or weights given."""

from __future__ import annotations

import torch

from ..artifacts.artifact import Writer
from ..artifacts.files import checksum
from ..backend import gpus
from ..data.augment import UNMIXED
from ..models.masked_autoencoder import MaskedAutoencoder
from ..models.pretrained import given_start, weights_file
from ..models.start_pixels import other_pixels
from ..models.weights import weights
from ..training.phase import Phase
from .pipeline import train
from .run import Run

# crops and moves alone: labels are not used, and what is painted should look like a photograph; nothing is fine-tuned
PAINTING = UNMIXED | {"rand_augment": None, "random_erasing": 0.0, "layer_decay": 1.0}


def parameters(run: Run) -> dict:
    if run.config.model.init == "masked_autoencoding":
        return run.dump("model", "stage0", "recipe")
    path = weights_file(run.config.model)
    return run.dump("model") | ({"weights": checksum(path)} if path else {})


def make(run: Run, write: Writer) -> None:
    config = run.config
    vit = run.vit(len(run.class_names))
    if config.model.init == "masked_autoencoding":
        origin = f"masked autoencoding of the {len(run.train)} training images, {config.stage0.epochs} epochs"
        with gpus.random_state_kept():
            torch.manual_seed(run.seed("stage0"))
            autoencoder = MaskedAutoencoder(vit, config.stage0).to(run.device)
        train(run, write, autoencoder, [painting(config.stage0)], "stage0", "start")
        write.tensors("autoencoder", weights(autoencoder))
    elif config.model.init == "scratch":
        origin = f"random weights of seed {config.seed}"
    else:
        if other := other_pixels(config):
            print(f"start: {other}", flush=True)
        origin, table = given_start(config.model, vit)
        write.table("weights", table)
    write.tensors("weights", weights(vit))
    write.notes["origin"] = origin


def painting(length) -> Phase:
    """Stage 0: the hidden patches painted anew."""
    return Phase(length, lambda autoencoder, part: {"error": autoencoder(part.images)}, recipe=PAINTING)
