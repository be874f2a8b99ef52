"""The sum of squared products: plain PyTorch against a loop, and the GPU kernel against plain PyTorch."""

import importlib.util
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from osdtw_lib.backend import compiled
from osdtw_lib.backend.compiled import kernels
from osdtw_lib.fisher import sums as squares
from osdtw_lib.fisher.sums import add_squared_norms, add_squared_products, add_squared_sums, gathered

SHAPES = [(5, 7, 6, 4), (3, 1, 8, 5), (4, 33, 40, 150), (9, 17, 130, 20)]

# Triton's interpreter runs the kernel on a CPU; it must be asked for before triton is imported, so in a process of its own.
INTERPRETED = """
import torch
from osdtw_lib.fisher.sums import add_squared_products
from osdtw_lib.fisher.kernels_gpu import add_squared_products_fused
half, single = torch.float16, torch.float32  # the interpreter multiplies bfloat16 as if its bits were integers
for shape in {shapes}:
    for g_type, x_type in ((single, single), (half, half), (half, single)):
        samples, tokens, outs, ins = shape
        torch.manual_seed(0)
        g, x = torch.randn(samples, tokens, outs).to(g_type), torch.randn(samples, tokens, ins).to(x_type)
        start = torch.rand(outs, ins)
        expected, found = start.clone(), start.clone()
        add_squared_products(expected, g, x.to(g_type), 2**20)  # in float32, of the same rounded numbers
        add_squared_products_fused(found, g.transpose(1, 2).contiguous().transpose(1, 2), x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
print("every shape agrees")
"""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("buffer_bytes", [1, 500, 2**20])
def test_equals_the_loop_over_samples_whatever_the_buffer(shape, buffer_bytes, monkeypatch):
    monkeypatch.setattr(squares, "CACHE_BYTES", buffer_bytes)
    samples, tokens, outs, ins = shape
    torch.manual_seed(0)
    g, x = torch.randn(samples, tokens, outs).double(), torch.randn(samples, tokens, ins).double()
    found = start = torch.rand(outs, ins).double()
    expected = start + sum((g[i].T @ x[i]) ** 2 for i in range(samples))
    add_squared_products(found, g, x, buffer_bytes)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def samples_of(shape, dtype=torch.float32):
    samples, tokens, outs, ins = shape
    torch.manual_seed(0)
    return torch.randn(samples, tokens, outs, dtype=dtype), torch.randn(samples, tokens, ins, dtype=dtype)


MORE_SHAPES = [*SHAPES, (3, 16, 64, 192), (2, 197, 100, 48), (6, 5, 193, 16), (2, 3, 4, 16), (1, 2, 1, 1)]


