"""Several networks trained by one method, their scores averaged: mean_i s(network_i(x))."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ..config.load import read_section
from ..config.schema import Section, Text
from ..config.values import Several
from ..errors import UserError
from ..models.vit import ViT
from ..training.phase import Phase
from . import load
from ._base import Method
from ._parts import redrawn


class Members(nn.ModuleDict):
    """Networks "0", "1", ... that begin alike but for their heads; what one of them holds fixed from the start stays so."""

    def __init__(self, networks: list[nn.Module]):
        super().__init__({str(i): network for i, network in enumerate(networks)})
        self.fixed = {name for name, p in self.named_parameters() if not p.requires_grad}
        for i, network in enumerate(networks[1:], start=1):
            for m, vit in enumerate(module for module in network.modules() if isinstance(module, ViT)):
                redrawn(vit.head, 1000 * i + m)

    def train_only(self, number: str, afresh: bool) -> None:
        for name, p in self.named_parameters():
            mine = name.split(".")[0] == number
            if afresh or not mine:
                p.requires_grad_(mine and name not in self.fixed)


class Ensemble(Method):
    """Networks of one method, one after the other, each with another random head and on other batches and augmentations; the
    first is the one that method trains (of several phases: its first phase). What it gains over one network is no better loss: it
    takes as many trainings."""

    title = "ensemble"
    source = "control: as many networks as a method of several, one loss"

    class Parameters(Section):
        of: Text = "logit_adjusted_ce"  # a method by its name
        networks: Several = 2
        parameters: dict = {}  # that method's

        def model_post_init(self, context) -> None:
            """Raises UserError, one line, for what cannot be an ensemble's method; its parameters are filled in."""
            if self.of == "ensemble" or self.of.endswith(".py"):
                raise UserError(f"baselines.ensemble.of: '{self.of}': name another method that lies in methods/")
            inner = load(self.of)
            if inner.after:
                raise UserError(
                    f"baselines.ensemble.of: '{self.of}' starts from {inner.after}'s one network; name another method"
                )
            values = read_section(inner.Parameters, self.parameters, "baselines.ensemble.parameters")
            self.__dict__["parameters"] = values.model_dump(mode="json")

    def __init__(self, problem, parameters=None):
        super().__init__(problem, parameters)
        inner = load(self.parameters.of)
        self.inner = inner(problem, read_section(inner.Parameters, self.parameters.parameters, "baselines.ensemble.parameters"))
        self.prior, self.title = inner.prior, f"{self.parameters.networks} networks, scores averaged, of: {self.inner.title}"

    @property
    def shares(self):
        return self.inner.shares

    def build(self) -> Members:
        return Members([self.inner.build() for _ in range(self.parameters.networks)])

    def phases(self) -> list[Phase]:
        phases = self.inner.phases()
        if not phases or any(phase.coupled for phase in phases):
            why = "images of a part cost what they do together" if phases else "it trains nothing"
            raise UserError(f"baselines.ensemble.of: '{self.inner.name}': {why}; name another method")
        return [_of_member(phase, str(i), k) for i in range(self.parameters.networks) for k, phase in enumerate(phases)]

    def scores(self, network: Members, images: Tensor) -> Tensor:
        return torch.stack([self.inner.scores(member, images) for member in network.values()]).mean(0)


def _of_member(phase: Phase, number: str, place: int) -> Phase:
    """The phase, `place` of its method's, over one of the members."""

    def prepare(network):
        network.train_only(number, afresh=place == 0)
        if phase.prepare:
            phase.prepare(network[number])

    return dataclasses.replace(
        phase,
        name=f"{phase.name}_{int(number) + 1}",
        losses=lambda network, part: phase.losses(network[number], part),
        prepare=prepare,
        after_step=phase.after_step and (lambda network: phase.after_step(network[number])),
        frozen=phase.frozen and (lambda network, images: phase.frozen(network[number], images)),
        draw=phase.draw + int(number),
    )


METHOD = Ensemble
