"""The products of both tasks' scores against one sample at a time in float64, and against the Fisher."""

import copy

import pytest
import torch
from small_networks import likelihood, small_vit, some_batches

from osdtw_lib.fisher import cross as cross_scores
from osdtw_lib.fisher.cross import cross_fisher
from osdtw_lib.fisher.diagonal import diagonal_fisher

NETWORKS = {task: small_vit(seed, class_token=False, global_pool="avg") for seed, task in enumerate(("head", "tail"))}
NAMES = [name for name, _ in NETWORKS["head"].named_parameters() if not name.startswith(("head", "fc_norm"))]


def likelihoods(kind):
    return {task: likelihood(kind, task) for task in NETWORKS}


@pytest.fixture(params=["bernoulli", "categorical"])
def case(request):
    networks = {}
    for task, network in NETWORKS.items():
        networks[task] = copy.deepcopy(network)
        if request.param == "categorical":
            networks[task].reset_classifier(4)
            networks[task].double()
    return networks, likelihoods(request.param)


def weights(seed=3):
    g = torch.Generator().manual_seed(seed)
    own = dict(NETWORKS["head"].named_parameters())
    parts = {"first": NAMES[:4], "rest": NAMES[4:]}
    return {key: {n: torch.randn(own[n].shape, generator=g, dtype=torch.float64) for n in names} for key, names in parts.items()}


@pytest.mark.parametrize("held", [1, 1 << 28])
def test_every_product_and_sum_is_that_of_one_sample_at_a_time(case, held, monkeypatch):
    networks, tasks = case
    monkeypatch.setattr(cross_scores, "BYTES", held)
    cross, sums = cross_fisher(networks, tasks, some_batches(), weights())
    means, expected = {name: 0.0 for name in NAMES}, {key: [] for key in sums}
    for images, labels in some_batches():
        for image, label in zip(images, labels):
            grads = []
            for task, network in networks.items():
                score = tasks[task](network.eval()(image[None]), label[None]).sum()
                chosen = dict(network.named_parameters())
                grads.append(torch.autograd.grad(score, [chosen[name] for name in NAMES]))
            products = {name: a * b for name, a, b in zip(NAMES, *grads)}
            means = {name: means[name] + products[name] / 8 for name in NAMES}
            for key, named in weights().items():
                expected[key].append(sum((products[n] * w).sum() for n, w in named.items()))
    for name in NAMES:
        torch.testing.assert_close(cross[name], means[name], rtol=1e-9, atol=1e-14)
    for key in sums:
        torch.testing.assert_close(sums[key], torch.stack(expected[key]), rtol=1e-9, atol=1e-12)


def test_a_task_with_itself_has_its_fisher():
    networks = dict.fromkeys(NETWORKS, NETWORKS["head"])
    tasks = dict.fromkeys(NETWORKS, likelihood("bernoulli", "head"))
    cross, _ = cross_fisher(networks, tasks, some_batches(), weights())
    wanted = diagonal_fisher(NETWORKS["head"], some_batches(), tasks["head"])
    for name in NAMES:
        torch.testing.assert_close(cross[name], wanted[name], rtol=1e-9, atol=1e-14)


def test_the_networks_stay_as_they_were_and_no_sample_is_an_error():
    networks = {task: copy.deepcopy(network).train() for task, network in NETWORKS.items()}
    cross_fisher(networks, likelihoods("bernoulli"), some_batches(), weights())
    assert all(network.training and all(p.grad is None for p in network.parameters()) for network in networks.values())
    with pytest.raises(ValueError, match="at least one sample"):
        cross_fisher(networks, likelihoods("bernoulli"), [], weights())
