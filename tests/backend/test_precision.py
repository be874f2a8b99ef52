"""Which precision where: said by `recipe.precision`, the same for training, Fisher and evaluation; TF32 nowhere."""

import numpy as np
import pytest
import torch
from torch import nn

from osdtw_lib.backend.precision import autocast
from osdtw_lib.config.load import load_config
from osdtw_lib.evaluation.scores import scores_over
from osdtw_lib.stages.run import Run

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    "precision, device, evaluation, expected",
    [
        ("fp32", CPU, False, False),
        ("fp32", GPU, True, False),
        ("bf16", CPU, False, True),
        ("bf16", CPU, True, False),
        ("bf16", GPU, False, True),
        ("bf16", GPU, True, True),
    ],
)
def test_where_products_are_in_half_the_bits(monkeypatch, precision, device, evaluation, expected):
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype: asked.append((kind, dtype)))
    autocast(precision, device, evaluation)
    assert asked == ([(device.type, torch.bfloat16)] if expected else [])


def test_shapes_alone_are_counted_in_every_precision():
    for precision in ("fp32", "bf16"):
        with autocast(precision, torch.device("meta")):
            pass


def test_an_opened_run_has_no_tf32_for_products_nor_convolutions(params):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    Run(load_config(params()))
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_scores_are_single_precision_or_wider_whatever_a_network_gives(monkeypatch):
    seen = []

    def scores(network, images):
        seen.append(torch.is_autocast_enabled("cpu"))
        return network(images)

    batches = [(torch.randn(3, 4), None), (torch.randn(2, 4), None)]
    for dtype, expected in ((torch.bfloat16, np.float32), (torch.float32, np.float32), (torch.float64, np.float64)):
        found = scores_over(nn.Linear(4, 2).to(dtype), scores, [(x.to(dtype), y) for x, y in batches], "bf16")
        assert found.dtype == expected and found.shape == (5, 2)
    assert not any(seen)  # on a CPU


def test_a_gpu_evaluates_in_the_recipes_precision(monkeypatch):
    """The CPU in a GPU's place: only what is asked for is looked at."""
    monkeypatch.setattr("osdtw_lib.evaluation.scores.autocast", lambda p, _, evaluation: autocast(p, CPU) if evaluation else None)
    network, images = nn.Linear(64, 8), torch.randn(5, 64)
    exact, half = (scores_over(network, lambda net, x: net(x), [(images, None)], p) for p in ("fp32", "bf16"))
    assert half.dtype == np.float32 and 0 < np.abs(exact - half).max() < 0.05
