"""The grid against brute force in numpy float64, and the facts the theory states."""

import numpy as np
import pandas as pd
import pytest
import torch

from osdtw_lib.backend import compiled
from osdtw_lib.proxy import sums as terms
from osdtw_lib.proxy.binned import ProxySummary
from osdtw_lib.proxy.exact import Proxy
from osdtw_lib.proxy.grid import COLUMNS

N = 50
DEPTH_OF = {"embed": 1, "one": 1, "two": 2, "three": 3, "norm": 4, "out": 4}
SHAPES = {"embed": (7,), "one": (5, 3), "two": (4, 6), "three": (11,), "norm": (3,), "out": (2, 3)}
ENCODER = [name for name, depth in DEPTH_OF.items() if depth <= 3]


def statistics(seed=0, dtype=torch.float64, spread=3.0):
    g = torch.Generator().manual_seed(seed)

    def fisher(name):
        rows = {"out": (5, 3)}.get(name) if seed % 2 else None  # decoders of another size
        return torch.exp(spread * torch.randn(rows or SHAPES[name], generator=g, dtype=torch.float64)).to(dtype)

    head, tail = ({name: fisher(name) for name in SHAPES} for _ in range(2))
    mismatch = {name: torch.randn(SHAPES[name], generator=g, dtype=torch.float64).to(dtype) for name in ENCODER}
    return head, tail, mismatch


def proxy_of(statistics_, distance=None):
    return Proxy(*statistics_, DEPTH_OF, N, distance)


def brute_force(statistics_, depth, weight, form="paper", lam=0.0):
    head, tail, mismatch = ({n: t.double().numpy().ravel() for n, t in d.items()} for d in statistics_)
    w, v, variance, bias, decoder = weight, 1 - weight, 0.0, 0.0, 0.0
    for name, level in DEPTH_OF.items():
        if level <= depth:
            for a, b, d in zip(head[name], tail[name], mismatch[name]):
                h = w * a + v * b + lam
                variance += (a + b) * (w**2 * a + v**2 * b) / h**2
                if form == "paper":
                    bias += d**2 * (v**2 * a + w**2 * b)
                else:
                    bias += d**2 * (a * v**2 * (b + lam) ** 2 + b * w**2 * (a + lam) ** 2) / h**2
        else:
            for j in (*head[name], *tail[name]):
                decoder += 1.0 if form == "paper" else (j / (j + lam)) ** 2
    return variance / (2 * N), bias / 2, decoder / (2 * N)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("form, lam", [("paper", 0.0), ("damped", 0.0), ("damped", 0.3), ("damped", 1e4)])
def test_every_cell_equals_brute_force(form, lam, dtype):
    numbers = statistics(1, dtype)
    grid = proxy_of(numbers).grid(form=form, damping=lam)
    assert list(grid.columns) == COLUMNS and len(grid) == 4 * 11
    for row in grid.itertuples():
        expected = brute_force(numbers, row.shared_depth, row.head_weight, form, lam)
        assert np.allclose([row.encoder_variance, row.encoder_bias, row.decoder_variance], expected, rtol=1e-6)
        assert np.isclose(row.total, sum(expected), rtol=1e-6)


def test_large_tensors_in_float32_keep_six_digits():
    g = torch.Generator().manual_seed(0)
    head, tail = ({"w": torch.exp(4 * torch.randn(300_001, generator=g))} for _ in range(2))
    mismatch = {"w": torch.randn(300_001, generator=g)}
    row = Proxy(head, tail, mismatch, {"w": 1, "out": 2}, 9).grid([1], [0.3]).iloc[0]
    a, b, d = (t["w"].double().numpy() for t in (head, tail, mismatch))
    variance = ((a + b) * (0.09 * a + 0.49 * b) / (0.3 * a + 0.7 * b) ** 2).sum() / 18
    assert np.isclose(row.encoder_variance, variance, rtol=1e-6)
    assert np.isclose(row.encoder_bias, (d**2 * (0.49 * a + 0.09 * b)).sum() / 2, rtol=1e-6)


def test_the_variance_is_never_below_half_the_dimension_over_n_and_reaches_it_at_one_half():
    grid = proxy_of(statistics(2)).grid([3], np.linspace(0, 1, 21))
    floor = sum(np.prod(SHAPES[n]) for n in ENCODER) / (2 * N)
    assert (grid["encoder_variance"] >= floor * (1 - 1e-12)).all()
    assert np.isclose(grid.set_index("head_weight").at[0.5, "encoder_variance"], floor, rtol=1e-12)


