"""Sums of squared products and of squared sums on a CPU, compiled: no sample's gradient is ever written to memory.

The total is worked through in tiles of 4 x 16. For each sample a tile's product g_i^T x_i is summed over the tokens in
vector registers, squared there and added up, so that it costs what the weight's gradient itself would. As in any fast
matrix product, g and x are first copied, a few rows or columns at a time, to where a tile reads them in order (where a
sample is small, they are read where they lie), and tiles lie one behind the other until the last sample: rows of the
total itself, a power of two apart, would drive each other out of the cache.
"""

from __future__ import annotations

import struct

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from ..backend.compiled import compiled, compiled_region, in_team

LANES, ROWS, VECTORS = 8, 4, 2
COLUMNS = VECTORS * LANES
TILE = ROWS * COLUMNS
LINE = 16  # numbers of a cache line
SMALL = 4096  # numbers of a sample that a tile reads where they lie: copying so few first takes longer than it spares
BLOCK, SMALL_BLOCK = 96, 32  # rows of the total, at most, that are one thread's task
VECTOR = ir.VectorType(ir.FloatType(), LANES)
REASSOCIATE = {"reassoc", "contract", "nsz"}  # sums in any order; NaN and infinity stay what they are


def _at(context, builder, array_type, array, offset, kind=None):
    """Pointer to array[offset], as a pointer to `kind`."""
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])
    return builder.bitcast(pointer, kind.as_pointer()) if kind else pointer


def _copy(size: int):
    """copy(to, i, source, j): to[i : i + size] = source[j : j + size] by one load and one store."""

    @intrinsic
    def copy(typing, to, i, source, j):
        def code(context, builder, signature, values):
            kind, (to_type, _, source_type, _) = ir.VectorType(ir.FloatType(), size), signature.args
            loaded = builder.load(_at(context, builder, source_type, values[2], values[3], kind), align=4)
            builder.store(loaded, _at(context, builder, to_type, values[0], values[1], kind), align=4)
            return context.get_dummy_value()

        return types.void(to, i, source, j), code

    return copy


copy_rows, copy_columns = _copy(ROWS), _copy(COLUMNS)


@intrinsic
def add_tile(typing, tiles, at, g, g_at, g_step, x, x_at, x_step, tokens):
    """tiles[at + r COLUMNS + c] += (sum over tokens t of g[g_at + t g_step + r] x[x_at + t x_step + c]) ** 2."""

    def code(context, builder, signature, values):
        tiles, at, g, g_at, g_step, x, x_at, x_step, tokens = values
        tiles_type, _, g_type, _, _, x_type, *_ = signature.args
        number = lambda n: ir.Constant(at.type, n)  # noqa: E731
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), f"llvm.fma.v{LANES}f32")
        fetch_type = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        fetch = cgutils.get_or_insert_function(builder.module, fetch_type, "llvm.prefetch.p0")
        undefined, same = ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)
        nought = ir.Constant(VECTOR, [0.0] * LANES)
        g, x = (_at(context, builder, kind, array, offset) for kind, array, offset in ((g_type, g, g_at), (x_type, x, x_at)))
        rows = [_at(context, builder, tiles_type, tiles, builder.add(at, number(r * COLUMNS))) for r in range(ROWS)]
        for row in rows:  # for writing, soon
            builder.call(fetch, [builder.bitcast(row, byte), *(ir.Constant(i32, n) for n in (1, 3, 1))])
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(VECTORS)] for _ in range(ROWS)]
        for place in sum(sums, []):
            builder.store(nought, place)
        vector = lambda start, n: builder.bitcast(builder.gep(start, [n]), VECTOR.as_pointer())  # noqa: E731
        with cgutils.for_range(builder, tokens) as loop:
            first, g_first = builder.mul(loop.index, x_step), builder.mul(loop.index, g_step)
            columns = [builder.load(vector(x, builder.add(first, number(c * LANES))), align=4) for c in range(VECTORS)]
            for r in range(ROWS):
                scalar = builder.load(builder.gep(g, [builder.add(g_first, number(r))]))
                spread = builder.insert_element(undefined, scalar, ir.Constant(i32, 0))
                spread = builder.shuffle_vector(spread, undefined, same)
                for place, column in zip(sums[r], columns):
                    builder.store(builder.call(fma, [spread, column, builder.load(place)]), place)
        for row, places in zip(rows, sums):
            for c, place in enumerate(places):
                product, to = builder.load(place), vector(row, number(c * LANES))
                builder.store(builder.call(fma, [product, product, builder.load(to, align=4)]), to, align=4)
        return context.get_dummy_value()

    return types.void(tiles, at, g, g_at, g_step, x, x_at, x_step, tokens), code


