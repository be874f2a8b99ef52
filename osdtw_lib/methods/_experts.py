"""Methods of several experts with cosine heads over one trunk: network, scores, and where they part."""

from __future__ import annotations

from torch import Tensor

from ..config.schema import Depth, Rate, Section
from ..errors import UserError
from ..models.vit import n_depths
from ._base import Method
from ._parts import Experts, with_cosine_head


class ExpertMethod(Method):
    """Experts that score together by their mean; a subclass says how many they are, and their loss."""

    class Parameters(Section):
        shared_depth: Depth | None = None  # None: three quarters of the network's, 9 of 12
        scale: Rate = 30.0  # of the cosine

    @property
    def experts(self) -> int:
        return 3

    def build(self) -> Experts:
        networks = [self.problem.vit(self.problem.n_classes) for _ in range(self.experts)]
        last, shared = n_depths(networks[0]), self.parameters.shared_depth
        if shared is not None and shared > last:
            raise UserError(f"baselines.{self.name}.shared_depth: the model has {last} blocks, got {shared}")
        shared = min(round(0.75 * last), last - 1) if shared is None else shared
        return Experts([with_cosine_head(vit, self.parameters.scale) for vit in networks], shared)

    def scores(self, network: Experts, images: Tensor) -> Tensor:
        return network(images).float().mean(1)
