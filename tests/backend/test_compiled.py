"""What is compiled, where it is kept, and what happens where it cannot be."""

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from osdtw_lib.backend.compiled import kernels, run_together
from osdtw_lib.proxy import bins

pytestmark = pytest.mark.journey

SAME = """
import torch
from osdtw_lib.backend.compiled import kernels
from osdtw_lib.proxy import Proxy
from osdtw_lib.fisher.sums import add_squared_products
total = torch.zeros(2, 3)
add_squared_products(total, torch.ones(4, 5, 2), torch.ones(4, 5, 3), 1000)
assert (total == 100).all(), total
named = [{"w": torch.ones(9)} for _ in range(3)]
assert Proxy(*named, {"w": 1}, 9).grid([1], [0.5])["encoder_variance"].item() == 0.5
print("compiled:", *(kernels(name) is not None for name in ("fisher.kernels_cpu", "proxy.kernels_cpu")))
"""
numba = pytest.mark.skipif(kernels("fisher.kernels_cpu") is None, reason="nothing can be compiled here")


def run(copy, before="", **changes):
    """SAME in a process of its own that imports the copy of the library."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")} | {"PYTHONPATH": str(copy)} | changes
    command = [sys.executable, "-c", before + SAME]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def copy(project, tmp_path):
    shutil.copytree(project / "osdtw_lib", tmp_path / "osdtw_lib", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@numba
def test_the_next_process_does_not_compile_again(copy):
    kept = []
    for _ in range(2):
        done = run(copy)
        assert done.returncode == 0 and done.stdout == "compiled: True True\n", done.stdout + done.stderr
        kept.append({p: p.stat().st_mtime_ns for p in copy.rglob("*.nbc")})
    assert kept[0] == kept[1] and len(kept[0]) >= 4


@numba
def test_folders_that_cannot_be_written_break_nothing(copy):
    for room in ("fisher", "proxy"):
        (copy / "osdtw_lib" / room / "__pycache__").write_text("in the way, for root as well")
    nowhere = {name: "/proc/nowhere" for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    done = run(copy, **(nowhere | {"PYTHONDONTWRITEBYTECODE": "1"}))
    assert done.returncode == 0 and done.stdout == "compiled: True True\n", done.stdout + done.stderr
    assert not list(copy.rglob("*.nbc"))


@pytest.mark.parametrize(
    "before, why",
    [
        ("import sys; sys.modules['numba'] = sys.modules['llvmlite'] = None", "ModuleNotFoundError"),
        ("import os; os.environ['NUMBA_DISABLE_JIT'] = '1'", ""),
        ("import numba; numba.njit = lambda *a, **k: 1 / 0", "ZeroDivisionError"),
    ],
)
def test_without_a_compiler_plain_pytorch_does_it_and_says_so_once(copy, before, why):
    done = run(copy, before + "\n")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == "compiled: False False" and all("plain PyTorch" in line and why in line for line in said[:-1])
    assert len(said) == 3  # once for each kind of sum


def test_every_task_is_done_once_by_several_threads_and_errors_come_through():
    done, where = [], set()
    with ThreadPoolExecutor(3) as pool:
        run_together([(lambda i: (done.append(i), where.add(threading.get_ident())), i) for i in range(1000)], pool, 4)
        with pytest.raises(ZeroDivisionError):
            run_together([(lambda i: 1 // i, i) for i in (1, 0)], pool, 2)
    assert sorted(done) == list(range(1000))


@numba
def test_the_compiled_spectrum_equals_plain_pytorchs(monkeypatch):
    values = torch.exp(20 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))).clamp(max=1e30)
    values[:4] = torch.tensor([0.0, 1e-44, 1e30, 2.0**-120])
    for tensor in (values, values.double()):
        quick = bins.spectrum([tensor, tensor[:7]])
        with monkeypatch.context() as m:
            m.setattr(bins, "kernels", lambda module: None)
            slow = bins.spectrum([tensor, tensor[:7]])
        assert (quick[0] == slow[0]).all()
        assert abs(quick[1] - slow[1]).max() <= 1e-12 * slow[1].max()
