"""Gradients summed while they are made: those of one process, whoever has how many parts; sums that begin before the end."""

import copy

import pytest
import torch
from several_processes import together
from torch import nn

from osdtw_lib.backend import distributed, gradients as module
from osdtw_lib.backend.gradients import Gradients

STEPS = [{0: [1, 0], 1: [2]}, {0: [3, 5, 4], 1: [7, 6]}, {0: [9, 8], 1: []}, {0: [10], 1: [11]}]  # process: its parts


class Net(nn.Module):
    """Three layers, one that nobody uses, and one for even parts alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.unused, self.even = (
            nn.Sequential(*(nn.Linear(6, 6) for _ in range(3))),
            nn.Linear(2, 2),
            nn.Linear(6, 6),
        )

    def loss(self, part):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(part))
        x = self.layers(x)
        return (self.even(x) if part % 2 == 0 else x).square().mean()


def all_in_one(step):
    net = Net()
    for part in sorted(step[0] + step[1]):
        net.loss(part).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in net.named_parameters()}


def sums_are_those_of_one_process():
    module.BUCKET = 20  # numbers, so that there are several
    net, rank = Net(), distributed.rank()
    with Gradients(net.parameters()) as gradients:
        for number, step in enumerate(STEPS):
            net.zero_grad()
            for part in gradients.parts(iter(step[rank])):
                net.loss(part).backward()
                begun = len(gradients.sums)
                if number == 0 or part != step[rank][-1]:
                    assert begun == 0  # its gradients are not complete; in the first step the order is not known
            if number == 1:
                assert 3 <= begun < len(gradients.buckets)  # what is not used comes last, with the step's end
            gradients.sum()
            for name, expected in all_in_one(step).items():
                torch.testing.assert_close(net.get_parameter(name).grad, expected, rtol=1e-5, atol=1e-7)
        first = gradients.parameters[gradients.buckets[0][0]]
        assert any(first is p for p in net.even.parameters())  # the last layer's gradients come first
    net.zero_grad()
    net.loss(0).backward()
    assert not gradients.sums and not any(p._post_accumulate_grad_hooks for p in net.parameters())


def a_parameter_of_two_losses_is_refused():
    net = Net()
    with Gradients(net.parameters()) as gradients:
        for _ in gradients.parts([1]):
            net.loss(1).backward()
            try:
                net.loss(1).backward()
            except RuntimeError as error:
                assert "give them as one" in str(error)
            else:
                raise AssertionError("a second gradient would be left out of the sum")


@pytest.mark.parametrize("check", [sums_are_those_of_one_process, a_parameter_of_two_losses_is_refused])
@pytest.mark.journey
def test_in_two_processes(check):
    together(check, (), 2)


def test_alone_nothing_is_watched_and_what_was_not_used_has_a_gradient_of_nought():
    net = Net()
    plain = copy.deepcopy(net)
    with Gradients(net.parameters()) as gradients:
        for part in gradients.parts(iter([1, 3])):
            net.loss(part).backward()
            plain.loss(part).backward()
        gradients.sum()
    assert not gradients.hooks
    for p, q in zip(net.parameters(), plain.parameters()):
        assert torch.equal(p.grad, torch.zeros_like(p) if q.grad is None else q.grad)
