"""One piece of paged attention on CPU: a block of queries over CHUNK positions of one kv head.

Keys and values are widened tile by tile, in registers and the first-level cache, from where they lie; vectors.py has
the innermost loops.
"""

import numpy as np
import torch
from llvmlite import binding
from numpy.typing import NDArray

from tenantry.kernels.attention.plan import CHUNK
from tenantry.kernels.attention.vectors import (
    BFLOAT16,
    BLOCK,
    FLOAT16,
    FLOAT32,
    INT8,
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
from tenantry.kernels.tiles import LANES

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16, torch.int8: INT8}
SIZES = np.array([4, 2, 2, 1])
DEPTH = 128  # dimensions of keys widened at a time: with TILE positions, half of a first-level cache
HIDDEN, ZERO, ONE = np.float32(-np.inf), np.float32(0), np.float32(1)
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
