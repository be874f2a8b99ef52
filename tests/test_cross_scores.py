"""The products of both tasks' scores against one sample at a time in float64, and against the Fisher."""

import copy

import pytest
import torch

from osdtw_lib import cross_scores
from osdtw_lib.cross_scores import cross_fisher
from osdtw_lib.fisher import diagonal_fisher
from test_fisher import likelihood, small_vit, some_batches

NETWORKS = {"head": small_vit(0, class_token=False, global_pool="avg"), "tail": small_vit(1, class_token=False, global_pool="avg")}
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


@pytest.mark.parametrize("held", [1, 1 << 28])
def test_every_tensor_is_the_mean_of_products_one_sample_at_a_time(case, held, monkeypatch):
    networks, tasks = case
    monkeypatch.setattr(cross_scores, "BYTES", held)
    found = cross_fisher(networks, tasks, some_batches(), NAMES)
    sums = {name: 0.0 for name in NAMES}
    for images, labels in some_batches():
        for image, label in zip(images, labels):
            grads = []
            for task, network in networks.items():
                score = tasks[task](network.eval()(image[None]), label[None]).sum()
                chosen = dict(network.named_parameters())
                grads.append(torch.autograd.grad(score, [chosen[name] for name in NAMES]))
            for name, a, b in zip(NAMES, *grads):
                sums[name] = sums[name] + a * b / 8
    for name in NAMES:
        torch.testing.assert_close(found["cross"][name], sums[name], rtol=1e-9, atol=1e-14)


def test_the_squares_are_the_fishers(case):
    networks, tasks = case
    found = cross_fisher(networks, tasks, some_batches(), NAMES)
    for task, network in networks.items():
        wanted = diagonal_fisher(network, some_batches(), tasks[task])
        for name in NAMES:
            torch.testing.assert_close(found[task][name], wanted[name], rtol=1e-9, atol=1e-14)


def test_the_networks_stay_as_they_were_and_no_sample_is_an_error():
    networks = {task: copy.deepcopy(network).train() for task, network in NETWORKS.items()}
    cross_fisher(networks, likelihoods("bernoulli"), some_batches(), NAMES[:2])
    assert all(network.training and all(p.grad is None for p in network.parameters()) for network in networks.values())
    with pytest.raises(ValueError, match="at least one sample"):
        cross_fisher(networks, likelihoods("bernoulli"), [], NAMES[:2])
