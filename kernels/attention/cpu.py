"""Paged attention on CPU: int8 pages are read where they lie and widened in registers, never gathered.

One unit of work is (row, block of queries, kv head), all heads of the group packed, or a single piece of it where a
few long rows must feed every core. Softmax is over pieces of CHUNK positions, joined in order (Milakov and Gimelshein
2018; Flash-Decoding: Dao et al. 2023); pieces lie at absolute positions. So a query's result is the same bit for bit
however its prompt was chunked, whatever shares the batch and on however many cores.
"""

import math
from typing import Any

import numpy as np
import torch
from llvmlite import binding
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.plan import CHUNK, LONG, AttentionPlan
from tenantry.kernels.attention.vectors import (
    BFLOAT16,
    BLOCK,
    FLOAT16,
    FLOAT32,
    INT8,
    LOWEST,
    TILE,
    finish,
    fold,
    make_keys,
    make_product,
    make_values,
    soften,
    widen_scales,
)
from tenantry.kernels.compiling import compiled
from tenantry.kernels.pool import fan_out, get_parts, get_threads
from tenantry.kernels.tiles import LANES

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16, torch.int8: INT8}
SIZES = np.array([4, 2, 2, 1])
DEPTH = 128  # dimensions of keys widened at a time: with TILE positions, half of a first-level cache
SERIAL = 1 << 18  # multiply-adds that one core does in the time that waking a second takes
LOG2_E = math.log2(math.e)
HIDDEN, LEAST, ZERO, ONE = np.float32(-np.inf), np.float32(LOWEST), np.float32(0), np.float32(1)
HALF_SCALES = bool(binding.get_host_cpu_features().get("f16c", False))

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Small = NDArray[np.int32]

keys_f32, keys_bf16, keys_f16 = (make_keys(kind, False) for kind in (FLOAT32, BFLOAT16, FLOAT16))
keys_int8, keys_scaled = make_keys(INT8, False), make_keys(INT8, True)
values_f32, values_bf16, values_f16 = (make_values(kind, False) for kind in (FLOAT32, BFLOAT16, FLOAT16))
values_int8, values_scaled = make_values(INT8, False), make_values(INT8, True)
product, narrow_product = make_product(2), make_product(1)


@compiled
def widen_keys(
    kind: int, scaled: bool, keys: int, values: int, where: int, ahead: int, out: int, depth: int, factors: int
) -> None:
    """See vectors.make_keys."""
    if kind == INT8 and scaled:
        keys_scaled(keys, values, where, ahead, out, depth, factors)
    elif kind == INT8:
        keys_int8(keys, values, where, ahead, out, depth, factors)
    elif kind == BFLOAT16:
        keys_bf16(keys, values, where, ahead, out, depth, factors)
    elif kind == FLOAT16:
        keys_f16(keys, values, where, ahead, out, depth, factors)
    else:
        keys_f32(keys, values, where, ahead, out, depth, factors)


@compiled
def widen_values(
    kind: int, scaled: bool, values: int, where: int, out: int, depth: int, stride: int, factors: int
) -> None:
    """See vectors.make_values."""
    if kind == INT8 and scaled:
        values_scaled(values, where, out, depth, stride, factors)
    elif kind == INT8:
        values_int8(values, where, out, depth, stride, factors)
    elif kind == BFLOAT16:
        values_bf16(values, where, out, depth, stride, factors)
    elif kind == FLOAT16:
        values_f16(values, where, out, depth, stride, factors)
    else:
        values_f32(values, where, out, depth, stride, factors)


