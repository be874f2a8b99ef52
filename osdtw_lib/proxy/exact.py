"""The theorem as a search: Eq. (18) and its damped family over every shared depth and head weight.

With the diagonal Fishers a = J^A and b = J^B of the encoder, the mismatch D = phi^B - phi^A, w_B = 1 - w_A,
N samples and H = w_A a + w_B b, every term is a sum over parameters and splits by depth:

    encoder variance  1/(2N) sum (a + b) (w_A^2 a + w_B^2 b) / (H + lam)^2
    encoder bias      paper:   1/2 sum D^2 (w_B^2 a + w_A^2 b)
                      damped:  1/2 sum D^2 [a w_B^2 (b + lam)^2 + b w_A^2 (a + lam)^2] / (H + lam)^2
    decoder variance  paper:   (d_psi^A + d_psi^B) / (2N)
                      damped:  1/(2N) sum over both decoders of (J / (J + lam))^2

form "paper" is Eq. (18) to the letter (lam = 0 in the variance). form "damped" adds the ridge `lam` that weight
decay and early stopping from a common start amount to; damping 0 is the exact second-order expansion, and
damping to infinity gives the paper's bias. damping "evidence" takes lam from the two Fishers and the distance
travelled since the start (MacKay 1992). form "direct" has the damped variances and a bias that was measured.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .bins import spectrum
from .grid import Search
from .sums import encoder_sums, squared_shares


class Proxy(Search):
    """Sums over the encoder's parameters, a depth at a time, for any head weight and damping.

    fisher_head, fisher_tail: {name: tensor}, all parameters of each task's network; mismatch: {name: tensor},
    phi^B - phi^A of the encoder's; depth_of: {name: int}, the depth from which on a parameter is shared (1..L),
    L + 1 for decoder-only ones; n_samples: N, all samples, seen by both tasks.
    distance_from_start: (||theta^A - theta_0||^2, ||theta^B - theta_0||^2), needed for damping "evidence" alone.

    A dead parameter (a = b = 0) adds nothing to the encoder's sums and is counted in `dead`. One with b = 0 makes
    the undamped variance infinite at w_A = 0 (a = 0: at w_A = 1); such a cell is never selected.
    Raises ValueError for names or shapes that do not match and N <= 0; `grid`, which reads the values, for one that
    is negative or not finite.
    """

    def __init__(
        self,
        fisher_head: dict[str, Tensor],
        fisher_tail: dict[str, Tensor],
        mismatch: dict[str, Tensor],
        depth_of: dict[str, int],
        n_samples: int,
        distance_from_start: tuple[float, float] | None = None,
    ):
        if not n_samples > 0:
            raise ValueError(f"n_samples is the number of training samples, at least 1, got {n_samples}")
        fishers = {"head": fisher_head, "tail": fisher_tail}
        for which, named in {**fishers, "mismatch": mismatch}.items():
            unknown = sorted(named.keys() - depth_of.keys())
            if unknown:
                raise ValueError(f"{which}: depth_of does not say from which depth on these are shared: {_some(unknown)}")
            below = sorted(name for name in named if depth_of[name] < 1)
            if below:
                raise ValueError(f"{which}: depths begin at 1, depth_of has less for {_some(below)}")
        self.n_samples, self.distance_from_start = n_samples, distance_from_start
        # L is the largest depth with a mismatch; whatever lies beyond is the decoders' alone
        self.n_depths = max((depth_of[name] for name in mismatch), default=max(depth_of.values(), default=1) - 1)
        self._encoder: list[list[tuple[str, Tensor, Tensor, Tensor]]] = [[] for _ in range(self.n_depths)]
        self._task_blocks = {task: [[] for _ in range(self.n_depths + 1)] for task in fishers}  # L + 1: decoder only
        for task, named in fishers.items():
            for name, fisher in named.items():
                self._task_blocks[task][min(depth_of[name], self.n_depths + 1) - 1].append(_flat(fisher))
        encoder = {name for named in (*fishers.values(), mismatch) for name in named if depth_of[name] <= self.n_depths}
        for name in sorted(encoder):
            entries = [named.get(name) for named in (fisher_head, fisher_tail, mismatch)]
            if any(entry is None for entry in entries):
                lacking = [w for w, e in zip(("the head Fisher", "the tail Fisher", "the mismatch"), entries) if e is None]
                raise ValueError(f"{' and '.join(lacking)} has no entry for the encoder's parameter {name}")
            if len({tuple(entry.shape) for entry in entries}) > 1:
                raise ValueError(f"{name}: shapes differ: {[tuple(entry.shape) for entry in entries]}")
            self._encoder[depth_of[name] - 1].append((name, *map(_flat, entries)))

    def evidence(self, iterations: int = 1000) -> float:
        """lam by the evidence rule: the geometric mean of both tasks' fixed points of

        gamma = sum J / (J + lam), lam = gamma / (N ||theta - theta_0||^2)   (MacKay 1992, "Bayesian interpolation"),

        the Fishers read once, into bins; good to about 1e-4.
        """
        if self.distance_from_start is None:
            raise ValueError("damping 'evidence' needs distance_from_start")
        found = []
        for task, distance in zip(("head", "tail"), self.distance_from_start):
            if not distance > 0:
                raise ValueError("damping 'evidence' needs a positive distance from the start; nothing was trained")
            count, value = spectrum(fisher for depth in self._task_blocks[task] for fisher in depth)
            lam = count.sum() / (self.n_samples * distance)
            for _ in range(iterations):
                gamma = float((count * value / (value + lam)).sum())
                last, lam = lam, gamma / (self.n_samples * distance)
                if lam == 0 or abs(lam - last) <= 1e-6 * last:
                    break
            found.append(lam)
        return math.sqrt(found[0] * found[1])

    def encoder_tensors(self) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
        """For each depth 1..L the flat (a, b, D) of its parameters."""
        return [[tuple(tensors) for _, *tensors in entries] for entries in self._encoder]

    def fishers_by_depth(self) -> list[list[Tensor]]:
        """For each depth 1..L + 1 the flat Fishers of both tasks; L + 1 is the decoders' alone."""
        return [head + tail for head, tail in zip(*self._task_blocks.values())]

    @property
    def dead(self) -> int:
        """Encoder parameters without information for either task: a = b = 0."""
        return sum(int(((a == 0) & (b == 0)).sum()) for depth in self._encoder for _, a, b, _ in depth)

    def by_depth(self) -> pd.DataFrame:
        """A row a depth: parameters, Fisher traces of head and tail, norm of the mismatch."""
        rows = []
        for depth, entries in enumerate(self._encoder, start=1):
            rows.append(
                {
                    "depth": depth,
                    "parameters": sum(a.numel() for _, a, _, _ in entries),
                    "trace_head": sum(_sum(a) for _, a, _, _ in entries),
                    "trace_tail": sum(_sum(b) for _, _, b, _ in entries),
                    "mismatch_norm": math.sqrt(sum(_sum(d.double() ** 2) for *_, d in entries)),
                }
            )
        return pd.DataFrame(rows)

    def terms_by_depth(self, weights: np.ndarray, lam: float, form: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """variance (L, W), bias (L, W) and decoder variance (L + 1,) of each depth alone."""
        encoder, decoder = np.zeros((self.n_depths, 2, len(weights))), np.zeros(self.n_depths + 1)
        entries = [(depth, *entry) for depth, named in enumerate(self._encoder) for entry in named]
        found = encoder_sums([tensors for _, _, *tensors in entries], weights, lam, form)
        for (depth, name, *_), (sums, shares) in zip(entries, found):
            if np.isnan(sums).any() or np.isinf(sums[1]).any():
                raise ValueError(f"the Fisher or the mismatch of {name} holds a value that is negative or not finite")
            encoder[depth] += sums
            decoder[depth] += shares
        for fisher in filter(len, self.fishers_by_depth()[-1]):  # the decoders' alone
            if not (float(fisher.min()) >= 0 and math.isfinite(_sum(fisher))):
                raise ValueError("a Fisher of the decoder holds a value that is negative or not finite")
            decoder[-1] += squared_shares(fisher, lam)
        return encoder[:, 0] / (2 * self.n_samples), encoder[:, 1] / 2, decoder / (2 * self.n_samples)


def _flat(tensor: Tensor) -> Tensor:
    """(P,), in memory the compiled loops can read; a copy only where it has to be."""
    return tensor.detach().cpu().reshape(-1).contiguous()


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _sum(values: Tensor) -> float:
    return float(values.sum(dtype=torch.float64))
