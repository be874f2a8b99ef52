"""The Fisher's inner loop: the sum over samples of the squared product g_i^T x_i."""

from __future__ import annotations

import torch
from torch import Tensor

CACHE_BYTES = 1 << 20  # on a CPU, products are squared while they are still in a core's cache


def add_squared_products(total: Tensor, g: Tensor, x: Tensor, buffer_bytes: int) -> None:
    """total (out, in) += sum over samples i of (g_i^T x_i) ** 2, with g (B, T, out) and x (B, T, in).

    Each sample's product is the gradient of a Linear's weight, summed over the tokens before it is squared.
    Scratch memory stays below buffer_bytes, but is never less than one product.
    """
    g, x = g.to(total.dtype), x.to(total.dtype)
    if g.shape[1] == 1:  # one token: the square of a product is the product of squares
        total.addmm_(g[:, 0].square().T, x[:, 0].square())
        return
    limit = min(buffer_bytes, CACHE_BYTES) if total.device.type == "cpu" else buffer_bytes
    chunk = max(1, min(len(g), limit // (total.numel() * total.element_size())))
    buffer = torch.empty(chunk, *total.shape, dtype=total.dtype, device=total.device)
    for gs, xs in zip(g.split(chunk), x.split(chunk)):
        products = buffer[: len(gs)]
        torch.bmm(gs.transpose(1, 2), xs, out=products)
        for product in products:
            total.addcmul_(product, product)
