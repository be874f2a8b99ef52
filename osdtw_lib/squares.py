"""The Fisher's inner loop: the sum over samples of the squared product g_i^T x_i."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

CACHE_BYTES = 1 << 20  # on a CPU, products are squared while they are still in a core's cache


def add_squared_products(total: Tensor, g: Tensor, x: Tensor, buffer_bytes: int) -> None:
    """total (out, in) += sum over samples i of (g_i^T x_i) ** 2, with g (B, T, out) and x (B, T, in).

    Each sample's product is the gradient of a Linear's weight, summed over the tokens before it is squared.
    Scratch memory stays below buffer_bytes, but is never less than one product. On a GPU with Triton a fused
    kernel does it without any; plain PyTorch is its oracle and its replacement.
    """
    if total.is_cuda and total.dtype == torch.float32 and g.shape[1] > 1 and importlib.util.find_spec("triton"):
        from .squares_gpu import add_squared_products_fused

        return add_squared_products_fused(total, g, x)
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
