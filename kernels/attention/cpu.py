"""Paged attention and KV writes on CPU: int8 pages are read where they lie and widened in registers, never gathered.

One unit of work is (row, kv head, block of queries), all heads of the group packed (online softmax: Milakov and
Gimelshein 2018; FlashAttention: Dao et al. 2022) over tiles of BLOCK positions, aligned to absolute positions. So a
query's result is the same bit for bit however its prompt was chunked and whatever shares the batch.
"""

import math
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import AttentionPlan, LayerPages
from tenantry.kernels.threads import compiled, compiled_parallel, get_threads, run_parallel
from tenantry.kernels.tiles import COLUMNS, LANES, ROWS, make_dot, make_outer

BLOCK = 64  # positions per softmax step
LOG2_E = math.log2(math.e)
LEAST, LOWEST, ZERO, ONE, MOST = (np.float32(x) for x in (-126, -1e30, 0, 1, 127))
FLOOR = np.float32(reference.SMALLEST_SCALE)
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Small = NDArray[np.int32]

di2, di6 = make_dot(2, "int8", False), make_dot(ROWS, "int8", False)
db2, db6 = make_dot(2, "bfloat16", False), make_dot(ROWS, "bfloat16", False)
df2, df6 = make_dot(2, "float32", False), make_dot(ROWS, "float32", False)
oi2, oi8 = make_outer(2, 1, "int8"), make_outer(8, 1, "int8")
ob2, ob8 = make_outer(2, 1, "bfloat16"), make_outer(8, 1, "bfloat16")
of2, of8 = make_outer(2, 1, "float32"), make_outer(8, 1, "float32")


def make_power_of_two(typing: Any, exponent: Any) -> Any:
    """2 ** exponent of an int32 in -126..127, by its bits."""

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        bits = b.shl(b.add(arguments[0], ir.IntType(32)(127)), ir.IntType(32)(23))
        return b.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), emit


power_of_two: Any = intrinsic(make_power_of_two)


def make_load(typing: Any, address: Any) -> Any:
    """The fp32 at an address."""

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.load(b.inttoptr(arguments[0], ir.PointerType(ir.FloatType())), align=4)

    return types.float32(types.intp), emit


def make_store(typing: Any, address: Any, value: Any) -> Any:
    """Store an fp32 or an int8 at an address."""

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        place, what = arguments
        b.store(what, b.inttoptr(place, ir.PointerType(what.type)), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, value), emit


load: Any = intrinsic(make_load)
store_at: Any = intrinsic(make_store)

C1, C2, C3, C4, C5, C6, C7, C8 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 9))


@compiled
def exp2(x: np.float32) -> np.float32:
    """2 ** x for x <= 0, to 2e-7; below -126 it stays there. NaN stays NaN. Taylor over -1 < fraction <= 0."""
    x = LEAST if x < LEAST else x
    whole = np.int32(x)
    f = x - np.float32(whole)
    series = ONE + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * (C6 + f * (C7 + f * C8)))))))
    return series * np.float32(power_of_two(whole))


@compiled
def scores(
    item: int, k: int, q: Floats, first: int, depth: int, tokens: int, out: Floats, at: int, zero: Floats
) -> None:
    """out[:, at : at + tokens] = q[:, first : first + depth] @ k[tokens, depth].T, in fours of tokens.
    k: address of values whose rows are q.shape[1] apart."""
    rows, width = q.shape
    k_in, q_in, s_in, none = item * width, 4 * width, 4 * BLOCK, zero.ctypes.data
    for t in range(0, tokens, COLUMNS):
        here, row = k + t * k_in, 0
        while row < rows:
            q_at, s_at = q.ctypes.data + row * q_in + 4 * first, out.ctypes.data + row * s_in + 4 * (at + t)
            if rows - row >= ROWS:
                if item == 1:
                    di6(here, q_at, s_at, none, depth, k_in, q_in, s_in, 0)
                elif item == 2:
                    db6(here, q_at, s_at, none, depth, k_in, q_in, s_in, 0)
                else:
                    df6(here, q_at, s_at, none, depth, k_in, q_in, s_in, 0)
                row += ROWS
            else:
                if item == 1:
                    di2(here, q_at, s_at, none, depth, k_in, q_in, s_in, 0)
                elif item == 2:
                    db2(here, q_at, s_at, none, depth, k_in, q_in, s_in, 0)
                else:
                    df2(here, q_at, s_at, none, depth, k_in, q_in, s_in, 0)
                row += 2