@compiled
def locate(
    layer: tuple[int, ...], head: int, table: Small, start: int, length: int, where: Ints, factors: Floats
) -> None:
    """Byte offsets of positions from `start`, to where [CHUNK + TILE]; their scales to factors [2, groups, CHUNK].
    Places past the last position repeat it, with a scale of one."""
    kind, _, _, k_scale, v_scale, groups, width, page_size, stride, scale_stride = layer
    item = SIZES[kind]
    count, t = min(CHUNK + TILE, length - start), 0
    entry, offset = start // page_size, start % page_size  # one division: they cost more than a page's work
    while t < count:
        page = np.int64(table[entry])
        run = min(page_size - offset, count - t)
        first = head * page_size + offset
        for j in range(run):
            where[t + j] = item * (page * stride + (first + j) * width)
        scored = min(run, CHUNK - t)
        if kind == INT8 and scored > 0:
            at = 2 * (page * scale_stride + first * groups)
            for g in range(groups):
                widen_scales(k_scale + at + 2 * g, factors[0, g, t:].ctypes.data, scored, 2 * groups)
                widen_scales(v_scale + at + 2 * g, factors[1, g, t:].ctypes.data, scored, 2 * groups)
        t, entry, offset = t + run, entry + 1, 0
    for t in range(count, CHUNK + TILE):
        where[t] = where[count - 1]
    if kind == INT8:
        for t in range(count, CHUNK):
            factors[:, :, t] = ONE