def test_the_bias_at_the_ends_is_the_other_tasks():
    head, tail, mismatch = numbers = statistics(3)
    grid = proxy_of(numbers).grid([3], [0, 1]).set_index("head_weight")
    for weight, fisher in ((1.0, tail), (0.0, head)):
        expected = 0.5 * sum(float((mismatch[n] ** 2 * fisher[n]).sum()) for n in ENCODER)
        assert np.isclose(grid.at[weight, "encoder_bias"], expected)


def test_depth_nought_shares_nothing_and_the_last_shares_every_block():
    grid = proxy_of(statistics(1)).grid(head_weights=[0.4]).set_index("shared_depth")
    assert (grid.loc[0, ["encoder_variance", "encoder_bias"]] == 0).all()
    decoders = sum(t.numel() for task in statistics(1)[:2] for n, t in task.items() if DEPTH_OF[n] == 4)
    assert np.isclose(grid.at[3, "decoder_variance"], decoders / (2 * N))


def test_infinite_damping_gives_the_papers_bias():
    numbers = statistics(0, spread=1.0)
    paper, damped = (proxy_of(numbers).grid([3], [0.2, 0.7], f, lam) for f, lam in (("paper", 0), ("damped", 1e9)))
    assert np.allclose(paper["encoder_bias"], damped["encoder_bias"], rtol=1e-6)


def test_the_papers_bias_is_exact_where_both_fishers_are_equal():
    head, _, mismatch = statistics(0)
    paper, exact = (Proxy(head, head, mismatch, DEPTH_OF, N).grid([3], [0.2, 0.5], f, 0) for f in ("paper", "damped"))
    assert np.allclose(paper["encoder_bias"], exact["encoder_bias"], rtol=1e-12)


def test_the_exact_bias_and_variance_together_are_least_at_one_half():
    grid = proxy_of(statistics(4)).grid(head_weights=np.linspace(0.05, 0.95, 19), form="damped", damping=0.0)
    for depth in (1, 2, 3):
        cells = grid[grid["shared_depth"] == depth]
        assert np.isclose(cells.loc[cells["total"].idxmin(), "head_weight"], 0.5)


def test_select_takes_the_smallest_finite_total():
    grid = pd.DataFrame({"shared_depth": [0, 1, 2, 3], "head_weight": [0.1, 0.2, 0.3, 0.4], "total": [np.nan, 2.0, 1.0, -np.inf]})
    choice = Proxy.select(grid)
    assert (choice.shared_depth, choice.head_weight, choice.total) == (2, 0.3, 1.0)
    with pytest.raises(ValueError, match="finite"):
        Proxy.select(grid[grid["total"] < 0])


def test_dead_and_one_sided_parameters():
    head, tail, mismatch = statistics(0)
    head["two"][0, 0] = tail["two"][0, 0] = 0.0  # dead
    head["three"][4] = 0.0  # one-sided: no variance is defined at w_A = 1
    search = Proxy(head, tail, mismatch, DEPTH_OF, N)
    assert search.dead == 1
    grid = search.grid()
    assert not grid["total"].isna().any()
    assert np.isinf(grid.loc[(grid["shared_depth"] == 3) & (grid["head_weight"] == 1), "total"]).all()
    assert np.isfinite(grid.loc[grid["head_weight"] < 1, "total"]).all()
    assert np.isfinite(search.grid(form="damped", damping=0.1)["total"]).all()
    middle = search.grid([2], [0.5]).iloc[0]
    assert np.isclose(middle["encoder_variance"], (7 + 15 + 24 - 1) / (2 * N))


def test_tensors_of_any_layout_and_type_give_the_same():
    head, tail, mismatch = statistics(0)
    expected = Proxy(head, tail, mismatch, DEPTH_OF, N, (3.0, 4.0))

    def apart(tensor):  # every second number of a longer one
        wide = torch.stack([tensor.double(), torch.full_like(tensor, -1.0).double()], -1)
        return wide[..., 0].requires_grad_()

    nothing = {"none": torch.zeros(0)}
    found = Proxy(
        {n: apart(t) for n, t in head.items()} | nothing,
        tail | nothing,
        {n: apart(t) for n, t in mismatch.items()},
        DEPTH_OF | {"none": 4},
        N,
        (3.0, 4.0),
    )
    for form, damping in (("paper", 0.0), ("damped", "evidence")):
        grids = [search.grid(form=form, damping=damping) for search in (found, expected)]
        pd.testing.assert_frame_equal(*grids, rtol=1e-6)
    pd.testing.assert_frame_equal(ProxySummary.of(found).grid(), ProxySummary.of(expected).grid(), rtol=1e-6)


