"""`stage3.likelihood: joint`: the loss beside one worked out in float64, mixed labels and parts; the row that says so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osdtw_lib.config.load import load_config
from osdtw_lib.data.batches import Part
from osdtw_lib.methods import osdtw
from osdtw_lib.methods._base import Problem
from osdtw_lib.models.vit import build_vit
from osdtw_lib.planning.steps import steps_of

COUNTS = np.array([60, 4, 30, 2, 9])  # head: 0, 2, 4


@pytest.fixture
def problem(params):
    """problem({...}) of five classes, whose networks are tiny."""

    def make(changes=None):
        config = load_config(params({"stage3.likelihood": "joint"} | (changes or {})))
        return Problem(config, tuple("abcde"), COUNTS, lambda outputs: build_vit(config.model, outputs))

    return make


def logits_of(problem, n):
    generator = torch.Generator().manual_seed(3)
    return {t: torch.randn(n, likelihood.n_outputs, generator=generator) for t, likelihood in problem.likelihoods.items()}


def expected(problem, logits, targets, tau):
    """Minus the log-likelihood of each image, by numpy alone; targets (B, K)."""
    scores = np.zeros((len(targets), 5))
    for task, own in problem.partition.items():
        raw = logits[task].double().numpy()
        scores[:, own] = raw if raw.shape[1] == len(own) else raw[:, :-1] - raw[:, -1:]
    adjusted = scores + tau * np.log(COUNTS / COUNTS.sum())
    return (targets * (np.log(np.exp(adjusted).sum(1, keepdims=True)) - adjusted)).sum(1)


def part(images, labels):
    return Part(images, labels, 1.0, 0)


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical"])
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_the_loss_is_a_logit_adjusted_softmax_over_what_predicts(problem, likelihood, tau):
    made = problem({"likelihood": likelihood, "logit_adjustment": tau})
    logits, labels = logits_of(made, 6), torch.tensor([0, 1, 2, 3, 4, 1])
    mixed = 0.7 * F.one_hot(labels, 5) + 0.3 * F.one_hot(labels.roll(1), 5)
    phase = osdtw.refine(made)
    for shown, targets in ((labels, F.one_hot(labels, 5)), (mixed, mixed)):
        losses = phase.losses(lambda images: logits, part(None, shown))
        assert list(losses) == ["joint"]
        wanted = expected(made, logits, targets.double().numpy(), tau)
        assert float(losses["joint"]) == pytest.approx(wanted.mean(), rel=1e-6)


@pytest.mark.parametrize("kind", ["joint", "separate"])
def test_it_couples_both_decoders_where_the_papers_does_not(problem, kind):
    made = problem({"stage3.likelihood": kind})
    logits = {t: z.requires_grad_() for t, z in logits_of(made, 4).items()}
    losses = osdtw.refine(made).losses(lambda images: logits, part(None, torch.tensor([0, 2, 4, 0])))
    losses["joint" if kind == "joint" else "head"].backward()
    assert (logits["tail"].grad is not None) is (kind == "joint")


def test_separate_is_minus_both_tasks_likelihoods_to_the_bit(problem):
    made = problem({"stage3.likelihood": "separate"})
    logits, labels = logits_of(made, 6), torch.tensor([0, 1, 2, 3, 4, 1])
    losses = osdtw.refine(made).losses(lambda images: logits, part(None, labels))
    wanted = osdtw.minus_likelihoods(made, logits, labels)
    assert losses.keys() == wanted.keys() and all(torch.equal(losses[t], wanted[t]) for t in wanted)


def test_parts_of_a_batch_add_up_to_it(problem):
    made = problem()
    logits, labels = logits_of(made, 6), torch.tensor([0, 1, 2, 3, 4, 1])
    phase = osdtw.refine(made)
    whole = phase.losses(lambda images: logits, part(None, labels))["joint"]
    halves = [
        len(labels[some])
        / 6
        * phase.losses(lambda i, s=some: {t: z[s] for t, z in logits.items()}, part(None, labels[some]))["joint"]
        for some in (slice(0, 2), slice(2, 6))
    ]
    assert not phase.coupled
    torch.testing.assert_close(sum(halves), whole)


def test_the_row_says_which_refinement_it_is(problem):
    titles = [osdtw.Refined(problem({"stage3.likelihood": kind})).title for kind in ("separate", "joint")]
    assert titles == ["OSDTW refined", "OSDTW refined jointly (ours)"]


def test_the_plan_counts_it_as_the_papers(problem):
    joint, separate = (
        next(step for step in steps_of(problem({"stage3.likelihood": kind}).config, 5) if step.name == "stage3")
        for kind in ("joint", "separate")
    )
    assert joint.flops == separate.flops > 0
