"""The Fisher's inner loops: sums over samples of squared products and of squared sums over tokens.

On a CPU compiled loops do them (kernels_cpu.py), on a GPU a Triton kernel the products (kernels_gpu.py); plain PyTorch
is their oracle, and their replacement where they cannot be had.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backend.compiled import kernels

CACHE_BYTES = 1 << 20  # on a CPU, products are squared while they are still in a core's cache
GATHERED = 1 << 20  # so many numbers of g and x wait to be shared out over the threads at once
_here = threading.local()


def add_squared_products(total: Tensor, g: Tensor, x: Tensor, buffer_bytes: int) -> None:
    """total (out, in) += sum over samples i of (g_i^T x_i) ** 2, with g (B, T, out) and x (B, T, in).

    Each sample's product is the gradient of a Linear's weight, summed over the tokens before it is squared.
    Scratch memory stays below buffer_bytes, but is never less than one product; compiled loops and kernel hold tiles.
    """
    if total.is_cuda and total.dtype == torch.float32 and g.shape[1] > 1 and (fused := _fused(total.device, g.dtype)):
        return fused(total, g, x)
    if g.shape[1] > 1 and (compiled := _compiled(total)):
        return _share(compiled.products, [total], [g, x])
    g, x = g.to(total.dtype), x.to(total.dtype)
    if g.shape[1] == 1:  # one token: the square of a product is the product of squares
        total.addmm_(g[:, 0].square().T, x[:, 0].square())
        return None
    (batch, outs), ins, size = (len(g), g.shape[2]), x.shape[2], total.element_size()
    if total.device.type == "cpu":  # rows of the total that stay in cache while the samples go by
        buffer_bytes = min(buffer_bytes, CACHE_BYTES)
        rows = max(1, min(outs, buffer_bytes // 2 // (ins * size)))
    else:
        rows = outs
    chunk = max(1, min(batch, buffer_bytes // (rows * ins * size)))
    buffer = torch.empty(chunk, rows * ins, dtype=total.dtype, device=total.device)
    ones = torch.ones(chunk, dtype=total.dtype, device=total.device)
    for first in range(0, outs, rows):
        part = total[first : first + rows].view(-1)
        for gs, xs in zip(g[:, :, first : first + rows].split(chunk), x.split(chunk)):
            products = buffer[: len(gs), : len(part)]
            torch.bmm(gs.transpose(1, 2), xs, out=products.view(len(gs), -1, ins))
            if len(gs) == 1:
                part.addcmul_(products[0], products[0])
            else:
                part.addmv_(products.mul_(products).T, ones[: len(gs)])


def add_squared_sums(total: Tensor, g: Tensor, z: Tensor | None = None) -> None:
    """total (width,) += sum over samples i of (sum over tokens of g_i, or of g_i z_i) ** 2; g and z (B, T, width)."""
    if compiled := _compiled(total):
        return _share(compiled.sums, [total], [g, z])
    total += (g.sum(1, dtype=total.dtype) if z is None else (g.to(total.dtype) * z).sum(1)).square().sum(0)


def add_squared_norms(scale: Tensor, shift: Tensor | None, g: Tensor, x: Tensor, eps: float) -> None:
    """For a LayerNorm's scale and shift (width,): `add_squared_sums` with z the norm of x (B, T, width), and without."""
    if compiled := _compiled(scale):
        return _share(compiled.normalized, [scale, torch.zeros_like(scale) if shift is None else shift], [g, x], eps)
    add_squared_sums(scale, g, F.layer_norm(x.to(scale.dtype), x.shape[-1:], None, None, eps))
    if shift is not None:
        add_squared_sums(shift, g)


@contextmanager
def gathered() -> Iterator[None]:
    """Compiled sums asked for within are shared out over the threads many at a time; they are complete at its end."""
    _here.queue = _Queue()
    try:
        yield
        _here.queue.run()
    finally:
        _here.queue = None


class _Queue:
    """Rows for kernels_cpu, the tensors they speak of, and where they add to."""

    def __init__(self):
        self.rows, self.held, self.totals, self.numbers = [], [], set(), 0

    def run(self) -> None:
        if self.rows:
            kernels("fisher.kernels_cpu").run(self.rows, torch.get_num_threads())
        self.__init__()


@functools.cache
def _fused(device: torch.device, dtype: torch.dtype) -> Callable[[Tensor, Tensor, Tensor], None] | None:
    """The GPU's kernel; None, said once, where a product by it fails: no Triton, or no C compiler for it."""
    try:
        from .kernels_gpu import TILE, add_squared_products_fused

        ones = torch.ones(
            1, 16, TILE, device=device, dtype=dtype
        )  # its largest tile: what a small card has no room for fails here
        add_squared_products_fused(torch.zeros(TILE, TILE, device=device), ones, ones)
        return add_squared_products_fused
    except Exception as error:  # whatever a compiler may raise on a machine nobody has seen
        reason = " ".join(str(error).split())[:200]
        print(f"fisher: no Triton kernel here, plain PyTorch is used, slower: {type(error).__name__}: {reason}", flush=True)
        return None


def _compiled(total: Tensor):
    """kernels_cpu, where it can be had and `total` is what it is made for."""
    fits = total.device.type == "cpu" and total.dtype == torch.float32 and total.is_contiguous()
    return kernels("fisher.kernels_cpu") if fits else None


def _share(row: Callable, totals: list[Tensor], inputs: list[Tensor | None], *settings: float) -> None:
    queue = getattr(_here, "queue", None)
    if queue is None:
        with gathered():
            return _share(row, totals, inputs, *settings)
    places = [total.data_ptr() for total in totals]
    if not queue.totals.isdisjoint(places):  # two threads must not add to one place
        queue.run()
    inputs = [t if t is None or t.dtype == torch.float32 and t.is_contiguous() else t.float().contiguous() for t in inputs]
    queue.rows.append(row(*totals, *inputs, *settings))
    queue.held += totals
    queue.held += inputs
    queue.totals.update(places)
    queue.numbers += sum(t.numel() for t in inputs if t is not None)
    if queue.numbers > GATHERED:
        queue.run()
