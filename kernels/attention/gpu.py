"""Paged attention in Triton: rows of few queries split over fixed pieces of positions and joined in order, rows of
many queries in one pass. Deterministic: how a row is computed depends on its own number of queries alone.

Rows of one query (decode), of up to NODES (drafts, trees, short chunks) and of more (prefill) each have a launch with
tiles of their own. int8 is widened to the queries' dtype, which holds it exactly, and scales never touch elements:
each group of dimensions has products of its own, whose scores and weights its scales multiply. Long prefill chunks
(512 queries and more over a cached prefix) take the same one-pass kernel, which widens the prefix once per LONG
queries in the loop: no scratch copy of the prefix is made, which LMDeploy's flattening pays 3 % of the attention's
time for.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code=assignment
# ruff: noqa: ANN001, ANN201, RUF005

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.plan import CHUNK, LONG, SHORT, AttentionPlan

POSITIONS = 64  # per product; half as many where groups share the registers
LEAST = 16  # inner size of a product of tensor cores
LOG2_E = 1.4426950408889634


@triton.jit
def take(store, offsets, d, inside, live, WHOLE: tl.constexpr, MASKED: tl.constexpr):
    """Stored values [N, BLOCK] of one group, 0 outside. offsets: where each position's values begin. d: the group's
    dimensions, all of them real where WHOLE."""
    at = store + offsets[:, None] + d[None, :]
    if MASKED:
        return tl.load(at, mask=live[:, None] & inside[None, :], other=0)
    if WHOLE:
        return tl.load(at)
    return tl.load(at, mask=inside[None, :], other=0)


@triton.jit
def step(
    packed, top, mass, totals, k, v, k_scale, v_scale, table, head, at, stop, seen, before, masks, scale, stride,
    scale_stride,
    D: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr, TREE: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One online-softmax step of packed queries over N positions from `at`. Unless MASKED all are seen by all. packed
    and totals: tuples of [M, BLOCK], a group each; a group's scales multiply its scores and its weights."""
    SIZE: tl.constexpr = D // GROUPS
    WHOLE: tl.constexpr = SIZE == BLOCK
    position = at + tl.arange(0, N)
    i = tl.arange(0, BLOCK)
    live = position < stop
    page = tl.load(table + position // PAGE, mask=live, other=0).to(tl.int64)
    place = head * PAGE + position % PAGE
    offsets, scales = page * stride + place * D, page * scale_stride + place * GROUPS
    kind = packed[0].dtype
    s = tl.zeros((M, N), tl.float32)
    for g in tl.static_range(GROUPS):
        keys = take(k, offsets, g * SIZE + i, i < SIZE, live, WHOLE, MASKED)
        part = tl.dot(packed[g], tl.trans(keys.to(kind)), input_precision="ieee")
        if QUANTISED:
            part *= (tl.load(k_scale + scales + g, mask=live, other=0.0).to(tl.float32) * scale)[None, :]
        else:
            part *= scale
        s += part
    if MASKED:
        visible = live[None, :] & (position[None, :] < seen[:, None])
        if TREE:
            bit = tl.minimum(tl.maximum(position - before, 0), 63).to(tl.int64)
            free = (position < before)[None, :] | (masks == 0)[:, None]
            visible = visible & (free | ((masks[:, None] >> bit[None, :]) & 1 == 1))
        s = tl.where(visible, s, float("-inf"))
    best = tl.maximum(top, tl.max(s, 1))
    p = tl.exp2(s - best[:, None])
    shrink = tl.exp2(top - best)
    mass = mass * shrink + tl.sum(p, 1)
    sums = ()
    for g in tl.static_range(GROUPS):
        values = take(v, offsets, g * SIZE + i, i < SIZE, live, WHOLE, MASKED).to(kind)
        total = totals[g] * shrink[:, None]
        if QUANTISED:
            factor = tl.load(v_scale + scales + g, mask=live, other=0.0).to(tl.float32)
            if kind == tl.float16:  # weights times small scales would sink below what fp16 holds
                largest = tl.maximum(tl.max(factor, 0), 1e-30)
                weights = p * (factor / largest)[None, :]
                total += tl.dot(weights.to(kind), values, input_precision="ieee") * largest
            else:
                total += tl.dot((p * factor[None, :]).to(kind), values, input_precision="ieee")
        else:
            total += tl.dot(p.to(kind), values, input_precision="ieee")
        sums = sums + (total,)
    return best, mass, sums


@triton.jit
def attend(
    q, k, v, k_scale, v_scale, table, cu_q, lengths, seen, blocks, tree, scale, block, head, start, most, heads,
    stride, scale_stride, table_width,
    D: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    TREE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Unnormalised attention of a block of queries over at most `most` positions from `start`. Returns the lines of
    q that the M packed rows are, which of them are real, the running maximum, mass and weighted sums by group."""
    row = tl.load(blocks + 3 * block)
    first, past = tl.load(blocks + 3 * block + 1), tl.load(blocks + 3 * block + 2)
    begin = tl.load(cu_q + row)
    before = tl.load(lengths + row) - (tl.load(cu_q + row + 1) - begin)
    stop = tl.minimum(tl.load(seen + begin + past - 1), start + most)
    m, i = tl.arange(0, M), tl.arange(0, BLOCK)
    query = first + m // G
    mine = query < past
    line = (begin + query) * heads + head * G + m % G
    packed, totals = (), ()
    for g in tl.static_range(GROUPS):
        d = g * (D // GROUPS) + i
        mask = mine[:, None] & (i < D // GROUPS)[None, :]
        packed = packed + (tl.load(q + line[:, None] * D + d[None, :], mask=mask, other=0.0),)
        totals = totals + (tl.zeros((M, BLOCK), tl.float32),)
    own = tl.load(seen + begin + query, mask=mine, other=0)
    masks = tl.zeros((M,), tl.int64)
    if TREE:
        masks = tl.load(tree + begin + query, mask=mine, other=0)
    top = tl.full((M,), -1e30, tl.float32)
    mass = tl.zeros((M,), tl.float32)
    free = start + tl.maximum(tl.minimum(before, stop) - start, 0) // N * N
    for at in range(start, free, N):
        top, mass, totals = step(
            packed, top, mass, totals, k, v, k_scale, v_scale, table + row * table_width, head, at, stop, own, before,
            masks, scale, stride, scale_stride, D, PAGE, GROUPS, QUANTISED, TREE, M, N, BLOCK, False,
        )  # fmt: skip
    for at in range(free, stop, N):
        top, mass, totals = step(
            packed, top, mass, totals, k, v, k_scale, v_scale, table + row * table_width, head, at, stop, own, before,
            masks, scale, stride, scale_stride, D, PAGE, GROUPS, QUANTISED, TREE, M, N, BLOCK, True,
        )  # fmt: skip
    return line, mine, top, mass, totals


@triton.jit
def piece_kernel(
    q, k, v, k_scale, v_scale, sums, tops, masses, table, cu_q, lengths, seen, blocks, starts, owners, counts, tree,
    scale, first_block, past_block, kv_heads, heads, stride, scale_stride, table_width,
    D: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    TREE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """sums [P, kv heads, M, D], tops and masses [P, kv heads, M]: the pieces of blocks first_block to past_block - 1,
    of those there are. One program per (piece, kv head); programs beyond the pieces leave at once."""
    piece = tl.load(starts + first_block) + tl.program_id(0)
    head = tl.program_id(1)
    if piece < tl.load(starts + tl.minimum(past_block, tl.load(counts + 1))):
        block = tl.load(owners + piece)
        start = (piece - tl.load(starts + block)) * WIDTH
        _, mine, top, mass, totals = attend(
            q, k, v, k_scale, v_scale, table, cu_q, lengths, seen, blocks, tree, scale, block, head, start, WIDTH,
            heads, stride, scale_stride, table_width, D, G, PAGE, GROUPS, QUANTISED, TREE, M, N, BLOCK,
        )  # fmt: skip
        m, i = tl.arange(0, M), tl.arange(0, BLOCK)
        where = ((piece - tl.load(starts + first_block)) * kv_heads + head).to(tl.int64) * M + m
        for g in tl.static_range(GROUPS):
            at = sums + where[:, None] * D + (g * (D // GROUPS) + i)[None, :]
            tl.store(at, totals[g], mask=mine[:, None] & (i < D // GROUPS)[None, :])
        tl.store(tops + where, top, mask=mine)
        tl.store(masses + where, mass, mask=mine)


@triton.jit
def join_kernel(
    sums, tops, masses, out, cu_q, blocks, starts, counts, first_block, past_block, kv_heads, heads,
    D: tl.constexpr, G: tl.constexpr, M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out [T, H, D] from each block's pieces, in order. One program per (block, kv head)."""
    block, head = first_block + tl.program_id(0), tl.program_id(1)
    if block < tl.minimum(past_block, tl.load(counts + 1)):
        m, d = tl.arange(0, M), tl.arange(0, BLOCK_D)
        query = tl.load(blocks + 3 * block + 1) + m // G
        mine = query < tl.load(blocks + 3 * block + 2)
        line = (tl.load(cu_q + tl.load(blocks + 3 * block)) + query) * heads + head * G + m % G
        mask = mine[:, None] & (d < D)[None, :]
        top = tl.full((M,), -1e30, tl.float32)
        mass = tl.zeros((M,), tl.float32)
        total = tl.zeros((M, BLOCK_D), tl.float32)
        base = tl.load(starts + first_block)
        for piece in range(tl.load(starts + block) - base, tl.load(starts + block + 1) - base):
            where = (piece * kv_heads + head).to(tl.int64) * M + m
            more = tl.load(tops + where, mask=mine, other=-1e30)
            best = tl.maximum(top, more)
            old, new = tl.exp2(top - best), tl.exp2(more - best)
            mass = mass * old + tl.load(masses + where, mask=mine, other=1.0) * new
            part = tl.load(sums + where[:, None] * D + d[None, :], mask=mask, other=0.0)
            total = total * old[:, None] + part * new[:, None]
            top = best
        tl.store(
            out + line[:, None] * D + d[None, :],
            (total / tl.where(mine, mass, 1.0)[:, None]).to(out.dtype.element_ty),
            mask=mask,
        )


@triton.jit
def long_kernel(
    q, k, v, k_scale, v_scale, out, table, cu_q, lengths, seen, blocks, tree, scale, heads, stride, scale_stride,
    table_width,
    D: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    TREE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out [T, H, D] of blocks whose rows have many queries, in one pass. One program per (block, kv head)."""
    line, mine, _, mass, totals = attend(
        q, k, v, k_scale, v_scale, table, cu_q, lengths, seen, blocks, tree, scale, tl.program_id(0),
        tl.program_id(1), 0, 1 << 30, heads, stride, scale_stride, table_width,
        D, G, PAGE, GROUPS, QUANTISED, TREE, M, N, BLOCK,
    )  # fmt: skip
    i = tl.arange(0, BLOCK)
    mass = tl.where(mine, mass, 1.0)[:, None]
    for g in tl.static_range(GROUPS):
        at = out + line[:, None] * D + (g * (D // GROUPS) + i)[None, :]
        mask = mine[:, None] & (i < D // GROUPS)[None, :]
        tl.store(at, (totals[g] / mass).to(out.dtype.element_ty), mask=mask)


def attention(q: Tensor, pages: LayerPages, plan: AttentionPlan, scale: float) -> Tensor:
    """Attention of ragged rows over their pages.

    q: [T, heads, head_dim], heads a multiple of kv_heads; with a capacity, of as many tokens as that says. scale
    multiplies q·k. Returns [T, heads, head_dim] in q's dtype, 0 for tokens that a plan of a capacity does not have.
    Every position that the plan lets a query see must have been written; nothing beyond is used.
    """
    tokens, heads, width = q.shape
    q = q.contiguous()
    out = torch.empty_like(q) if plan.capacity is None else torch.zeros_like(q)
    if tokens == 0:
        return out
    group, kv_heads = heads // pages.kv_heads, pages.kv_heads
    block = max(LEAST, triton.next_power_of_2(width // pages.groups))
    # Absent tensors are never read: q stands in for them.
    scales = (q if pages.k_scale is None else pages.k_scale, q if pages.v_scale is None else pages.v_scale)
    shape: dict[str, Any] = {
        "D": width, "G": group, "PAGE": pages.page_size, "GROUPS": pages.groups,
        "QUANTISED": pages.k_scale is not None, "TREE": plan.tree is not None, "BLOCK": block,
        "N": POSITIONS if pages.groups == 1 else POSITIONS // 2,
    }  # fmt: skip
    tree = q if plan.tree is None else plan.tree
    read = (plan.block_table, plan.cu_q, plan.lengths, plan.seen, plan.blocks)
    strides = (pages.page_stride, pages.scale_stride, plan.block_table.shape[1])
    long, short, single = plan.kinds
    if plan.capacity is not None:
        queries, most = plan.capacity.queries, plan.capacity.blocks
        long, short, single = (0, 0, most) if queries == 1 else (0, most, 0)
    if long:
        rows = max(16, triton.next_power_of_2(LONG * group))
        long_kernel[(long, kv_heads)](
            q, pages.k, pages.v, *scales, out, *read, tree, scale * LOG2_E, heads, *strides,
            M=rows, num_warps=8 if rows >= 128 else 4, **shape,
        )  # fmt: skip
    for first, many, queries in ((long, short, SHORT), (long + short, single, 1)):
        if not many:
            continue
        rows = max(16, triton.next_power_of_2(queries * group))
        pieces = plan.owners.numel()  # of every kind: a bound that needs nothing from the device
        sums = torch.empty((pieces, kv_heads, rows, width), dtype=torch.float32, device=q.device)
        tops, masses = torch.empty((2, pieces, kv_heads, rows), dtype=torch.float32, device=q.device)
        piece_kernel[(pieces, kv_heads)](
            q, pages.k, pages.v, *scales, sums, tops, masses, *read, plan.starts, plan.owners, plan.counts, tree,
            scale * LOG2_E, first, first + many, kv_heads, heads, *strides, M=rows, WIDTH=CHUNK, num_warps=4, **shape,
        )  # fmt: skip
        join_kernel[(many, kv_heads)](
            sums, tops, masses, out, plan.cu_q, plan.blocks, plan.starts, plan.counts, first, first + many, kv_heads,
            heads, D=width, G=group, M=rows, BLOCK_D=triton.next_power_of_2(width),
        )  # fmt: skip
    return out