@pytest.mark.parametrize("shape", MORE_SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_compiled_loops_equal_float64(shape, dtype, threads, monkeypatch):
    if kernels("fisher.kernels_cpu") is None:
        pytest.skip("nothing can be compiled here")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    g, x = samples_of(shape, dtype)
    z = torch.randn(g.shape).to(dtype)
    exact_g, exact_x, exact_z = g.double(), x.double(), z.double()
    normalized = torch.nn.functional.layer_norm(exact_z, z.shape[-1:], None, None, 1e-6)
    expected = [
        1 + torch.einsum("bto,bti->boi", exact_g, exact_x).square().sum(0),
        1 + exact_g.sum(1).square().sum(0),
        1 + (exact_g * exact_z).sum(1).square().sum(0),
        1 + (exact_g * normalized).sum(1).square().sum(0),
        1 + exact_g.sum(1).square().sum(0),
    ]
    found = [torch.ones(e.shape) for e in expected]
    with gathered():
        add_squared_products(found[0], g, x, 2**20)
        add_squared_sums(found[1], g)
        add_squared_sums(found[2], g, z)
        add_squared_norms(found[3], found[4], g, z, 1e-6)
    for f, e in zip(found, expected):
        assert float((f - e).abs().max()) <= 1e-5 * float(e.max())


@pytest.mark.skipif(kernels("fisher.kernels_cpu") is None, reason="nothing can be compiled here")
def test_threads_of_our_own_where_pytorchs_cannot_be_had(monkeypatch):
    g, x = samples_of((4, 33, 200, 150))
    expected, found = torch.zeros(200, 150), torch.zeros(200, 150)
    add_squared_products(expected, g, x, 2**20)
    started = []

    class Counted(threading.Thread):
        def start(self):
            started.append(self)
            super().start()

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(compiled, "_openmp", lambda: None)
    monkeypatch.setattr(compiled.threading, "Thread", Counted)
    add_squared_products(found, g, x, 2**20)
    assert len(started) == 2 and torch.equal(found, expected)


def test_sums_into_one_place_do_not_meet(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    g, x = samples_of((2, 3, 400, 50))
    once, often = torch.zeros(400, 50), torch.zeros(400, 50)
    add_squared_products(once, g, x, 2**20)
    with gathered():
        for _ in range(20):
            add_squared_products(often, g, x, 2**20)
    torch.testing.assert_close(often, 20 * once, rtol=1e-5, atol=1e-5)


def test_inputs_that_skip_memory():
    g, x = samples_of((4, 6, 20, 32))
    expected, found = torch.zeros(20, 32), torch.zeros(20, 32)
    add_squared_products(expected, g, x, 2**20)
    add_squared_products(found, *(t.transpose(1, 2).contiguous().transpose(1, 2) for t in (g, x)), 2**20)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value):
    g, x = samples_of((3, 16, 20, 32))
    g[1, 2, 3] = value
    total, sums = torch.zeros(20, 32), torch.zeros(20)
    add_squared_products(total, g, x, 2**20)
    add_squared_sums(sums, g)
    assert (~total.isfinite()).all(1).tolist() == (~sums.isfinite()).tolist() == [i == 3 for i in range(20)]


@pytest.mark.parametrize("shape", SHAPES)
def test_without_numba_the_sums_are_the_same(shape, monkeypatch):
    g, x = samples_of(shape)
    z = torch.randn_like(g)
    results = []
    for _ in range(2):
        made = torch.zeros(shape[2], shape[3]), *torch.zeros(4, shape[2])
        add_squared_products(made[0], g, x, 2**20)
        add_squared_sums(made[1], g)
        add_squared_sums(made[2], g, z)
        add_squared_norms(made[3], made[4], g, z, 1e-6)
        results.append(made)
        monkeypatch.setattr(squares, "kernels", lambda module: None)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton)")
def test_the_gpu_kernel_equals_plain_pytorch_in_tritons_interpreter():
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED.format(shapes=SHAPES)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "every shape agrees" in run.stdout


def test_where_the_gpu_kernel_cannot_be_compiled_it_is_said_once_and_done_without(monkeypatch, capsys):
    def fails(total, g, x):
        raise RuntimeError("Failed to find C compiler.\nmore lines")

    device = torch.device("cpu")
    for module in (
        SimpleNamespace(add_squared_products_fused=fails, TILE=128),
        None,
    ):  # None: the import fails, as without Triton
        squares._fused.cache_clear()
        monkeypatch.setitem(sys.modules, "osdtw_lib.fisher.kernels_gpu", module)
        assert squares._fused(device, torch.float32) is None and squares._fused(device, torch.float32) is None
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and said.startswith("fisher: no Triton kernel here, plain PyTorch is used, slower: ")
    tiles: list[tuple[int, ...]] = []
    works = SimpleNamespace(add_squared_products_fused=lambda total, g, x: tiles.append(tuple(total.shape)), TILE=128)
    squares._fused.cache_clear()
    monkeypatch.setitem(sys.modules, "osdtw_lib.fisher.kernels_gpu", works)
    assert squares._fused(device, torch.float32) is works.add_squared_products_fused and tiles == [(128, 128)]
    squares._fused.cache_clear()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_the_gpu_kernel_equals_plain_pytorch_on_a_gpu(dtype, rtol):
    torch.manual_seed(0)
    g, x = (torch.randn(16, 197, n, device="cuda").to(dtype) for n in (768, 3072))
    expected, found = (torch.zeros(768, 3072, device="cuda", dtype=t) for t in (torch.float64, torch.float32))
    add_squared_products(expected, g.double(), x.double(), 2**28)
    add_squared_products(found, g, x, 2**28)
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=rtol * float(expected.mean()))
