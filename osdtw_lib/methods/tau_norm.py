"""Tau-normalised classifier: scores w_k x / ||w_k||^tau of cross-entropy's network; nothing is trained."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..config.schema import Section
from ..config.values import Strength
from ._parts import features
from ._second_stage import AfterCE


def normalised(weight: Tensor, tau: float) -> Tensor:
    """Rows (K, D), each divided by its own length to the power of tau."""
    return weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau


class TauNormalised(AfterCE):
    """The bias is left out. It helps where frequent classes have the longer weights, which AdamW need not give them (Menon et
    al. 2021); tau is to be chosen on a validation part, which the paper's code did on the test set in places.
    That its scores stand for equal shares is what it is for, and not derived."""

    title = "tau-normalised classifier"
    source = "Kang et al. 2020, arXiv:1910.09217, section 4"
    space = {"tau": (0.1, 0.3, 0.5, 0.9, 1.1, 1.5, 2.0)}

    class Parameters(Section):
        tau: Strength = 0.7

    def phases(self):
        return []

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        return F.linear(features(network, images).float(), normalised(network.head.weight.float(), self.parameters.tau))


METHOD = TauNormalised