@compiled("void(float32[::1], float32[::1], int64, int64, int64, int64)")
def _pack_rows(packed, g, start, step, tokens, rows):
    """packed[r // ROWS, t, r % ROWS] = g[start + t step + r], a cache line of g at a time; noughts after the last row."""
    for r in range(0, rows, LINE):
        at = r * tokens
        if r + LINE <= rows:
            for t in range(tokens):
                for tile in range(LINE // ROWS):
                    copy_rows(packed, at + tile * ROWS * tokens, g, start + t * step + r + tile * ROWS)
                at += ROWS
        else:
            for q in range(r, rows, ROWS):
                for t in range(tokens):
                    for k in range(ROWS):
                        packed[at] = g[start + t * step + q + k] if q + k < rows else np.float32(0)
                        at += 1


@compiled("void(float32[::1], float32[::1], int64, int64, int64, int64)")
def _pack_columns(packed, x, start, step, tokens, columns):
    """packed[t, c] = x[start + t step + c], noughts after the last column."""
    for t in range(tokens):
        if columns >= COLUMNS:
            copy_columns(packed, t * COLUMNS, x, start + t * step)
        else:
            for k in range(COLUMNS):
                packed[t * COLUMNS + k] = x[start + t * step + k] if k < columns else np.float32(0)


@compiled("void(float32[::1], float32[::1], float32[::1], int64, int64, int64, int64, int64, int64, boolean)")
def _add_products(total, g, x, samples, tokens, outs, ins, first, last, small):
    """Rows first..last - 1 of total (outs, ins) += sum over i of (g_i^T x_i) ** 2; g (samples, tokens, outs), x (.., ins)."""
    rows = last - first
    padded = -(-rows // ROWS) * ROWS
    in_place = small and rows == padded and ins % COLUMNS == 0
    tiles = np.zeros(padded * (-(-ins // COLUMNS) * COLUMNS), dtype=np.float32)
    g_packed, x_packed = np.empty(tokens * padded, dtype=np.float32), np.empty(tokens * COLUMNS, dtype=np.float32)
    for i in range(samples):
        from_g, from_x, at = i * tokens * outs + first, i * tokens * ins, 0
        if not in_place:
            _pack_rows(g_packed, g, from_g, outs, tokens, rows)
        for c in range(0, ins, COLUMNS):
            if in_place:
                for r in range(0, rows, ROWS):
                    add_tile(tiles, at, g, from_g + r, outs, x, from_x + c, ins, tokens)
                    at += TILE
            else:
                _pack_columns(x_packed, x, from_x + c, ins, tokens, ins - c)
                for r in range(0, rows, ROWS):
                    add_tile(tiles, at, g_packed, r * tokens, ROWS, x_packed, 0, COLUMNS, tokens)
                    at += TILE
    for c in range(0, ins, COLUMNS):
        for r in range(rows):
            at, to = c * padded + r * COLUMNS, (first + r) * ins + c
            for k in range(min(COLUMNS, ins - c)):
                total[to + k] += tiles[at + k]


@compiled("void(float32[::1], float32[:, :, ::1], float32[:, :, ::1], boolean)", fastmath=REASSOCIATE)
def _add_sums(total, g, z, weighted):
    """total (width,) += sum over samples of (sum over tokens of g, or of g z where weighted) ** 2."""
    samples, tokens, width = g.shape
    running = np.empty(width, dtype=np.float32)
    for i in range(samples):
        running[:] = 0
        for t in range(tokens):
            if weighted:
                for k in range(width):
                    running[k] += g[i, t, k] * z[i, t, k]
            else:
                for k in range(width):
                    running[k] += g[i, t, k]
        for k in range(width):
            total[k] += running[k] * running[k]


@compiled("void(float32[::1], float32[::1], float32[:, :, ::1], float32[:, :, ::1], float64)", fastmath=REASSOCIATE)
def _add_normalized(scale, shift, g, x, eps):
    """scale (width,) += as _add_sums with z the layer norm of x, shift (width,) += as without z."""
    samples, tokens, width = g.shape
    for_scale, for_shift = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    for i in range(samples):
        for_scale[:] = 0
        for_shift[:] = 0
        for t in range(tokens):
            mean = variance = np.float32(0)
            for k in range(width):
                mean += x[i, t, k]
            mean /= np.float32(width)
            for k in range(width):
                variance += (x[i, t, k] - mean) * (x[i, t, k] - mean)
            inverse = np.float32(1 / np.sqrt(variance / width + eps))
            for k in range(width):
                for_scale[k] += g[i, t, k] * ((x[i, t, k] - mean) * inverse)
            for k in range(width):
                for_shift[k] += g[i, t, k]
        for k in range(width):
            scale[k] += for_scale[k] * for_scale[k]
            shift[k] += for_shift[k] * for_shift[k]


# A table of what is to be done: how many tasks were begun, how many are done, how many there are, and how many rows;
# then the rows, each of what to do, the addresses of two totals, of g and of x or z (or nought), their sizes, the
# first of its tasks (before `run`: how many), how many rows of the total are one task, and whether small, or eps.
PRODUCTS, SUMS, NORMALIZED = range(3)
BEGUN, DONE, TASKS, ROWS_IN_ALL, HEADER = range(5)
FIRST_TASK, LENGTH = 9, 12


@intrinsic
def place(typing, address):
    """An address as a pointer."""
    return types.voidptr(types.int64), lambda context, builder, signature, values: builder.inttoptr(values[0], cgutils.voidptr_t)


@intrinsic
def count(typing, array, at):
    """array[at] += 1, whoever else does so at this moment; returns what it was."""

    def code(context, builder, signature, values):
        where = _at(context, builder, signature.args[0], *values)
        return builder.atomic_rmw("add", where, ir.Constant(where.type.pointee, 1), "seq_cst")

    return types.int64(array, at), code


@compiled_region
def region(data):
    """Every task of a table that no other thread has begun."""
    header = carray(data, HEADER, np.int64)
    tasks, rows = header[TASKS], header[ROWS_IN_ALL]
    table = carray(data, HEADER + rows * LENGTH, np.int64)
    numbers = carray(data, HEADER + rows * LENGTH, np.float64)
    at, end = HEADER, HEADER + rows * LENGTH
    while True:
        task = count(table, BEGUN)
        if task >= tasks:
            return
        while at + LENGTH < end and table[at + LENGTH + FIRST_TASK] <= task:
            at += LENGTH
        what, samples, tokens, outs, ins = table[at], table[at + 5], table[at + 6], table[at + 7], table[at + 8]
        if what == PRODUCTS:
            total = carray(place(table[at + 1]), outs * ins, np.float32)
            g = carray(place(table[at + 3]), samples * tokens * outs, np.float32)
            x = carray(place(table[at + 4]), samples * tokens * ins, np.float32)
            block, small = table[at + 10], table[at + 11] != 0
            first = (task - table[at + FIRST_TASK]) * block
            last = min(first + block, outs)
            _add_products(total, g, x, samples, tokens, outs, ins, first, last, small)
        else:
            total = carray(place(table[at + 1]), outs, np.float32)
            g = carray(place(table[at + 3]), (samples, tokens, outs), np.float32)
            z = carray(place(table[at + 4]), (samples, tokens, outs), np.float32)
            if what == SUMS:
                _add_sums(total, g, z, table[at + 4] != 0)
            else:
                _add_normalized(total, carray(place(table[at + 2]), outs, np.float32), g, z, numbers[at + 11])
        count(table, DONE)


def products(total: Tensor, g: Tensor, x: Tensor) -> tuple:
    """The row that adds to total (out, in) what squares.add_squared_products says; each task has a part of it of its own."""
    (samples, tokens, outs), ins = g.shape, x.shape[2]
    small = tokens * max(outs, ins) <= SMALL
    parts = 2 * -(-outs // (2 * (SMALL_BLOCK if small else BLOCK)))  # an even number: no core waits for the last one
    block = -(-outs // (parts * LINE)) * LINE
    tasks = -(-outs // block), block, small
    return PRODUCTS, total.data_ptr(), 0, g.data_ptr(), x.data_ptr(), samples, tokens, outs, ins, *tasks


def sums(total: Tensor, g: Tensor, z: Tensor | None) -> tuple:
    """The row that adds to total (width,) what squares.add_squared_sums says."""
    return SUMS, total.data_ptr(), 0, g.data_ptr(), 0 if z is None else z.data_ptr(), *g.shape, 0, 1, 0, 0


def normalized(scale: Tensor, shift: Tensor, g: Tensor, x: Tensor, eps: float) -> tuple:
    """The row that adds to scale and shift (width,) what squares.add_squared_norms says."""
    bits = struct.unpack("q", struct.pack("d", eps))[0]
    return NORMALIZED, scale.data_ptr(), shift.data_ptr(), g.data_ptr(), x.data_ptr(), *g.shape, 0, 1, 0, bits


def run(rows: list[tuple], threads: int) -> None:
    """Do what the rows say. The tensors they come from must still be there."""
    table = np.empty(HEADER + len(rows) * LENGTH, dtype=np.int64)
    body = table[HEADER:].reshape(len(rows), LENGTH)
    body[:] = rows
    ends = body[:, FIRST_TASK].cumsum()
    body[:, FIRST_TASK] = ends - body[:, FIRST_TASK]
    table[:HEADER] = 0, 0, ends[-1], len(rows)
    in_team(region, table, threads)
    if table[DONE] != table[TASKS]:
        raise MemoryError("the compiled sums of squares found no memory to work in")
