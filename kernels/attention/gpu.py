"""Paged attention and KV writes in Triton: split over fixed chunks of positions, reduced in order. Deterministic.

Chunks are CHUNK positions wherever a row stands, so a row's result does not depend on the batch. Pages hold int8
with scales, or floats; values are widened to fp32 before each product.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import QUERIES, AttentionPlan, LayerPages

CHUNK = 256
BLOCK = 32
LOG2_E = 1.4426950408889634
HALF_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds an fp32 half to even


@triton.jit
def widen(
    store, scales, page, stride, scale_stride, row, d, live,
    D: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
):  # fmt: skip
    """Values [BLOCK, BLOCK_D] as fp32. row: index of each position's (head, offset) in its page."""
    mask = live[:, None] & (d < D)[None, :]
    values = tl.load(store + (page * stride + row * D)[:, None] + d[None, :], mask=mask, other=0).to(tl.float32)
    if QUANTISED:
        group = d // (D // GROUPS)
        at = scales + (page * scale_stride + row * GROUPS)[:, None] + group[None, :]
        values *= tl.load(at, mask=mask, other=0.0).to(tl.float32)
    return values


@triton.jit
def chunk_kernel(
    q, k, v, k_scale, v_scale, sums, tops, masses, table, cu_q, lengths, blocks, scale, table_width, heads, stride,
    scale_stride, chunks,
    D: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, QUANTISED: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, BLOCK_D: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Unnormalised attention of one block of queries over one chunk: sums [T, H, chunks, D], tops and masses
    [T, H, chunks]. One program per (block, kv head, chunk)."""
    block, head, chunk = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(blocks + 3 * block)
    first = tl.load(blocks + 3 * block + 1)
    past = tl.load(blocks + 3 * block + 2)
    begin = tl.load(cu_q + row)
    before = tl.load(lengths + row) - (tl.load(cu_q + row + 1) - begin)
    start = chunk * WIDTH
    stop = tl.minimum(before + past, start + WIDTH)
    if start < stop:
        m, d = tl.arange(0, M), tl.arange(0, BLOCK_D)
        query = first + m // G
        mine = query < past
        line = (begin + query) * heads + head * G + m % G
        mask = mine[:, None] & (d < D)[None, :]
        packed = tl.load(q + line[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float32) * scale
        top = tl.full((M,), -1e30, tl.float32)
        mass = tl.zeros((M,), tl.float32)
        total = tl.zeros((M, BLOCK_D), tl.float32)
        for at in range(start, stop, N):
            position = at + tl.arange(0, N)
            live = position < stop
            page = tl.load(table + row * table_width + position // PAGE, mask=live, other=0).to(tl.int64)
            place = head * PAGE + position % PAGE
            keys = widen(k, k_scale, page, stride, scale_stride, place, d, live, D, GROUPS, QUANTISED)
            s = tl.dot(packed, tl.trans(keys), input_precision="ieee")
            visible = live[None, :] & (position[None, :] <= (before + query)[:, None])
            s = tl.where(visible, s, -1e30)
            best = tl.maximum(top, tl.max(s, 1))
            p = tl.where(visible, tl.exp2(s - best[:, None]), 0.0)
            shrink = tl.exp2(top - best)
            mass = mass * shrink + tl.sum(p, 1)
            values = widen(v, v_scale, page, stride, scale_stride, place, d, live, D, GROUPS, QUANTISED)
            total = total * shrink[:, None] + tl.dot(p, values, input_precision="ieee")
            top = best
        where = line * chunks + chunk
        tl.store(sums + where[:, None] * D + d[None, :], total, mask=mask)
        tl.store(tops + where, top, mask=mine)
        tl.store(masses + where, mass, mask=mine)


@triton.jit
def reduce_kernel(
    sums, tops, masses, out, seen, heads, chunks, D: tl.constexpr, BLOCK_D: tl.constexpr, WIDTH: tl.constexpr
):
    """out [T, H, D] from the chunks that each token sees, in order. seen: [T]. One program per (token, head)."""
    token, head = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, BLOCK_D)
    line = token * heads + head
    top, mass, total = -1e30, 0.0, tl.zeros((BLOCK_D,), tl.float32)
    for chunk in range(tl.cdiv(tl.load(seen + token), WIDTH)):
        where = line * chunks + chunk
        best = tl.maximum(top, tl.load(tops + where))
        old, new = tl.exp2(top - best), tl.exp2(tl.load(tops + where) - best)
        mass = mass * old + tl.load(masses + where) * new
        total = total * old + tl.load(sums + where * D + d, mask=d < D, other=0.0) * new
        top = best
    tl.store(out + line * D + d, (total / mass).to(out.dtype.element_ty), mask=d < D)


@triton.jit
def store_kernel(
    x, store, scales, slots, heads, stride, scale_stride,
    D: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """Quantise one token's head. One program per (token, kv head)."""
    token, head = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + token)
    page, row = slot // PAGE, head * PAGE + slot % PAGE
    g, i = tl.arange(0, GROUPS)[:, None], tl.arange(0, D // GROUPS)[None, :]
    d = g * (D // GROUPS) + i
    values = tl.load(x + (token * heads + head) * D + d).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values), 1) / 127.0, FLOOR)
    whole = (values / scale[:, None] + HALF_EVEN) - HALF_EVEN
    tl.store(store + page * stride + row * D + d, whole.to(tl.int8))
    tl.store(scales + page * scale_stride + row * GROUPS + tl.arange(0, GROUPS), scale.to(scales.dtype.element_ty))


