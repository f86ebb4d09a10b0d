"""Paged attention in Triton: rows of few queries split over fixed pieces of positions and joined in order, rows of
many queries in one pass. Deterministic: how a row is computed depends on its own number of queries alone.

Rows of one query (decode), of up to NODES (drafts, trees, short chunks) and of more (prefill) each have a launch with
tiles of their own. int8 is widened to the queries' dtype, which holds it exactly; with one scale per token and head
the scales multiply scores and weights, with more they multiply elements. Long prefill chunks (512 queries and more
over a cached prefix) take the same one-pass kernel, which widens the prefix once per LONG queries in the loop: no
scratch copy of the prefix is made, which LMDeploy's flattening pays 3 % of the attention's time for.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.plan import CHUNK, LONG, SHORT, AttentionPlan

BLOCK = 64  # positions per product
LOG2_E = 1.4426950408889634


@triton.jit
def take(store, offsets, d, live, D: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr):
    """Stored values [BLOCK, BLOCK_D], 0 outside. offsets: where each position's values begin."""
    at = store + offsets[:, None] + d[None, :]
    if MASKED:
        return tl.load(at, mask=live[:, None] & (d < D)[None, :], other=0)
    if D == BLOCK_D:
        return tl.load(at)
    return tl.load(at, mask=(d < D)[None, :], other=0)