@compiled
def weigh(item: int, v: int, p: Floats, at: int, tokens: int, o: Floats, first: int, depth: int) -> None:
    """o[:, first : first + depth] += p[:, at : at + tokens] @ v[tokens, depth]; v: address, rows o.shape[1] apart."""
    rows, width = o.shape
    v_in, p_in, o_in = item * width, 4 * BLOCK, 4 * width
    for column in range(0, depth, LANES):
        here, row = v + item * column, 0
        while row < rows:
            p_at = p.ctypes.data + row * p_in + 4 * at
            o_at = o.ctypes.data + row * o_in + 4 * (first + column)
            if rows - row >= 8:
                if item == 1:
                    oi8(here, p_at, o_at, tokens, v_in, p_in, o_in)
                elif item == 2:
                    ob8(here, p_at, o_at, tokens, v_in, p_in, o_in)
                else:
                    of8(here, p_at, o_at, tokens, v_in, p_in, o_in)
                row += 8
            else:
                if item == 1:
                    oi2(here, p_at, o_at, tokens, v_in, p_in, o_in)
                elif item == 2:
                    ob2(here, p_at, o_at, tokens, v_in, p_in, o_in)
                else:
                    of2(here, p_at, o_at, tokens, v_in, p_in, o_in)
                row += 2


@compiled
def soften(s: Floats, p: Floats, o: Floats, top: Floats, mass: Floats, lanes: Floats, r: int, visible: int) -> None:
    """One online-softmax step of packed row r over BLOCK scores of which the first `visible` count.

    s, p: [R, BLOCK]. o: [R, D], rescaled. top: [R], the running maximum. mass: [R, LANES], the running sum by lane.
    lanes: [LANES], scratch. (Row views would cost more than the arithmetic: they count references.)
    """
    for j in range(LANES):
        lanes[j] = LOWEST
    for t in range(0, BLOCK, LANES):
        for j in range(LANES):
            value = s[r, t + j] if t + j < visible else LOWEST
            lanes[j] = value if value > lanes[j] else lanes[j]
    best = top[r]
    for j in range(LANES):
        best = lanes[j] if lanes[j] > best else best
    shrink = exp2(top[r] - best)
    top[r] = best
    for j in range(LANES):
        mass[r, j] *= shrink
    for d in range(o.shape[1]):
        o[r, d] *= shrink
    for t in range(BLOCK):
        weight = exp2(s[r, t] - best)
        p[r, t] = weight if t < visible else ZERO
    for t in range(0, BLOCK, LANES):
        for j in range(LANES):
            mass[r, j] += p[r, t + j]


