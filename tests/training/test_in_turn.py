"""Losses that are taken one after the other: the same gradients, and for a backward pass one network's activations at a time."""

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from small_run import write_small

from osdtw_lib.config.load import load_config
from osdtw_lib.data.batches import Part
from osdtw_lib.longtail import TASKS
from osdtw_lib.methods import osdtw
from osdtw_lib.methods._base import Problem
from osdtw_lib.models.vit import build_vit
from osdtw_lib.planning import steps
from osdtw_lib.training.phase import backward, means

COUNTS = np.array([30, 20, 12, 8, 6, 5, 4, 3, 3, 3])


def problem(folder, **changes):
    config = load_config(write_small(folder, {"recipe.drop_path": 0.3, **changes}))
    return Problem(config, tuple("abcdefghij"), COUNTS, lambda outputs: build_vit(config.model, outputs, 0.3))


def part(share=0.5):
    images = torch.randn(16, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 10
    return Part(images, labels, share, 0, own=labels, batch=labels.repeat(2))


def at_once(phase, networks, shown):
    """The losses of all networks first, then one backward pass over their sum."""
    losses = means(phase, networks, shown)
    (shown.share * sum(losses.values())).backward()
    return {name: loss.detach() for name, loss in losses.items()}


def trained_by(step, made):
    torch.manual_seed(0)
    networks = osdtw.two_networks(made).train()
    torch.manual_seed(7)  # which blocks are dropped
    losses = step(osdtw.alone(made), networks, part())
    return losses, {name: p.grad for name, p in networks.named_parameters()}, torch.get_rng_state()


@pytest.mark.parametrize("samples", ["all", "own"])
def test_gradients_losses_and_random_numbers_are_those_of_one_backward_pass(tmp_path, samples):
    made = problem(tmp_path, **{"stage1.samples": samples})
    (found, gradients, state), (expected, together, after) = trained_by(backward, made), trained_by(at_once, made)
    assert list(found) == list(TASKS) == list(expected) and all(torch.equal(found[t], expected[t]) for t in TASKS)
    assert all(torch.equal(gradients[name], gradient) for name, gradient in together.items()) and torch.equal(state, after)
    assert not any(loss.requires_grad for loss in found.values())


class Held:
    """A tensor that autograd keeps."""

    def __init__(self, tensor):
        self.tensor = tensor


def kept_at_most(step, phase, networks):
    """Bytes that are kept for backward passes at any moment of a step, weights aside."""
    own, held, most = {p.untyped_storage().data_ptr() for p in networks.parameters()}, [0], [0]

    def keep(tensor):
        box, size = Held(tensor), 0 if tensor.untyped_storage().data_ptr() in own else tensor.nbytes
        held[0] += size
        most[0] = max(most[0], held[0])
        weakref.finalize(box, lambda: held.__setitem__(0, held[0] - size))
        return box

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda box: box.tensor):
        step(phase, networks, part())
    assert held[0] == 0
    return most[0]


def test_one_networks_activations_are_gone_before_the_next_ones_come(tmp_path):
    made = problem(tmp_path)
    networks, phase = osdtw.two_networks(made).train(), osdtw.alone(made)
    whole = kept_at_most(at_once, phase, networks)
    assert 0.45 * whole < kept_at_most(backward, phase, networks) < 0.55 * whole
    joint = dataclasses.replace(phase, losses=lambda *shown: {n: v for one in phase.losses(*shown) for n, v in one.items()})
    assert kept_at_most(backward, joint, networks) == whole


def test_the_plan_counts_one_network_at_a_time(tmp_path):
    config = problem(tmp_path).config
    stages = {step.name: step for step in steps.steps_of(config, 10)}
    alone, plain = (steps.memory_of(stages[name], config, 8, None) for name in ("stage1", "baselines"))
    assert alone["activations of 8 images"] < 1.1 * plain["activations of 8 images"]
    assert alone["weights"] > 1.9 * plain["weights"]


@pytest.mark.parametrize("mixed", [False, True])
def test_own_samples_are_weighed_over_the_batch_however_it_is_cut(tmp_path, mixed):
    made = problem(tmp_path, **{"stage1.samples": "own", "recipe.drop_path": 0.0})
    torch.manual_seed(0)
    networks, phase = osdtw.two_networks(made).eval(), osdtw.alone(made)
    images, own = torch.randn(16, 1, 28, 28), torch.tensor([0, 1, 2, 9, 0, 1, 3, 0, 8, 2, 1, 0, 9, 9, 0, 1])
    labels, other = own, own.flip(0)
    if mixed:
        one_hot = torch.eye(10)
        labels = 0.7 * one_hot[own] + 0.3 * one_hot[other]

    def cut(*sizes):
        found, start = dict.fromkeys(TASKS, 0.0), 0
        for n in sizes:
            at = slice(start, start + n)
            one = Part(images[at], labels[at], n / 16, 0, own=own[at], batch=own)
            found = {t: found[t] + one.share * float(loss) for t, loss in means(phase, networks, one).items()}
            start += n
        return found

    whole = cut(16)
    assert cut(3, 1, 7, 5) == pytest.approx(whole, rel=1e-5)
    for task in TASKS:
        likelihood = made.likelihoods[task]
        logits, mine = networks[task](images).detach(), [torch.isin(y, likelihood.classes) for y in (own, other)]
        each = [likelihood(logits, y) * inside for y, inside in zip((own, other), mine)]
        expected = -(0.7 * each[0] + 0.3 * each[1] if mixed else each[0]).sum() / mine[0].sum()
        assert whole[task] == pytest.approx(float(expected), rel=1e-5)
