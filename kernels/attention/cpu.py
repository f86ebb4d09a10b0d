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
from torch import Tensor

from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.pieces import HALF_SCALES, KINDS, Floats, Ints, Small, deliver, join, one_piece
from tenantry.kernels.attention.plan import CHUNK, LONG, AttentionPlan
from tenantry.kernels.attention.vectors import TILE
from tenantry.kernels.compiling import compiled
from tenantry.kernels.pool import fan_out, get_parts, get_threads

SERIAL = 1 << 18  # multiply-adds that one core does in the time that waking a second takes
LOG2_E = math.log2(math.e)
NO_FLOATS = np.zeros((0, 0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)


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
