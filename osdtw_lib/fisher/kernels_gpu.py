"""The sum of squared products as one fused GPU kernel (Triton): nothing but g, x and the total touches memory.

A program owns a tile of the total and a share of the samples. For each sample it sums g_i^T x_i over the tokens in
registers, squares it there, and adds it to a running sum, so no sample's gradient is ever written out. Large
layers have tiles enough for every multiprocessor; small ones are split over the samples too.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE, TOKENS = 128, 32


@triton.jit
def _kernel(
    g,
    x,
    total,
    n_samples,
    n_tokens,
    n_out,
    n_in,
    per_program,
    g_sample,
    g_token,
    g_out,
    x_sample,
    x_token,
    x_in,
    tile: tl.constexpr,
    token_tile: tl.constexpr,
    exact: tl.constexpr,
):
    rows = tl.program_id(0) * tile + tl.arange(0, tile)
    columns = tl.program_id(1) * tile + tl.arange(0, tile)
    first = tl.program_id(2) * per_program
    g += first.to(tl.int64) * g_sample
    x += first.to(tl.int64) * x_sample
    running = tl.zeros((tile, tile), dtype=tl.float32)
    for _ in range(first, tl.minimum(first + per_program, n_samples)):
        product = tl.zeros((tile, tile), dtype=tl.float32)
        for start in range(0, n_tokens, token_tile):
            tokens = start + tl.arange(0, token_tile)
            g_at = g + tokens[None, :] * g_token + rows[:, None] * g_out
            x_at = x + tokens[:, None] * x_token + columns[None, :] * x_in
            inside = tokens < n_tokens
            g_tile = tl.load(g_at, mask=(rows[:, None] < n_out) & inside[None, :], other=0.0)
            x_tile = tl.load(x_at, mask=inside[:, None] & (columns[None, :] < n_in), other=0.0)
            if exact:
                product = tl.dot(g_tile, x_tile, product, input_precision="ieee")
            else:
                product = tl.dot(g_tile, x_tile, product)
        running += product * product
        g += g_sample
        x += x_sample
    at = total + rows[:, None] * n_in + columns[None, :]
    tl.atomic_add(at, running, mask=(rows[:, None] < n_out) & (columns[None, :] < n_in), sem="relaxed")


def add_squared_products_fused(total: Tensor, g: Tensor, x: Tensor) -> None:
    """total (out, in) float32, contiguous, += sum over i of (g_i^T x_i) ** 2; g (B, T, out), x (B, T, in).

    bf16 and fp16 inputs are multiplied on the tensor cores and summed in float32; float32 ones stay float32.
    """
    if g.dtype != x.dtype:  # autocast hands over a float32 input beside a bf16 gradient
        x = x.to(g.dtype)
    samples, tokens, outs = g.shape
    ins = x.shape[2]
    tile = min(TILE, max(16, triton.next_power_of_2(min(outs, ins))))
    tiles = triton.cdiv(outs, tile) * triton.cdiv(ins, tile)
    splits = max(1, min(samples, 2 * _multiprocessors(total) // tiles))
    per_program = triton.cdiv(samples, splits)
    grid = (triton.cdiv(outs, tile), triton.cdiv(ins, tile), triton.cdiv(samples, per_program))
    _kernel[grid](
        g,
        x,
        total,
        samples,
        tokens,
        outs,
        ins,
        per_program,
        *g.stride(),
        *x.stride(),
        tile=tile,
        token_tile=TOKENS,
        exact=g.dtype == torch.float32,
        num_warps=8 if tile >= 128 else 4,
    )


def _multiprocessors(total: Tensor) -> int:
    return torch.cuda.get_device_properties(total.device).multi_processor_count if total.is_cuda else 4