def test_any_depths_and_weights_can_be_asked_for():
    grid = proxy_of(statistics(0)).grid([2, 1], [0.123])
    assert grid["shared_depth"].tolist() == [2, 1] and set(grid["head_weight"]) == {0.123}


def bad(change):
    head, tail, mismatch = statistics(0)
    settings = {"head": head, "tail": tail, "mismatch": mismatch, "depth_of": dict(DEPTH_OF), "n": N}
    change(settings)
    return Proxy(settings["head"], settings["tail"], settings["mismatch"], settings["depth_of"], settings["n"]).grid()


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda s: s.update(n=0), "n_samples"),
        (lambda s: s.update(n=-3), "n_samples"),
        (lambda s: s["head"].pop("two"), "two"),
        (lambda s: s["tail"].pop("one"), "one"),
        (lambda s: s["mismatch"].pop("embed"), "embed"),
        (lambda s: s["mismatch"].update(nowhere=torch.zeros(2)), "nowhere"),
        (lambda s: s["depth_of"].pop("out"), "out"),
        (lambda s: s["depth_of"].update(embed=0), "depths begin at 1, depth_of has less for embed"),
        (lambda s: s["tail"].update(three=torch.ones(12)), "shapes"),
        (lambda s: s["mismatch"].update(three=torch.ones(12)), "shapes"),
        (lambda s: s["head"].update(three=torch.full((11,), float("nan"))), "of three holds"),
        (lambda s: s["tail"].update(out=torch.full((2, 3), -1.0)), "Fisher of the decoder"),
        (lambda s: s["head"].update(three=torch.full((11,), float("inf"))), "of three holds"),
        (lambda s: s["tail"]["two"].__setitem__((0, 0), -1e-3), "of two holds"),
        (lambda s: s["mismatch"].update(three=torch.full((11,), float("inf"))), "mismatch of three"),
        (lambda s: s["mismatch"]["two"].__setitem__((0, 0), float("nan")), "mismatch of two"),
    ],
)
def test_refuses_what_does_not_fit(change, why):
    with pytest.raises(ValueError, match=why):
        bad(change)


@pytest.mark.parametrize(
    "arguments",
    [
        {"depths": [4]},
        {"depths": [-1]},
        {"head_weights": [1.1]},
        {"head_weights": [float("nan")]},
        {"form": "papers"},
        {"form": "damped", "damping": -1.0},
        {"form": "damped", "damping": "evidence"},
    ],
)
def test_refuses_cells_and_forms_that_do_not_exist(arguments):
    with pytest.raises(ValueError):
        proxy_of(statistics(0)).grid(**arguments)


def test_the_evidence_is_a_fixed_point_of_its_rule():
    numbers = statistics(0)
    distances = (2.0, 5.0)
    lam = proxy_of(numbers, distances).evidence()
    fixed = []
    for fishers, distance in zip(numbers[:2], distances):
        values = np.concatenate([f.numpy().ravel() for f in fishers.values()])
        each = 1.0
        for _ in range(10_000):
            each = (values / (values + each)).sum() / (N * distance)
        fixed.append(each)
    assert np.isclose(lam, np.sqrt(np.prod(fixed)), rtol=1e-4)
    grid = proxy_of(numbers, distances).grid(form="damped", damping="evidence")
    assert np.allclose(grid["total"], proxy_of(numbers).grid(form="damped", damping=lam)["total"])


def test_traces_and_mismatch_by_depth():
    head, tail, mismatch = numbers = statistics(0)
    table = proxy_of(numbers).by_depth().set_index("depth")
    assert table["parameters"].tolist() == [22, 24, 11]
    assert np.isclose(table.at[2, "trace_tail"], float(tail["two"].sum()))
    norm = (mismatch["embed"].square().sum() + mismatch["one"].square().sum()).sqrt()
    assert np.isclose(table.at[1, "mismatch_norm"], float(norm))


# The compiled loop and the slow way, term by term.

