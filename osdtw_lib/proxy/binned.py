"""The proxy at the speed of a slider: its parameters gathered into bins, once, then any weight and damping.

Every sum of the proxy depends on a parameter through its two Fishers a and b alone (times D^2 for the bias). So
parameters of one depth with nearly the same a and b are counted together: bins of an eighth of an octave in a
and in b, each with its count, its mean a and b, and its sums of D^2 a and D^2 b; neighbours are joined where the
bins are more than MOST. Those stand for ViT-B's 86 million parameters; the error is second order in the bins'
width, and tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .bins import CHUNK, N_BINS, octave_bin, spectrum
from .exact import Proxy
from .grid import Search

MOST = 75_000  # bins of the encoder in all, so that a page can carry them
ROWS = 2048  # bins at a time, so that what is between stays in the cache


class ProxySummary(Search):
    """`grid` as Proxy's, from bins. `encoder` and `decoders` are small tables that fit in a page as JSON.

    encoder: depth, count, a, b, d2a, d2b (means of a and b, sums of D^2 a and D^2 b). decoders: depth, count, j
    (both tasks' Fishers; depth L + 1 is the decoder's alone).
    """

    def __init__(self, encoder: pd.DataFrame, decoders: pd.DataFrame, n_depths: int, n_samples: int, evidence: float):
        self.encoder, self.decoders = encoder, decoders
        self.n_depths, self.n_samples, self._evidence = n_depths, n_samples, evidence

    @cached_property
    def alive(self) -> pd.DataFrame:
        """`encoder` without the bin of dead parameters (a = b = 0), which adds nothing."""
        return self.encoder[self.encoder["a"] + self.encoder["b"] > 0]

    @cached_property
    def _bins(self) -> list[Tensor]:
        """Of each depth, a, b, count, d2a, d2b: (5, B)."""
        columns, depths = self.alive[["a", "b", "count", "d2a", "d2b"]].to_numpy().T, self.alive["depth"].to_numpy()
        return [torch.tensor(columns[:, depths == depth]) for depth in range(1, self.n_depths + 1)]

    @classmethod
    def of(cls, proxy: Proxy) -> ProxySummary:
        encoder = [_encoder_bins(depth, tensors) for depth, tensors in enumerate(proxy.encoder_tensors(), start=1) if tensors]
        decoders = [_decoder_bins(depth, fishers) for depth, fishers in enumerate(proxy.fishers_by_depth(), start=1)]
        while sum(map(len, encoder)) > MOST:
            encoder = [_coarser(table) for table in encoder]
        evidence = proxy.evidence() if proxy.distance_from_start else math.nan
        return cls(pd.concat(encoder, ignore_index=True), pd.concat(decoders), proxy.n_depths, proxy.n_samples, evidence)

    def evidence(self) -> float:
        if math.isnan(self._evidence):
            raise ValueError("the proxy this was made of had no distance_from_start, so no evidence")
        return self._evidence

    def terms_by_depth(self, weights: np.ndarray, lam: float, form: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """variance (L, W), bias (L, W) and decoder variance (L + 1,) of each depth alone, in nats."""
        summed = np.stack([_sums(bins, weights, lam, form) for bins in self._bins], axis=1)
        j, count = self.decoders["j"].to_numpy(), self.decoders["count"].to_numpy()
        share = np.ones_like(j) if form == "paper" or lam == 0 else j / (j + lam)
        decoder = np.bincount(self.decoders["depth"].to_numpy() - 1, count * share**2, self.n_depths + 1)
        return summed[0] / (2 * self.n_samples), summed[1] / 2, decoder / (2 * self.n_samples)


def _sums(bins: Tensor, weights: np.ndarray, lam: float, form: str) -> np.ndarray:
    """Variance and bias, (2, W), of bins (5, B): a, b, count, d2a, d2b.

    With h = w a + v b + lam, both are sums of numbers of the bin alone by h^2: two matrix products and a reciprocal.
    """
    a, b, count, d2a, d2b = bins
    w, v = torch.from_numpy(weights), 1 - torch.from_numpy(weights)
    pulls = [] if form == "paper" else [d2a * (b + lam).square(), d2b * (a + lam).square()]
    of_bin = torch.stack([count * (a + b) * a, count * (a + b) * b, *pulls])
    left, right = torch.stack([a, b, torch.full_like(a, lam)], 1), torch.stack([w, v, torch.ones_like(w)])
    sums, h = torch.zeros(len(of_bin), len(weights), dtype=torch.float64), torch.empty(ROWS, len(weights), dtype=torch.float64)
    for some, rows in zip(of_bin.split(ROWS, 1), left.split(ROWS)):
        sums += some @ torch.mm(rows, right, out=h[: len(rows)]).square_().reciprocal_()
    pull_a, pull_b = (d2a.sum(), d2b.sum()) if form == "paper" else sums[2:]
    variance, bias = w**2 * sums[0] + v**2 * sums[1], v**2 * pull_a + w**2 * pull_b
    variance[variance.isnan()] = math.inf  # h = 0: one Fisher is nought and has all the weight
    bias[w == 0], bias[w == 1] = d2a.sum(), d2b.sum()  # their limits there
    return torch.stack([variance, bias]).numpy()


def _encoder_bins(depth: int, entries: Iterable[tuple[Tensor, Tensor, Tensor]]) -> pd.DataFrame:
    table = None
    for whole in entries:
        for a, b, d in zip(*(t.split(CHUNK) for t in whole)):
            bin_a, bin_b = octave_bin(a), octave_bin(b)
            keys, place = torch.unique(bin_a * N_BINS + bin_b, return_inverse=True)
            a, b, d2 = a.double() * (bin_a > 0), b.double() * (bin_b > 0), d.double().square()  # the first bin is nought
            sums = {c: torch.bincount(place, v, len(keys)) for c, v in (("a", a), ("b", b), ("d2a", d2 * a), ("d2b", d2 * b))}
            part = pd.DataFrame({"count": torch.bincount(place).double()} | sums, index=keys.numpy())
            table = part if table is None else table.add(part, fill_value=0.0)
    table[["a", "b"]] = table[["a", "b"]].div(table["count"], axis=0)
    return table.assign(depth=depth)[["depth", "count", "a", "b", "d2a", "d2b"]]


def _coarser(table: pd.DataFrame) -> pd.DataFrame:
    """Bins of twice the width in a and in b; the one for nought stays apart."""
    keys = table.index.to_numpy()
    sums = table.assign(a=table["a"] * table["count"], b=table["b"] * table["count"])
    joined = sums.groupby((keys // N_BINS + 1) // 2 * N_BINS + (keys % N_BINS + 1) // 2).sum()
    joined[["a", "b"]] = joined[["a", "b"]].div(joined["count"], axis=0)
    return joined.assign(depth=table["depth"].iloc[0])


def _decoder_bins(depth: int, fishers: Iterable[Tensor]) -> pd.DataFrame:
    count, value = spectrum(fishers)
    return pd.DataFrame({"depth": depth, "count": count, "j": value})