def attention(q: Tensor, pages: LayerPages, plan: AttentionPlan, scale: float) -> Tensor:
    """Causal attention of ragged rows over their pages.

    q: [T, heads, head_dim], heads a multiple of kv_heads. scale multiplies q·k. Returns [T, heads, head_dim] in q's
    dtype. Every position up to a query's own must have been written; nothing beyond is used.
    """
    tokens, heads, width = q.shape
    out = torch.empty_like(q)
    if tokens == 0:
        return out
    group = heads // pages.kv_heads
    chunks = -(-max(plan.totals) // CHUNK)
    sums = torch.empty((tokens, heads, chunks, width), dtype=torch.float32, device=q.device)
    tops, masses = torch.empty((2, tokens, heads, chunks), dtype=torch.float32, device=q.device)
    packed = max(16, triton.next_power_of_2(min(QUERIES, max(plan.q_lens)) * group))
    quantised = pages.k_scale is not None
    block_d = triton.next_power_of_2(width)
    common: dict[str, Any] = {"D": width, "BLOCK_D": block_d, "WIDTH": CHUNK}
    chunk_kernel[(len(plan.blocks), pages.kv_heads, chunks)](
        q, pages.k, pages.v, pages.k_scale if quantised else q, pages.v_scale if quantised else q, sums, tops, masses,
        plan.block_table, plan.cu_q, plan.lengths, plan.blocks, scale * LOG2_E, plan.block_table.shape[1], heads,
        pages.page_stride, pages.scale_stride, chunks,
        G=group, PAGE=pages.page_size, GROUPS=pages.groups, QUANTISED=quantised, M=packed, N=BLOCK, **common,
    )  # fmt: skip
    reduce_kernel[(tokens, heads)](sums, tops, masses, out, plan.seen, heads, chunks, **common)
    return out


def write_kv(k: Tensor, v: Tensor, pages: LayerPages, slots: Tensor) -> None:
    """Store one step's keys and values, quantised where the pages are.

    k, v: [T, kv_heads, head_dim] float, head_dim and its groups powers of two (else the reference runs).
    slots: int64 [T], page * page_size + offset, all different.
    """
    width = pages.head_dim
    if pages.k_scale is None or pages.v_scale is None or width & (width - 1):
        reference.write_kv(k, v, pages, slots)
        return
    for x, store, scales in ((k, pages.k, pages.k_scale), (v, pages.v, pages.v_scale)):
        store_kernel[(len(slots), pages.kv_heads)](
            x.contiguous(), store, scales, slots, pages.kv_heads, pages.page_stride, pages.scale_stride,
            D=width, PAGE=pages.page_size, GROUPS=pages.groups, FLOOR=reference.SMALLEST_SCALE,
        )  # fmt: skip
