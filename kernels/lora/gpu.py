"""Mixed-adapter LoRA in Triton: shrink into fp32 planes, expand sums the planes in order. Deterministic.

Shrink splits the inner dimension into planes instead of adding atomically; every plane of every row that is read
was written, so nothing is zeroed. Ranks are stored padded to 16 and looped over: they never appear in a mask.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.lora.layout import up
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import COLUMNS, LoraTable

RANK_BLOCK = 16
DEPTH_BLOCK = 64
SPLITS = 4
TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def shrink_kernel(
    x,
    planes,
    tokens,
    tiles,
    a_address,
    factor_address,
    ranks,
    x_stride,
    plane_stride,
    bridge_width,
    SLICES: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    SPLIT: tl.constexpr,
    STORED: tl.constexpr,
    ROWS: tl.constexpr,
    R: tl.constexpr,
    K: tl.constexpr,
):
    """planes[split, first:past] = x[tokens] @ A_cat.T over the split's part of DEPTH. One program each."""
    tile, split = tl.program_id(0), tl.program_id(1)
    slot = tl.load(tiles + 3 * tile)
    first = tl.load(tiles + 3 * tile + 1)
    past = tl.load(tiles + 3 * tile + 2)
    total = 0
    for part in tl.static_range(SLICES):
        total += tl.load(ranks + slot * SLICES + part)
    a = tl.load(a_address + slot).to(tl.pointer_type(STORED))
    factors = tl.load(factor_address + slot).to(tl.pointer_type(tl.float32))
    row = first + tl.arange(0, ROWS)
    live = row < past
    token = tl.load(tokens + row, mask=live, other=0)
    for r0 in range(0, total, R):
        sums = tl.zeros((ROWS, R), tl.float32)
        for k0 in range(split * K, DEPTH, SPLIT * K):
            k = k0 + tl.arange(0, K)
            inside = k < DEPTH
            values = tl.load(x + token[:, None] * x_stride + k[None, :], live[:, None] & inside[None, :], other=0.0)
            weights = tl.load(a + (r0 + tl.arange(0, R))[None, :] * WIDTH + k[:, None], inside[:, None], other=0.0)
            sums += tl.dot(values.to(STORED), weights, input_precision="ieee")
        here = planes + split * plane_stride + row[:, None] * bridge_width + (r0 + tl.arange(0, R))[None, :]
        tl.store(here, sums * tl.load(factors + r0 + tl.arange(0, R))[None, :], mask=live[:, None])


@triton.jit
def expand_kernel(
    y,
    planes,
    tokens,
    tiles,
    columns,
    b_address,
    ranks,
    y_stride,
    plane_stride,
    bridge_width,
    SLICES: tl.constexpr,
    SPLIT: tl.constexpr,
    STORED: tl.constexpr,
    ROWS: tl.constexpr,
    R: tl.constexpr,
    N: tl.constexpr,
):
    """y[tokens, block of a slice] += sum of planes @ B. columns: [*, 5] slice, first column in it, its padded
    width, its place in y. One program per (tile, block)."""
    tile, block = tl.program_id(0), tl.program_id(1)
    slot = tl.load(tiles + 3 * tile)
    first = tl.load(tiles + 3 * tile + 1)
    past = tl.load(tiles + 3 * tile + 2)
    part = tl.load(columns + 5 * block)
    column = tl.load(columns + 5 * block + 1) + tl.arange(0, N)
    width = tl.load(columns + 5 * block + 2)
    wide = tl.load(columns + 5 * block + 3)
    place = tl.load(columns + 5 * block + 4)
    rank = tl.load(ranks + slot * SLICES + part)
    if rank > 0:
        before = 0
        for earlier in tl.static_range(SLICES):
            before += tl.where(earlier < part, tl.load(ranks + slot * SLICES + earlier), 0)
        b = tl.load(b_address + slot * SLICES + part).to(tl.pointer_type(STORED))
        row = first + tl.arange(0, ROWS)
        live, inside = row < past, column < width
        sums = tl.zeros((ROWS, N), tl.float32)
        for r0 in range(0, rank, R):
            r = r0 + tl.arange(0, R)
            weights = tl.load(b + r[:, None] * wide + column[None, :], mask=inside[None, :], other=0.0)
            bridge = tl.zeros((ROWS, R), tl.float32)
            for split in tl.static_range(SPLIT):
                here = planes + split * plane_stride + row[:, None] * bridge_width + (before + r)[None, :]
                bridge += tl.load(here, mask=live[:, None], other=0.0)
            sums += tl.dot(bridge, weights.to(tl.float32), input_precision="ieee")
        token = tl.load(tokens + row, mask=live, other=0)
        here = y + token[:, None] * y_stride + place + column[None, :]
        mask = live[:, None] & inside[None, :]
        total = tl.load(here, mask=mask, other=0.0).to(tl.float32) + sums
        tl.store(here, total.to(y.dtype.element_ty), mask=mask)


def apply_lora(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> None:
    """Add each row's adapter to a site's output, in place: y += scale * B (A x).

    x: [T, in] in the table's dtype or fp32. y: [T, sum of slices], any float dtype. Rows of the base model are not
    read and not written. Raises RuntimeError for a plan older than the table.
    """
    table.require(plan)
    if not plan.runs:
        return
    shape, at = table.sites[site], table.site_index[site]
    on = table.tensors()
    a, factors, b, ranks = (t[layer, at] for t in (on.a_address, on.factor_address, on.b_address, on.padded))
    most = int(table.padded[layer, at].sum(-1).max())
    if most == 0:
        return
    slices, stored, rows = b.shape[1], TYPES[table.dtype], len(plan.tokens)
    planes = torch.empty((SPLITS, rows, most), dtype=torch.float32, device=x.device)
    columns = on.columns[site]
    constants: dict[str, Any] = {"SLICES": slices, "SPLIT": SPLITS, "STORED": stored, "R": RANK_BLOCK}
    constants["ROWS"] = plan.tile
    shrink_kernel[(len(plan.tiles), SPLITS)](
        x, planes, plan.tokens, plan.tiles, a, factors, ranks, x.stride(0), planes.stride(0), most,
        DEPTH=shape.in_features, WIDTH=up(shape.in_features, table.layout.packing.inputs), K=DEPTH_BLOCK, **constants,
    )  # fmt: skip
    expand_kernel[(len(plan.tiles), len(columns))](
        y, planes, plan.tokens, plan.tiles, columns, b, ranks, y.stride(0), planes.stride(0), most,
        N=COLUMNS, **constants,
    )  # fmt: skip