@compiled
def one_block(
    item: int,
    q: Floats,
    out: Floats,
    k: int,
    v: int,
    k_scale: int,
    v_scale: int,
    groups: int,
    stride: int,
    scale_stride: int,
    table: Small,
    length: int,
    positions: Ints,
    head: int,
    scale: np.float32,
    page_size: int,
) -> None:
    """Some queries of one row, the heads of one kv head. q, out: [Q, G, D].

    k, v, k_scale, v_scale: addresses of the layer's pages, stride and scale_stride values apart. table: the row's
    pages. length: positions that the last query sees. positions: [Q], of the queries.
    """
    queries, heads, width = q.shape
    depth = width // groups
    rows = queries * heads
    padded = rows + rows % 2
    packed, o = np.zeros((padded, width), np.float32), np.zeros((padded, width), np.float32)
    s, part = np.zeros((padded, BLOCK), np.float32), np.zeros((padded, BLOCK), np.float32)
    p = np.zeros((padded, BLOCK), np.float32)
    mass, top, zero = np.zeros((padded, LANES), np.float32), np.full(padded, LOWEST), np.zeros(4, np.float32)
    lanes = np.zeros(LANES, np.float32)
    for i in range(queries):
        for g in range(heads):
            for d in range(width):
                packed[i * heads + g, d] = q[i, g, d] * scale
    for start in range(0, length, BLOCK):
        count, t = min(BLOCK, length - start), 0
        s[:] = 0
        while t < count:
            page, offset = table[(start + t) // page_size], (start + t) % page_size
            run = min(page_size - offset, count - t)
            here = head * page_size + offset
            at = k + item * (page * stride + here * width)
            factors = k_scale + 4 * (page * scale_stride + here * groups)
            for g in range(groups):
                scores(item, at + item * g * depth, packed, g * depth, depth, run, part, t, zero)
                for r in range(rows):
                    for j in range(run):
                        factor = load(factors + 4 * (j * groups + g)) if item == 1 else ONE
                        s[r, t + j] += part[r, t + j] * factor
            t += run
        for r in range(rows):
            visible = min(count, positions[r // heads] + 1 - start)
            if visible > 0:
                soften(s, p, o, top, mass, lanes, r, visible)
            else:
                p[r] = 0
        t = 0
        while t < count:
            page, offset = table[(start + t) // page_size], (start + t) % page_size
            run = min(page_size - offset, count - t)
            here = head * page_size + offset
            at = v + item * (page * stride + here * width)
            factors = v_scale + 4 * (page * scale_stride + here * groups)
            for g in range(groups):
                if item == 1:
                    for r in range(rows):
                        for j in range(run):
                            part[r, t + j] = p[r, t + j] * load(factors + 4 * (j * groups + g))
                    weigh(item, at + item * g * depth, part, t, run, o, g * depth, depth)
                else:
                    weigh(item, at, p, t, run, o, 0, width)
            t += run
    for i in range(queries):
        for g in range(heads):
            r = i * heads + g
            total = ZERO
            for j in range(LANES):
                total += mass[r, j]
            for d in range(width):
                out[i, g, d] = o[r, d] / total


@compiled_parallel
def all_blocks(
    item: int,
    q: Floats,
    out: Floats,
    k: int,
    v: int,
    k_scale: int,
    v_scale: int,
    groups: int,
    stride: int,
    scale_stride: int,
    table: Small,
    cu_q: Small,
    lengths: Small,
    blocks: Ints,
    scale: np.float32,
    page_size: int,
    kv_heads: int,
    parts: int,
) -> None:
    """blocks: [N, 3] row, first and past query of the row; dearest first, dealt out in turn. q, out: [T, H, D]."""
    heads = q.shape[1] // kv_heads
    for part in prange(parts):
        for unit in range(part, len(blocks) * kv_heads, parts):
            head, block = unit % kv_heads, blocks[unit // kv_heads]
            row, first, past = block[0], block[1], block[2]
            begin, before = cu_q[row], lengths[row] - (cu_q[row + 1] - cu_q[row])
            mine = slice(head * heads, (head + 1) * heads)
            one_block(
                item,
                q[begin + first : begin + past, mine],
                out[begin + first : begin + past, mine],
                k,
                v,
                k_scale,
                v_scale,
                groups,
                stride,
                scale_stride,
                table[row],
                before + past,
                np.arange(before + first, before + past),
                head,
                scale,
                page_size,
            )


@compiled
def store(
    x: Floats, values: int, scales: int, stride: int, scale_stride: int, groups: int, page_size: int, slots: Ints
) -> None:
    """Quantise x [T, kv_heads, D] into the pages at values and scales, stride and scale_stride values apart."""
    width = x.shape[2]
    depth = width // groups
    for t in range(len(slots)):
        page, offset = slots[t] // page_size, slots[t] % page_size
        for head in range(x.shape[1]):
            here = head * page_size + offset
            at, factors = values + page * stride + here * width, scales + 4 * (page * scale_stride + here * groups)
            for g in range(groups):
                first = g * depth
                largest, broken = ZERO, ZERO
                for d in range(first, first + depth):
                    size = abs(x[t, head, d])
                    largest = size if size > largest else largest
                    broken += x[t, head, d] * ZERO
                scale = max(largest / MOST, FLOOR) + broken  # NaN for a row with NaN or infinity
                store_at(factors + 4 * g, scale)
                for d in range(first, first + depth):
                    store_at(at + d, np.int8(np.rint(x[t, head, d] / scale)))


def supported(pages: LayerPages) -> bool:
    """Whether these kernels read the layout: sizes that registers divide; otherwise the reference runs."""
    group = pages.head_dim // pages.groups
    kinds = (torch.int8, torch.bfloat16, torch.float32)
    scales = pages.k_scale is None or pages.k_scale.dtype == torch.float32
    return scales and pages.page_size % COLUMNS == 0 and group % LANES == 0 and pages.k.dtype in kinds


def attention(q: Tensor, pages: LayerPages, plan: AttentionPlan, scale: float) -> Tensor:
    """Causal attention of ragged rows over their pages.

    q: [T, heads, head_dim] fp32, heads a multiple of kv_heads. scale multiplies q·k. Returns [T, heads, head_dim].
    Every position up to a query's own must have been written; nothing beyond is used.
    """
    if not supported(pages):
        return reference.attention(q, pages, plan, scale)
    out = torch.empty(q.shape)
    scales = (pages.k_scale, pages.v_scale)
    k_scale, v_scale = (0 if s is None else s.data_ptr() for s in scales)
    run_parallel(
        all_blocks,
        pages.k.dtype.itemsize,
        q.contiguous().numpy(),
        out.numpy(),
        pages.k.data_ptr(),
        pages.v.data_ptr(),
        k_scale,
        v_scale,
        pages.groups,
        pages.page_stride,
        pages.scale_stride,
        plan.block_table.numpy(),
        plan.cu_q.numpy(),
        plan.lengths.numpy(),
        plan.blocks.numpy(),
        np.float32(scale * LOG2_E),
        pages.page_size,
        pages.kv_heads,
        get_threads(),
    )
    return out


def write_kv(k: Tensor, v: Tensor, pages: LayerPages, slots: Tensor) -> None:
    """Store one step's keys and values, quantised where the pages are.

    k, v: [T, kv_heads, head_dim] float. slots: int64 [T], page * page_size + offset, all different.
    """
    if pages.k_scale is None or pages.v_scale is None or pages.k_scale.dtype != torch.float32:
        reference.write_kv(k, v, pages, slots)
        return
    for x, values, scales in ((k, pages.k, pages.k_scale), (v, pages.v, pages.v_scale)):
        store(
            x.float().contiguous().numpy(),
            values.data_ptr(),
            scales.data_ptr(),
            pages.page_stride,
            pages.scale_stride,
            pages.groups,
            pages.page_size,
            slots.numpy(),
        )