CASES = {
    "plain": lambda a, b, d: None,
    "dead": lambda a, b, d: (a.__setitem__(slice(3, 9), 0), b.__setitem__(slice(3, 9), 0)),
    "one-sided": lambda a, b, d: (a.__setitem__(5, 0), b.__setitem__(7, 0)),
    "all dead": lambda a, b, d: (a.zero_(), b.zero_()),
    "far apart": lambda a, b, d: (a.mul_(1e-30), b.mul_(1e6)),
    "as small as float32 gets": lambda a, b, d: (a.fill_(1e-44), b.mul_(1e-30)),
    "as large as float32 gets": lambda a, b, d: (a.fill_(3e38), b.fill_(1e-38)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form, lam", [("paper", 0.0), ("damped", 0.0), ("damped", 0.3), ("damped", 1e9), ("direct", 0.3)])
def test_the_compiled_loop_equals_the_slow_way(case, dtype, form, lam, monkeypatch):
    g = torch.Generator().manual_seed(1)
    a, b = (torch.exp(2 * torch.randn(2_001, generator=g)) for _ in range(2))
    d = torch.randn(2_001, generator=g)
    CASES[case](a, b, d)
    a, b, d = (t.to(dtype) for t in (a, b, d))
    weights = np.concatenate([np.linspace(0, 1, 8), [1e-6, 1 - 1e-6]])
    monkeypatch.setattr(terms, "CHUNK", 600)
    ((quick, shares),) = terms.encoder_sums([(a, b, d)], weights, lam, form)
    slow = terms.careful_sums(a, b, d, weights, lam, form)
    assert np.allclose(quick, slow, rtol=1e-9, atol=0)
    assert np.isclose(shares, sum(terms.squared_shares(t, lam) for t in (a, b)), rtol=1e-9)


def test_only_a_chunk_with_something_odd_goes_the_slow_way(monkeypatch):
    if compiled.kernels("proxy.kernels_cpu") is None:
        pytest.skip("nothing can be compiled here")
    seen, real = [], terms.careful_sums
    monkeypatch.setattr(terms, "careful_sums", lambda a, *rest: seen.append(len(a)) or real(a, *rest))
    monkeypatch.setattr(terms, "CHUNK", 100)
    a, b, d = torch.rand(3, 250) + 0.1
    a[:20] = b[:20] = 0.0  # dead: not odd
    terms.encoder_sums([(a, b, d)], np.linspace(0, 1, 11), 0.0, "paper")
    assert seen == []
    a[120] = 0.0
    terms.encoder_sums([(a, b, d)], np.array([0.3, 0.5]), 0.0, "paper")  # odd at w_A = 1 alone
    assert seen == []
    terms.encoder_sums([(a, b, d)], np.linspace(0, 1, 11), 0.0, "paper")
    assert seen == [100]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-20])
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("form", ["paper", "damped"])
def test_what_is_negative_or_not_finite_is_noticed_whatever_the_weights(value, which, form):
    for weights in ([0.5], [0.0], [1.0], [0.2, 0.7, 0.9]):
        named = [{"w": torch.rand(700) + 0.1} for _ in range(3)]
        named[which]["w"][650] = value
        search = Proxy(*named, {"w": 1}, N)
        if which == 2 and value < 0:
            assert np.isfinite(search.grid([1], weights, form, 0.1)["total"]).all()
        else:
            with pytest.raises(ValueError, match="of w holds"):
                search.grid([1], weights, form, 0.1)


def test_a_grid_without_numba_is_the_same(monkeypatch):
    grids = [proxy_of(statistics(0)).grid(form="damped", damping=0.2)]
    monkeypatch.setattr(terms, "kernels", lambda name: None)
    grids.append(proxy_of(statistics(0)).grid(form="damped", damping=0.2))
    assert np.allclose(*grids, rtol=1e-12)


def test_many_weights_and_mixed_types():
    numbers = head, tail, mismatch = statistics(0)
    weights = np.linspace(0, 1, 1001)
    grid = proxy_of(numbers).grid([2], weights)
    for i in (0, 1, 499, 998, 1000):
        assert np.allclose(grid.iloc[i, 2:5].astype(float), brute_force(numbers, 2, weights[i]), rtol=1e-12)
    mixed = {n: t.to(torch.bfloat16) for n, t in head.items()}, tail, {n: t.float() for n, t in mismatch.items()}
    row = proxy_of(mixed).grid([3], [0.3]).iloc[0]
    assert np.allclose(row.iloc[2:5].astype(float), brute_force(mixed, 3, 0.3), rtol=1e-12)