@triton.jit
def step(
    packed, top, mass, total, k, v, k_scale, v_scale, table, head, at, stop, seen, before, masks, stride,
    scale_stride,
    D: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr, TREE: tl.constexpr,
    N: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One online-softmax step of packed queries over N positions from `at`. Unless MASKED all are seen by all."""
    position = at + tl.arange(0, N)
    d = tl.arange(0, BLOCK_D)
    live = position < stop
    page = tl.load(table + position // PAGE, mask=live, other=0).to(tl.int64)
    place = head * PAGE + position % PAGE
    keys = take(k, page * stride + place * D, d, live, D, BLOCK_D, MASKED)
    values = take(v, page * stride + place * D, d, live, D, BLOCK_D, MASKED)
    scales = page * scale_stride + place * GROUPS
    if QUANTISED and GROUPS > 1:
        spread = scales[:, None] + (d // (D // GROUPS))[None, :]
        inside = live[:, None] & (d < D)[None, :]
        keys = keys.to(tl.float32) * tl.load(k_scale + spread, mask=inside, other=0.0).to(tl.float32)
        values = values.to(tl.float32) * tl.load(v_scale + spread, mask=inside, other=0.0).to(tl.float32)
    kind = packed.dtype
    s = tl.dot(packed, tl.trans(keys.to(kind)), input_precision="ieee")
    if QUANTISED and GROUPS == 1:
        s = s * tl.load(k_scale + scales, mask=live, other=0.0).to(tl.float32)[None, :]
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
    total = total * shrink[:, None]
    if QUANTISED and GROUPS == 1:
        factor = tl.load(v_scale + scales, mask=live, other=0.0).to(tl.float32)
        if kind == tl.float16:  # weights times small scales would sink below what fp16 holds
            largest = tl.maximum(tl.max(factor, 0), 1e-30)
            p = p * (factor / largest)[None, :]
            total += tl.dot(p.to(kind), values.to(kind), input_precision="ieee") * largest
        else:
            p = p * factor[None, :]
            total += tl.dot(p.to(kind), values.to(kind), input_precision="ieee")
    else:
        total += tl.dot(p.to(kind), values.to(kind), input_precision="ieee")
    return best, mass, total


@triton.jit
def attend(
    q, k, v, k_scale, v_scale, table, cu_q, lengths, seen, blocks, tree, scale, block, head, start, most, heads,
    stride, scale_stride, table_width,
    D: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    TREE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Unnormalised attention of a block of queries over at most `most` positions from `start`. Returns the lines of
    q that the M packed rows are, which of them are real, the running maximum, mass and weighted sum."""
    row = tl.load(blocks + 3 * block)
    first, past = tl.load(blocks + 3 * block + 1), tl.load(blocks + 3 * block + 2)
    begin = tl.load(cu_q + row)
    before = tl.load(lengths + row) - (tl.load(cu_q + row + 1) - begin)
    stop = tl.minimum(tl.load(seen + begin + past - 1), start + most)
    m, d = tl.arange(0, M), tl.arange(0, BLOCK_D)
    query = first + m // G
    mine = query < past
    line = (begin + query) * heads + head * G + m % G
    packed = tl.load(q + line[:, None] * D + d[None, :], mask=mine[:, None] & (d < D)[None, :], other=0.0)
    packed = (packed.to(tl.float32) * scale).to(packed.dtype)
    own = tl.load(seen + begin + query, mask=mine, other=0)
    masks = tl.zeros((M,), tl.int64)
    if TREE:
        masks = tl.load(tree + begin + query, mask=mine, other=0)
    top = tl.full((M,), -1e30, tl.float32)
    mass = tl.zeros((M,), tl.float32)
    total = tl.zeros((M, BLOCK_D), tl.float32)
    free = start + tl.maximum(tl.minimum(before, stop) - start, 0) // N * N
    for at in range(start, free, N):
        top, mass, total = step(
            packed, top, mass, total, k, v, k_scale, v_scale, table + row * table_width, head, at, stop, own, before,
            masks, stride, scale_stride, D, PAGE, GROUPS, QUANTISED, TREE, N, BLOCK_D, False,
        )  # fmt: skip
    for at in range(free, stop, N):
        top, mass, total = step(
            packed, top, mass, total, k, v, k_scale, v_scale, table + row * table_width, head, at, stop, own, before,
            masks, stride, scale_stride, D, PAGE, GROUPS, QUANTISED, TREE, N, BLOCK_D, True,
        )  # fmt: skip
    return line, mine, top, mass, total


@triton.jit
def piece_kernel(
    q, k, v, k_scale, v_scale, sums, tops, masses, table, cu_q, lengths, seen, blocks, starts, owners, counts, tree,
    scale, first_block, past_block, kv_heads, heads, stride, scale_stride, table_width,
    D: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    TREE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """sums [P, kv heads, M, D], tops and masses [P, kv heads, M]: the pieces of blocks first_block to past_block - 1,
    of those there are. One program per (piece, kv head); programs beyond the pieces leave at once."""
    piece = tl.load(starts + first_block) + tl.program_id(0)
    head = tl.program_id(1)
    if piece < tl.load(starts + tl.minimum(past_block, tl.load(counts + 1))):
        block = tl.load(owners + piece)
        start = (piece - tl.load(starts + block)) * WIDTH
        _, mine, top, mass, total = attend(
            q, k, v, k_scale, v_scale, table, cu_q, lengths, seen, blocks, tree, scale, block, head, start, WIDTH,
            heads, stride, scale_stride, table_width, D, G, PAGE, GROUPS, QUANTISED, TREE, M, N, BLOCK_D,
        )  # fmt: skip
        m, d = tl.arange(0, M), tl.arange(0, BLOCK_D)
        where = ((piece - tl.load(starts + first_block)) * kv_heads + head).to(tl.int64) * M + m
        tl.store(sums + where[:, None] * D + d[None, :], total, mask=mine[:, None] & (d < D)[None, :])
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
    TREE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """out [T, H, D] of blocks whose rows have many queries, in one pass. One program per (block, kv head)."""
    line, mine, _, mass, total = attend(
        q, k, v, k_scale, v_scale, table, cu_q, lengths, seen, blocks, tree, scale, tl.program_id(0),
        tl.program_id(1), 0, 1 << 30, heads, stride, scale_stride, table_width,
        D, G, PAGE, GROUPS, QUANTISED, TREE, M, N, BLOCK_D,
    )  # fmt: skip
    d = tl.arange(0, BLOCK_D)
    mask = mine[:, None] & (d < D)[None, :]
    tl.store(
        out + line[:, None] * D + d[None, :],
        (total / tl.where(mine, mass, 1.0)[:, None]).to(out.dtype.element_ty),
        mask=mask,
    )


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
    group, kv_heads, block_d = heads // pages.kv_heads, pages.kv_heads, triton.next_power_of_2(width)
    # Absent tensors are never read: q stands in for them.
    scales = (q if pages.k_scale is None else pages.k_scale, q if pages.v_scale is None else pages.v_scale)
    shape: dict[str, Any] = {
        "D": width, "G": group, "PAGE": pages.page_size, "GROUPS": pages.groups,
        "QUANTISED": pages.k_scale is not None, "TREE": plan.tree is not None, "BLOCK_D": block_d, "N": BLOCK,
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
            heads, D=width, G=group, M=rows, BLOCK_D=block_d,
        )  # fmt: skip
    return out
