"""The sum of squared products: plain PyTorch against a loop, and the GPU kernel against plain PyTorch."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from osdtw_lib import squares
from osdtw_lib.squares import add_squared_products

SHAPES = [(5, 7, 6, 4), (3, 1, 8, 5), (4, 33, 40, 150), (9, 17, 130, 20)]

# Triton's interpreter runs the kernel on a CPU; it must be asked for before triton is imported, so in a process of its own.
INTERPRETED = """
import torch
from osdtw_lib.squares import add_squared_products
from osdtw_lib.squares_gpu import add_squared_products_fused
for shape in {shapes}:
    samples, tokens, outs, ins = shape
    torch.manual_seed(0)
    g, x = torch.randn(samples, tokens, outs), torch.randn(samples, tokens, ins)
    start = torch.rand(outs, ins)
    expected, found = start.clone(), start.clone()
    add_squared_products(expected, g, x, 2**20)
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


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed (pip install triton)")
def test_the_gpu_kernel_equals_plain_pytorch_in_tritons_interpreter():
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED.format(shapes=SHAPES)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "every shape agrees" in run.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_the_gpu_kernel_equals_plain_pytorch_on_a_gpu(dtype, rtol):
    torch.manual_seed(0)
    g, x = (torch.randn(16, 197, n, device="cuda").to(dtype) for n in (768, 3072))
    expected, found = (torch.zeros(768, 3072, device="cuda", dtype=t) for t in (torch.float64, torch.float32))
    add_squared_products(expected, g.double(), x.double(), 2**28)
    add_squared_products(found, g, x, 2**28)
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=rtol * float(expected.mean()))
