"""From the terms of each depth to the grid over (C, w_A), and the cell it picks.

The exact proxy (proxy.py) and its summary for sliders (summary.py) differ in how they get a depth's terms; what
follows from them is here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

CELL = ["shared_depth", "head_weight"]
COLUMNS = ["shared_depth", "head_weight", "encoder_variance", "encoder_bias", "decoder_variance", "total"]
FORMS = ("paper", "damped", "direct")
DEFAULT_WEIGHTS = tuple(i / 10 for i in range(11))
ROUNDING = 1e-9  # of a total: totals that differ by less are the same


@dataclass(frozen=True)
class Choice:
    """The cell a form of the proxy picks."""

    shared_depth: int
    head_weight: float
    total: float


class Search(ABC):
    """What has terms for each depth has a grid. `n_depths` is L."""

    n_depths: int

    @abstractmethod
    def terms_by_depth(self, weights: np.ndarray, lam: float, form: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """variance (L, W), bias (L, W) and decoder variance (L + 1,) of each depth alone, in nats."""

    @abstractmethod
    def evidence(self) -> float:
        """The damping the evidence rule gives. Raises ValueError where it cannot."""

    def grid(
        self,
        depths: Iterable[int] | None = None,
        head_weights: Iterable[float] | None = None,
        form: str = "paper",
        damping: float | str = 0.0,
        measured_bias: pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """The three terms and their total, in nats, a row a cell.

        depths: default 0..L; head_weights: default 0, 0.1 .. 1; form "paper", "damped" or "direct"; damping: a
        number or "evidence", for the last two. "direct" takes the variances of "damped" and its encoder bias from
        measured_bias (shared_depth, head_weight, bias: what `direct.direct_bias` gives), linear between weights.
        Raises ValueError for a depth, weight, form or damping that does not exist or was not measured.
        """
        depths = list(range(self.n_depths + 1)) if depths is None else [int(c) for c in depths]
        weights = np.array(DEFAULT_WEIGHTS if head_weights is None else list(head_weights), dtype=float)
        if any(not 0 <= c <= self.n_depths for c in depths):
            raise ValueError(f"shared depths are 0..{self.n_depths}, got {depths}")
        if not ((weights >= 0) & (weights <= 1)).all():
            raise ValueError(f"head weights are 0..1, got {weights.tolist()}")
        if form == "paper":
            lam = 0.0
        elif form in ("damped", "direct"):
            lam = self.evidence() if damping == "evidence" else float(damping)
            if not lam >= 0:
                raise ValueError(f"damping is at least 0, got {damping}")
        else:
            raise ValueError(f"form is 'paper', 'damped' or 'direct', got '{form}'")
        variance, by_depth, decoder = self.terms_by_depth(weights, lam, form)
        none = np.zeros((1, len(weights)))
        shared = np.vstack([none, variance.cumsum(0)])[depths]  # (depths, weights), as all terms below
        bias = np.vstack([none, by_depth.cumsum(0)]) if form != "direct" else self._measured(measured_bias, depths, weights)
        left = np.broadcast_to(np.array([decoder[depth:].sum() for depth in depths])[:, None], shared.shape)
        terms = shared, bias[depths], left
        places = np.repeat(depths, len(weights)), np.tile(weights, len(depths))
        return pd.DataFrame(dict(zip(COLUMNS, (*places, *map(np.ravel, (*terms, sum(terms)))))))

    def _measured(self, table: pd.DataFrame | None, depths: list[int], weights: np.ndarray) -> np.ndarray:
        """The measured bias at (depth, weight), (L + 1, weights)."""
        if table is None:
            raise ValueError("form 'direct' needs measured_bias, the table that direct.direct_bias gives")
        bias = np.full((self.n_depths + 1, len(weights)), np.nan)
        at, head_weight, measured = (table[c].to_numpy() for c in ("shared_depth", "head_weight", "bias"))
        for depth in depths:
            there = np.flatnonzero(at == depth)
            there = there[np.argsort(head_weight[there])]
            known = head_weight[there]
            if not len(known) or weights.min() < known[0] - 1e-9 or weights.max() > known[-1] + 1e-9:
                raise ValueError(f"measured_bias does not cover shared depth {depth} at head weights {weights.tolist()}")
            bias[depth] = np.interp(weights, known, measured[there])
        return bias

    @staticmethod
    def select(grid: pd.DataFrame) -> Choice:
        """The cell with the smallest finite total (Algorithm 1, line 13), both tasks being trained: 0 < w_A < 1.

        Of depths whose totals are the same the smallest; of weights, as at C = 0, where all are, as `best_weight` says.
        Raises ValueError where no such cell has a finite total.
        """
        tied = _least(_pickable(grid))
        if tied.empty:
            raise ValueError("no cell of the grid with a head weight between 0 and 1 has a finite total")
        row = grid.loc[best_weight(grid, tied["shared_depth"].min())]
        return Choice(int(row["shared_depth"]), float(row["head_weight"]), float(row["total"]))


def best_weight(grid: pd.DataFrame, depth: int):
    """The label of the grid's row with the best head weight at a depth, 0 and 1 left out; None where no total is finite.

    Of weights whose totals are the same the one nearest to the best of the nearest depth that has a single best (of two as
    near the smaller); where no depth has, nearest to 1/2. templates/pages/explorer.js does the same.
    """
    cells = _pickable(grid)
    tied = _least(cells[cells["shared_depth"] == depth])
    if tied.empty:
        return None
    if len(tied) == 1:
        return tied.index[0]
    others = sorted(set(cells["shared_depth"]) - {depth}, key=lambda other: (abs(other - depth), other))
    beside = (_least(cells[cells["shared_depth"] == other])["head_weight"] for other in others)
    goal = next((best.iloc[0] for best in beside if len(best) == 1), 0.5)
    return (tied["head_weight"] - goal).abs().round(9).idxmin()


def _pickable(grid: pd.DataFrame) -> pd.DataFrame:
    return grid[np.isfinite(grid["total"]) & grid["head_weight"].between(0, 1, inclusive="neither")]


def _least(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells, all finite, whose total is the smallest but for rounding."""
    least = cells["total"].min()
    return cells[cells["total"] <= least + ROUNDING * abs(least)]
