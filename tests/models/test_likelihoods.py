"""Both likelihoods and the baselines' losses against sums written out one sample at a time in float64."""

import numpy as np
import pytest
import torch

from osdtw_lib.models.likelihoods import task_likelihoods

COUNTS = np.array([40, 30, 20, 10, 5, 2])
PRIORS = COUNTS / COUNTS.sum()
GROUPS = {"head": np.array([0, 2, 3]), "tail": np.array([1, 4, 5])}
LABELS = torch.tensor([0, 1, 2, 3, 4, 5, 5, 2])


def logits_of(n_outputs, dtype=torch.float64, spread=3.0):
    values = torch.randn(len(LABELS), n_outputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (spread * values).to(dtype)


def soft_labels():
    mix = torch.rand(len(LABELS), len(COUNTS), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return mix / mix.sum(1, keepdim=True)


def one_hot(labels):
    return np.eye(len(COUNTS))[labels.numpy()] if labels.ndim == 1 else labels.numpy()


def bernoulli_reference(logits, labels, classes, tau):
    scores = np.zeros(len(logits))
    for n, (row, targets) in enumerate(zip(logits.double().numpy(), one_hot(labels))):
        for s, k in zip(row, classes):
            probability = 1 / (1 + np.exp(-(s + tau * (np.log(PRIORS[k]) - np.log(1 - PRIORS[k])))))
            scores[n] += targets[k] * np.log(probability) + (1 - targets[k]) * np.log(1 - probability)
    return scores


def categorical_reference(logits, labels, classes, tau):
    others = [k for k in range(len(COUNTS)) if k not in set(classes.tolist())]
    outcomes = np.append(PRIORS[classes], PRIORS[others].sum())
    scores = np.zeros(len(logits))
    for n, (row, targets) in enumerate(zip(logits.double().numpy(), one_hot(labels))):
        odds = np.exp(row + tau * np.log(outcomes))
        wanted = np.append(targets[classes], targets[others].sum())
        scores[n] = (wanted * np.log(odds / odds.sum())).sum()
    return scores


REFERENCES = {"bernoulli": bernoulli_reference, "categorical": categorical_reference}


@pytest.mark.parametrize("labels", [LABELS, soft_labels()], ids=["classes", "distributions"])
@pytest.mark.parametrize("tau", [0.0, 1.0, 1.05])
@pytest.mark.parametrize("task", ["head", "tail"])
@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_a_task_likelihood_is_the_written_out_sum(kind, task, tau, labels):
    likelihood = task_likelihoods(kind, COUNTS, GROUPS, tau)[task]
    logits = logits_of(likelihood.n_outputs)
    expected = REFERENCES[kind](logits, labels, GROUPS[task], tau)
    # the adjustment is kept in float32, so 1e-7 of numbers up to about 5, summed over three classes
    np.testing.assert_allclose(likelihood(logits, labels).numpy(), expected, rtol=0, atol=1e-5)


def test_bernoulli_has_an_output_a_class_and_categorical_one_more():
    for kind, n in (("bernoulli", 3), ("categorical", 4)):
        assert [likelihood.n_outputs for likelihood in task_likelihoods(kind, COUNTS, GROUPS).values()] == [n, n]


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_every_label_of_the_other_group_is_the_same_event(kind):
    likelihood = task_likelihoods(kind, COUNTS, GROUPS)["head"]
    logits = logits_of(likelihood.n_outputs)[:1].repeat(3, 1)
    first, second, third = likelihood(logits, torch.tensor([1, 4, 5]))
    assert first == second == third


def test_an_all_zero_label_says_no_to_every_class():
    likelihood = task_likelihoods("bernoulli", COUNTS, GROUPS, tau=0.0)["head"]
    assert likelihood(torch.zeros(1, 3), torch.tensor([1])).item() == pytest.approx(3 * np.log(0.5), rel=1e-6)


def test_categorical_sums_to_one_over_its_classes_and_the_other_group():
    likelihood = task_likelihoods("categorical", COUNTS, GROUPS)["head"]
    logits = logits_of(4)
    events = torch.tensor([0, 2, 3, 1])  # its three classes, then any class of the other group
    total = sum(likelihood(logits, torch.full((len(logits),), k)).exp() for k in events.tolist())
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


def test_bernoulli_sums_to_one_over_all_label_vectors():
    likelihood = task_likelihoods("bernoulli", COUNTS, GROUPS)["tail"]
    logits, total = logits_of(3)[:1], 0.0
    for bits in range(8):
        labels = torch.zeros(1, len(COUNTS), dtype=torch.float64)
        labels[0, GROUPS["tail"]] = torch.tensor([(bits >> i) & 1 for i in range(3)], dtype=torch.float64)
        total += likelihood(logits, labels).exp().item()
    assert total == pytest.approx(1, rel=1e-12)


def test_a_class_scores_its_raw_logit_or_its_lead_over_the_other_group():
    tasks = {kind: task_likelihoods(kind, COUNTS, GROUPS)["head"] for kind in ("bernoulli", "categorical")}
    logits = logits_of(4)
    assert torch.equal(tasks["bernoulli"].log_odds(logits[:, :3]), logits[:, :3])
    assert torch.equal(tasks["categorical"].log_odds(logits), logits[:, :3] - logits[:, 3:])


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_half_precision_logits_are_summed_in_single_precision(kind):
    likelihood = task_likelihoods(kind, COUNTS, GROUPS)["head"]
    logits = logits_of(likelihood.n_outputs, torch.bfloat16)
    assert torch.equal(likelihood(logits, LABELS), likelihood(logits.float(), LABELS))


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_huge_logits_stay_finite(kind):
    likelihood = task_likelihoods(kind, COUNTS, GROUPS)["head"]
    assert torch.isfinite(likelihood(logits_of(likelihood.n_outputs, torch.float32, 1e4), LABELS)).all()


def test_a_likelihood_of_no_kind_is_refused():
    with pytest.raises(ValueError, match="gaussian"):
        task_likelihoods("gaussian", COUNTS, GROUPS)