@compiled
def one_piece(
    layer: tuple[int, ...],
    head: int,
    heads: int,
    table: Small,
    start: int,
    length: int,
    seen: Small,
    masks: Ints,
    before: int,
    q: Floats,
    s: Floats,
    tile: Floats,
    where: Ints,
    factors: Floats,
    ones: Floats,
    o: Floats,
    top: Floats,
    mass: Floats,
) -> None:
    """Unnormalised attention of a block's queries over CHUNK positions from `start`.

    heads: of the group. length: positions that any query sees. seen: [Q]. masks: [Q] of a tree over the positions
    from `before`, 0 for causal queries; or empty. q: [Q * heads, width], scaled. o: like q, top, mass: [Q * heads],
    the results. The rest is scratch.
    """
    kind, k, v, _, _, groups, width, _, _, _ = layer
    count = min(CHUNK, length - start)
    padded = (count + TILE - 1) // TILE * TILE
    rows, depth, scaled = len(seen) * heads, width // groups, groups > 1
    locate(layer, head, table, start, length, where, factors)
    q_at, s_at, o_at, tile_at = q.ctypes.data, s.ctypes.data, o.ctypes.data, tile.ctypes.data
    where_at, k_at, v_at = where.ctypes.data, factors.ctypes.data, factors[1].ctypes.data
    q_in, s_in, item = 4 * width, 4 * CHUNK, SIZES[kind]
    for r in range(rows):
        s[r, :padded] = ZERO
        o[r] = ZERO
    for t in range(0, padded, TILE):
        for g in range(groups):
            for first in range(g * depth, (g + 1) * depth, DEPTH):
                size, here, mine = min((g + 1) * depth - first, DEPTH), item * first, k_at + 4 * (g * CHUNK + t)
                widen_keys(kind, scaled, k + here, v + here, where_at + 8 * t, 8 * TILE, tile_at, size, mine)
                for r in range(0, rows, BLOCK):
                    weights, out = q_at + r * q_in + 4 * first, s_at + r * s_in + 4 * t
                    product(min(BLOCK, rows - r), tile_at, weights, out, size, 4 * TILE, q_in, s_in)
    if len(masks):
        for i in range(len(seen)):
            if masks[i]:
                for t in range(max(0, before - start), count):
                    if not (masks[i] >> (start + t - before)) & 1:
                        s[i * heads : (i + 1) * heads, t] = HIDDEN
    none = ones.ctypes.data
    for r in range(rows):
        visible = min(count, seen[r // heads] - start)
        by_k, by_v = (none, none) if scaled or kind != INT8 else (k_at, v_at)
        soften(s_at + r * s_in, padded, visible, by_k, by_v, top[r:].ctypes.data, mass[r:].ctypes.data)
    for t in range(0, padded, TILE):
        for g in range(groups):
            first, mine = g * depth, v_at + 4 * (g * CHUNK + t)
            widen_values(kind, scaled, v + item * first, where_at + 8 * t, tile_at + 4 * first, depth, q_in, mine)
        for r in range(0, rows, BLOCK):
            many, weights, out, column = min(BLOCK, rows - r), s_at + r * s_in + 4 * t, o_at + r * q_in, 0
            while column + 2 * LANES <= width:
                product(many, tile_at + 4 * column, weights, out + 4 * column, TILE, q_in, s_in, q_in)
                column += 2 * LANES
            if column < width:
                narrow_product(many, tile_at + 4 * column, weights, out + 4 * column, TILE, q_in, s_in, q_in)


@compiled
def join(o: Floats, top: Floats, mass: Floats, o2: Floats, top2: Floats, mass2: Floats, rows: int) -> None:
    """Fold a later piece into what came before it."""
    for r in range(rows):
        fold(
            o[r].ctypes.data,
            top[r:].ctypes.data,
            mass[r:].ctypes.data,
            o2[r].ctypes.data,
            top2[r:].ctypes.data,
            mass2[r:].ctypes.data,
            o.shape[1],
        )


@compiled
def deliver(o: Floats, mass: Floats, out: Floats, first: int, past: int, head: int, heads: int) -> None:
    """Normalise a block's rows into out [T, H, D], tokens first .. past - 1 of one group."""
    for i in range(past - first):
        for g in range(heads):
            r = i * heads + g
            at = out[first + i, head * heads + g].ctypes.data
            finish(o[r].ctypes.data, mass[r:].ctypes.data, at, o.shape[1])


@compiled
def some_units(
    part: int,
    parts: int,
    split: bool,
    q: Floats,
    out: Floats,
    layer: tuple[int, ...],
    kv_heads: int,
    scale: np.float32,
    table: Small,
    cu_q: Small,
    lengths: Small,
    seen: Small,
    blocks: Small,
    starts: Small,
    owners: Small,
    tree: Ints,
    sums: Floats,
    tops: Floats,
    masses: Floats,
) -> None:
    """Every parts-th unit: a block with all of its pieces, or where split a piece, left in sums [P * kv_heads, rows,
    D], tops and masses."""
    heads, width = q.shape[1] // kv_heads, q.shape[2]
    most = LONG * heads
    packed, s = np.empty((most, width), np.float32), np.empty((most, CHUNK), np.float32)
    tile = np.empty(TILE * width, np.float32)
    where, factors = np.empty(CHUNK + TILE, np.int64), np.ones((2, layer[5], CHUNK), np.float32)
    ones = np.ones(CHUNK, np.float32)
    o, top, mass = (
        np.empty((2, most, width), np.float32),
        np.ones((2, most), np.float32),
        np.ones((2, most), np.float32),
    )
    for unit in range(part, (len(owners) if split else len(blocks)) * kv_heads, parts):
        head, index = unit % kv_heads, unit // kv_heads
        block = owners[index] if split else index
        row, first, past = blocks[block, 0], blocks[block, 1], blocks[block, 2]
        begin, rows = cu_q[row], (past - first) * heads
        before = lengths[row] - (cu_q[row + 1] - begin)
        mine = seen[begin + first : begin + past]
        masks = tree[begin + first : begin + past] if len(tree) else tree
        for r in range(rows):
            for d in range(width):
                packed[r, d] = q[begin + first + r // heads, head * heads + r % heads, d] * scale
        chunk, stop, place = 0, starts[block + 1] - starts[block], 0
        if split:
            chunk, stop = index - starts[block], index - starts[block] + 1
        while chunk < stop:
            if split:
                o1, top1, mass1 = sums[unit], tops[unit], masses[unit]
            else:
                o1, top1, mass1 = o[place], top[place], mass[place]
            one_piece(
                layer,
                head,
                heads,
                table[row],
                chunk * CHUNK,
                mine[-1],
                mine,
                masks,
                before,
                packed,
                s,
                tile,
                where,
                factors,
                ones,
                o1,
                top1,
                mass1,
            )
            if place:
                join(o[0], top[0], mass[0], o1, top1, mass1, rows)
            place, chunk = 1, chunk + 1
        if not split:
            deliver(o[0], mass[0], out, begin + first, begin + past, head, heads)


@compiled
def join_units(
    part: int,
    parts: int,
    out: Floats,
    kv_heads: int,
    cu_q: Small,
    blocks: Small,
    starts: Small,
    sums: Floats,
    tops: Floats,
    masses: Floats,
) -> None:
    """Every parts-th block's pieces to its result."""
    heads = out.shape[1] // kv_heads
    for unit in range(part, len(blocks) * kv_heads, parts):
        head, block = unit % kv_heads, unit // kv_heads
        row, first, past = blocks[block, 0], blocks[block, 1], blocks[block, 2]
        at = starts[block] * kv_heads + head
        for piece in range(starts[block] + 1, starts[block + 1]):
            i = piece * kv_heads + head
            join(sums[at], tops[at], masses[at], sums[i], tops[i], masses[i], (past - first) * heads)
        deliver(sums[at], masses[at], out, cu_q[row] + first, cu_q[row] + past, head, heads)


@compiled
def all_units(
    parts: int,
    split: bool,
    q: Floats,
    out: Floats,
    layer: tuple[int, ...],
    kv_heads: int,
    scale: np.float32,
    table: Small,
    cu_q: Small,
    lengths: Small,
    seen: Small,
    blocks: Small,
    starts: Small,
    owners: Small,
    tree: Ints,
    sums: Floats,
    tops: Floats,
    masses: Floats,
) -> None:
    """q, out: [T, H, D]. Units are dealt out in turn, dearest first."""
    fan_out(
        some_units,
        parts,
        (
            split,
            q,
            out,
            layer,
            kv_heads,
            scale,
            table,
            cu_q,
            lengths,
            seen,
            blocks,
            starts,
            owners,
            tree,
            sums,
            tops,
            masses,
        ),
    )
    if split:
        join_units(0, 1, out, kv_heads, cu_q, blocks, starts, sums, tops, masses)


def supported(pages: LayerPages) -> bool:
    """Whether these kernels read the layout: sizes that registers divide; otherwise the reference runs."""
    scales = pages.k_scale is None or (pages.k_scale.dtype == torch.float16 and HALF_SCALES)
    return scales and pages.head_dim // pages.groups % 16 == 0 and pages.k.dtype in KINDS


NO_FLOATS = np.zeros((0, 0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)


def attention(q: Tensor, pages: LayerPages, plan: AttentionPlan, scale: float) -> Tensor:
    """Attention of ragged rows over their pages.

    q: [T, heads, head_dim] fp32, heads a multiple of kv_heads. scale multiplies q·k. Returns [T, heads, head_dim].
    Every position that the plan lets a query see must have been written; nothing beyond is used. Raises ValueError
    for a plan with a capacity: nothing is captured here.
    """
    if plan.capacity is not None:
        raise ValueError("plan: with a capacity, which only captured graphs want")
    if not supported(pages):
        return reference.attention(q, pages, plan, scale)
    out = torch.empty(q.shape)
    _, heads, width = q.shape
    group, threads = heads // pages.kv_heads, get_threads()
    if plan.cost * heads * width < SERIAL:
        threads = 1
    spread = plan.owners.numel() * pages.kv_heads
    split = threads > 1 and plan.dearest > 1 and 2 * plan.dearest * threads > spread
    partial = NO_FLOATS
    if split:
        rows = group * min(LONG, max(plan.q_lens))
        partial = np.empty((spread, rows, width), np.float32), *np.empty((2, spread, rows), np.float32)
    layer = (
        KINDS[pages.k.dtype],
        pages.k.data_ptr(),
        pages.v.data_ptr(),
        0 if pages.k_scale is None else pages.k_scale.data_ptr(),
        0 if pages.v_scale is None else pages.v_scale.data_ptr(),
        pages.groups,
        width,
        pages.page_size,
        pages.page_stride,
        pages.scale_stride,
    )
    work: tuple[Any, ...] = (
        split,
        q.contiguous().numpy(),
        out.numpy(),
        layer,
        pages.kv_heads,
        np.float32(scale * LOG2_E),
        *plan.arrays,
        *partial,
    )
    all_units(get_parts() if threads > 1 else 1, *work)
    return out
