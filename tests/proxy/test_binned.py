"""The bins against the exact proxy: how far the sliders' numbers are from it."""

import numpy as np
import pytest
import torch

from osdtw_lib.proxy import binned as summary
from osdtw_lib.proxy.binned import ProxySummary
from osdtw_lib.proxy.exact import Proxy

DEPTH_OF = {"one": 1, "two": 2, "out": 3}


def exact(seed=0, spread=2.5, centre=-9.0, zeros=False):
    g = torch.Generator().manual_seed(seed)
    head, tail = ({n: torch.exp(spread * torch.randn(20_000, generator=g) + centre) for n in DEPTH_OF} for _ in range(2))
    mismatch = {n: 0.01 * torch.randn(20_000, generator=g) for n in ("one", "two")}
    if zeros:
        head["one"][:5] = tail["one"][:5] = 0.0
        tail["two"][7] = 0.0
    return Proxy(head, tail, mismatch, DEPTH_OF, 1000, (3.0, 4.0))


@pytest.mark.parametrize("form, damping", [("paper", 0), ("damped", 0), ("damped", 1e-6), ("damped", 1e-3), ("damped", 10)])
def test_every_term_is_within_a_thousandth_of_the_exact_one(form, damping):
    weights = np.linspace(0.01, 0.99, 12)
    whole, binned = (p.grid(None, weights, form, damping) for p in (exact(), ProxySummary.of(exact())))
    assert (whole[["shared_depth", "head_weight"]] == binned[["shared_depth", "head_weight"]]).all(axis=None)
    for term in ("encoder_variance", "encoder_bias", "decoder_variance", "total"):
        assert np.allclose(binned[term], whole[term], rtol=1e-3, atol=0), term


@pytest.mark.parametrize("form, damping", [("paper", 0), ("damped", 1e-6), ("damped", 1e-3)])
def test_fewer_bins_are_less_exact_but_no_more_than_asked_for(monkeypatch, form, damping):
    fine = ProxySummary.of(exact(zeros=True))
    monkeypatch.setattr(summary, "MOST", len(fine.encoder) // 2)
    coarse = ProxySummary.of(exact(zeros=True))
    assert len(coarse.encoder) <= summary.MOST and coarse.encoder["count"].sum() == fine.encoder["count"].sum() == 40_000
    cells = [p.grid(None, np.linspace(0.01, 0.99, 12), form, damping)["total"] for p in (exact(zeros=True), coarse)]
    assert np.allclose(*cells, rtol=5e-3, atol=0)


def test_the_ends_dead_and_one_sided_parameters_are_as_in_the_exact_proxy():
    whole, binned = (p.grid(form="paper") for p in (exact(zeros=True), ProxySummary.of(exact(zeros=True))))
    assert (np.isinf(whole["total"]) == np.isinf(binned["total"])).all()
    assert np.isinf(whole["total"]).any() and not binned["total"].isna().any()
    finite = np.isfinite(whole["total"])
    assert np.allclose(binned.loc[finite, "total"], whole.loc[finite, "total"], rtol=1e-3)


def test_what_is_too_small_for_a_bin_is_nought():
    head, tail = ({"one": torch.zeros(1000), "out": torch.ones(2)} for _ in range(2))
    for named in (head, tail):
        named["one"][:10] = 1e-3
        named["one"][10] = 1e-40
    depths = {"one": 1, "out": 2}
    made = ProxySummary.of(Proxy(head, tail, {"one": torch.ones(1000)}, depths, 1))
    head["one"][10] = tail["one"][10] = 0
    whole = Proxy(head, tail, {"one": torch.ones(1000)}, depths, 1)
    assert np.allclose(made.grid()["total"], whole.grid()["total"], rtol=1e-6)
    assert made.encoder["count"].sum() == 1000 and made.alive["count"].sum() == 10
    assert (made.alive[["a", "b"]].astype("f4") > 0).any(axis=1).all()  # as a page holds them


def test_the_papers_bias_and_the_evidence_are_exact():
    whole, binned = exact(), ProxySummary.of(exact())
    weights = [0.0, 0.3, 1.0]
    assert np.allclose(binned.grid(None, weights)["encoder_bias"], whole.grid(None, weights)["encoder_bias"], rtol=1e-6)
    assert binned.evidence() == whole.evidence()


def test_tables_read_back_give_the_same_grid():
    import io

    import pandas as pd

    made = ProxySummary.of(exact())
    tables = [pd.read_csv(io.StringIO(t.to_csv(index=False))) for t in (made.encoder, made.decoders)]
    again = ProxySummary(*tables, made.n_depths, made.n_samples, made.evidence())
    assert np.allclose(
        again.grid(form="damped", damping=1e-3)["total"], made.grid(form="damped", damping=1e-3)["total"], rtol=1e-12
    )
