"""The Fisher of every family of starts against one sample at a time in float64, on every tensor."""

import pytest
import torch
from small_networks import likelihood
from small_starts import FAMILIES, small_start, some_images

from osdtw_lib.fisher import diagonal_fisher

LABELS = torch.tensor([0, 3, 5, 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_is_exact_on_every_tensor(family, capsys):
    network, x = small_start(family).double(), some_images()
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, label in zip(x.split(1), LABELS.split(1)):
        score = likelihood()(network(image), label).sum()
        for total, g in zip(expected.values(), torch.autograd.grad(score, list(network.parameters()))):
            total += g.square() / len(LABELS)
    found = diagonal_fisher(network, [(x, LABELS)], likelihood())
    assert found.keys() == expected.keys()
    for name, reference in expected.items():
        largest = float(reference.max())
        assert torch.allclose(found[name], reference, rtol=1e-9, atol=1e-9 * largest + 1e-25), name
        assert largest > 0 or name.endswith("k_proj.bias"), name
    assert "no rule" not in capsys.readouterr().out
    in_float32 = diagonal_fisher(network.float(), [(x.float(), LABELS)], likelihood())
    for name, reference in expected.items():
        assert torch.allclose(in_float32[name].double(), reference, rtol=0, atol=1e-4 * float(reference.max()) + 1e-12), name


def test_an_attention_that_is_used_twice_is_still_exact(capsys):
    """Its rule and that of its biases hold for one call; both go one sample at a time."""
    network, x = small_start("EVA").double(), some_images()
    network.blocks[1].attn = network.blocks[0].attn
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, label in zip(x.split(1), LABELS.split(1)):
        score = likelihood()(network(image), label).sum()
        for total, g in zip(expected.values(), torch.autograd.grad(score, list(network.parameters()))):
            total += g.square() / len(LABELS)
    before = network(x)
    found = diagonal_fisher(network, [(x, LABELS)], likelihood())
    for name, reference in expected.items():
        assert torch.allclose(found[name], reference, rtol=1e-9, atol=1e-9 * float(reference.max()) + 1e-25), name
    assert "blocks.0.attn.q_bias" in capsys.readouterr().out and torch.equal(network(x), before)
