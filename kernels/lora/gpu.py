"""Mixed-adapter LoRA in Triton: shrink into fp32 planes, expand sums the planes in order. Deterministic.

Shrink splits the inner dimension into planes instead of adding atomically; every plane of every row that is read
was written, so nothing is zeroed. Ranks are walked in blocks of a constant width (64, 16, and a last 8) and never
appear in a mask. Grids are sized by the plan's capacity and tiles counted on the device, so a captured graph replays
with any mix. int8 weights cost nothing more: their scales multiply the bridge.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.lora.plan import DECODE_TILE, LoraPlan
from tenantry.kernels.lora.project import in_turn
from tenantry.kernels.lora.table import COLUMNS, LoraTable
from tenantry.kernels.quant.linear import Linear, TorchLinear

DEPTH_BLOCK = 128
TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


@triton.jit
def shrink_block(
    x, here, a, factors, token, live, r0, split, x_stride,
    DEPTH: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, STORED: tl.constexpr, KIND: tl.constexpr,
    ROWS: tl.constexpr, R: tl.constexpr, LIVE: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """here[:, r0 : r0 + LIVE] = x[token] @ a[r0 : r0 + LIVE].T over the split's part of DEPTH, times the factors.
    With few rows the weights are the left operand, so that they fill the tensor cores' rows and load as they lie."""
    rank = tl.arange(0, R)
    stored = a.to(tl.pointer_type(KIND)) + (r0 + rank)[:, None] * WIDTH
    sums = tl.zeros((R, ROWS), tl.float32) if ROWS <= 16 else tl.zeros((ROWS, R), tl.float32)
    for k0 in range(split * K, DEPTH, SPLIT * K):
        k = k0 + tl.arange(0, K)
        inside = (k < DEPTH)[None, :]
        weights = tl.load(stored + k[None, :], (rank < LIVE)[:, None] & inside, 0)
        values = tl.load(x + token[:, None] * x_stride + k[None, :], live[:, None] & inside, 0.0)
        if ROWS <= 16:
            sums += tl.dot(weights.to(STORED), tl.trans(values.to(STORED)), input_precision="ieee")
        else:
            sums += tl.dot(values.to(STORED), tl.trans(weights.to(STORED)), input_precision="ieee")
    if ROWS <= 16:
        sums = tl.trans(sums)
    keep = live[:, None] & (rank < LIVE)[None, :]
    factor = tl.load(factors + r0 + rank, rank < LIVE, 0.0)
    tl.store(here + (r0 + rank)[None, :], sums * factor[None, :], mask=keep)


@triton.jit
def shrink_site(
    x, here, a, factors, token, live, total, split, x_stride,
    DEPTH: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, STORED: tl.constexpr, KIND: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """All ranks of a site's A, `total` a multiple of 8, in blocks of 64, of 16, and a last one of 8."""
    past = total // 64 * 64
    for r0 in range(0, past, 64):
        shrink_block(x, here, a, factors, token, live, r0, split, x_stride,
                     DEPTH, WIDTH, SPLIT, STORED, KIND, ROWS, 64, 64, K)  # fmt: skip
    for r0 in range(past, total // 16 * 16, 16):
        shrink_block(x, here, a, factors, token, live, r0, split, x_stride,
                     DEPTH, WIDTH, SPLIT, STORED, KIND, ROWS, 16, 16, K)  # fmt: skip
    if total % 16 != 0:
        shrink_block(x, here, a, factors, token, live, total - 8, split, x_stride,
                     DEPTH, WIDTH, SPLIT, STORED, KIND, ROWS, 16, 8, K)  # fmt: skip


@triton.jit
def shrink_kernel(
    x, planes, counts, tiles, tokens, a_address, factor_address, ranks, items, x_stride, plane_stride, bridge_width,
    SLICES: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, STORED: tl.constexpr,
    ROWS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """planes[split, first:past] = factors * (x[tokens] @ A_cat.T) over the split's part of DEPTH."""
    tile, split = tl.program_id(0), tl.program_id(1)
    if tile < tl.load(counts):
        slot = tl.load(tiles + 3 * tile)
        row = tl.load(tiles + 3 * tile + 1) + tl.arange(0, ROWS)
        live = row < tl.load(tiles + 3 * tile + 2)
        token = tl.load(tokens + row, mask=live, other=0)
        total = 0
        for part in tl.static_range(SLICES):
            total += tl.load(ranks + slot * SLICES + part)
        a = tl.load(a_address + slot)
        factors = tl.load(factor_address + slot).to(tl.pointer_type(tl.float32))
        here = planes + split * plane_stride + row[:, None] * bridge_width
        if tl.load(items + slot) == 1:
            shrink_site(x, here, a, factors, token, live, total, split, x_stride,
                        DEPTH, WIDTH, SPLIT, STORED, tl.int8, ROWS, K)  # fmt: skip
        else:
            shrink_site(x, here, a, factors, token, live, total, split, x_stride,
                        DEPTH, WIDTH, SPLIT, STORED, STORED, ROWS, K)  # fmt: skip


@triton.jit
def expand_block(
    sums, here, b, column, inside, live, r0, wide, plane_stride,
    SPLIT: tl.constexpr, STORED: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, R: tl.constexpr,
    LIVE: tl.constexpr,
):  # fmt: skip
    """sums + (the planes' columns r0 : r0 + LIVE, summed in order) @ b[r0 : r0 + LIVE, column]. In bf16 the bridge
    is taken in two parts, which keeps it exact to 16 bits."""
    rank = tl.arange(0, R)
    weights = tl.load(
        b.to(tl.pointer_type(KIND)) + (r0 + rank)[:, None] * wide + column[None, :],
        (rank < LIVE)[:, None] & inside[None, :],
        0,
    )
    planes = here[None, :, :] + (tl.arange(0, SPLIT) * plane_stride)[:, None, None] + (r0 + rank)[None, None, :]
    bridge = tl.sum(tl.load(planes, live[None, :, None] & (rank < LIVE)[None, None, :], 0.0), 0)
    if tl.bfloat16 == STORED:
        high = bridge.to(STORED)
        low = (bridge - high.to(tl.float32)).to(STORED)
        sums += tl.dot(high, weights.to(STORED)) + tl.dot(low, weights.to(STORED))
    else:
        sums += tl.dot(bridge, weights.to(tl.float32), input_precision="ieee")
    return sums


@triton.jit
def expand_slice(
    here, b, column, inside, live, rank, wide, plane_stride,
    SPLIT: tl.constexpr, STORED: tl.constexpr, KIND: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The bridge times one block of a slice's B; `rank` is a multiple of 8. Blocks of 16 ranks only: more would not
    leave registers for the planes, which are all loaded at once."""
    sums = tl.zeros((ROWS, N), tl.float32)
    for r0 in range(0, rank // 16 * 16, 16):
        sums = expand_block(sums, here, b, column, inside, live, r0, wide, plane_stride,
                            SPLIT, STORED, KIND, ROWS, 16, 16)  # fmt: skip
    if rank % 16 != 0:
        sums = expand_block(sums, here, b, column, inside, live, rank - 8, wide, plane_stride,
                            SPLIT, STORED, KIND, ROWS, 16, 8)  # fmt: skip
    return sums


@triton.jit
def expand_kernel(
    y, planes, counts, tiles, tokens, columns, b_address, ranks, items, y_stride, plane_stride, bridge_width,
    SLICES: tl.constexpr, SPLIT: tl.constexpr, STORED: tl.constexpr, ROWS: tl.constexpr, N: tl.constexpr,
    ADD: tl.constexpr,
):  # fmt: skip
    """y[tokens, block of a slice] += bridge @ B with ADD 1, or = with ADD 0, where rank 0 gives zeros. columns:
    [*, 5] slice, first column in it, its width, its width as stored, its place in y. A program per tile and block."""
    tile, block = tl.program_id(0), tl.program_id(1)
    if tile < tl.load(counts):
        slot = tl.load(tiles + 3 * tile)
        part = tl.load(columns + 5 * block)
        rank = tl.load(ranks + slot * SLICES + part)
        if rank >= ADD:
            row = tl.load(tiles + 3 * tile + 1) + tl.arange(0, ROWS)
            live = row < tl.load(tiles + 3 * tile + 2)
            token = tl.load(tokens + row, mask=live, other=0)
            column = tl.load(columns + 5 * block + 1) + tl.arange(0, N)
            inside = column < tl.load(columns + 5 * block + 2)
            wide = tl.load(columns + 5 * block + 3)
            before = 0
            for earlier in tl.static_range(SLICES):
                before += tl.where(earlier < part, tl.load(ranks + slot * SLICES + earlier), 0)
            here = planes + row[:, None] * bridge_width + before
            b = tl.load(b_address + slot * SLICES + part)
            if tl.load(items + slot) == 1:
                sums = expand_slice(here, b, column, inside, live, rank, wide, plane_stride,
                                    SPLIT, STORED, tl.int8, ROWS, N)  # fmt: skip
            else:
                sums = expand_slice(here, b, column, inside, live, rank, wide, plane_stride,
                                    SPLIT, STORED, STORED, ROWS, N)  # fmt: skip
            there = y + token[:, None] * y_stride + tl.load(columns + 5 * block + 4) + column[None, :]
            mask = live[:, None] & inside[None, :]
            if ADD == 1:
                sums += tl.load(there, mask=mask, other=0.0).to(tl.float32)
            tl.store(there, sums.to(y.dtype.element_ty), mask=mask)


def splits(depth: int, tile: int) -> int:
    """Planes of a site: by its depth and the tile alone, so that a row has the same bits whatever shares the batch.
    Decode needs many programs to fill a device from one tile; prefill has them and saves the planes' bytes."""
    return min(16, max(1, depth // 512)) if tile <= DECODE_TILE else min(4, max(1, depth // 2048))


def apply_lora(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> None:
    """Add each row's adapter to a site's output, in place: y += B (factors * (A x)).

    x: [T, in] in the table's dtype or fp32. y: [T, sum of slices], any float dtype; rows of both contiguous. Rows of
    the base model are not read and not written. Raises RuntimeError for a plan older than the table.
    """
    _launch(x, y, layer, site, plan, table, 1)


def write_lora(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> None:
    """y = B (factors * (A x)), and 0 in rows of the base model: what is in y is not read. Not to be captured in a
    graph, since the zeroing is decided here. Arguments and errors as for apply_lora."""
    if int(plan.host_counts[1]) < len(y):
        y.zero_()
    _launch(x, y, layer, site, plan, table, 0)


_in_turn = in_turn(apply_lora)


def project(linear: Linear, x: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> Tensor:
    """As project.py says. In a long prefill the adapters come first and torch's product adds itself to what they
    wrote: in the other order y, far beyond the cache, is read and written once more."""
    if plan.tile <= DECODE_TILE or not (isinstance(linear, TorchLinear) and linear.adds(x)):
        return _in_turn(linear, x, layer, site, plan, table)
    y = torch.empty(len(x), linear.out_features, dtype=x.dtype, device=x.device)
    write_lora(x, y, layer, site, plan, table)
    return linear.add(x, y)


def _launch(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable, add: int) -> None:
    table.require(plan)
    if not len(plan.tiles):
        return
    on, at, depth = table.tensors(), table.site_index[site], table.sites[site].in_features
    split, width, columns = splits(depth, plan.tile), on.bridge_width[site], on.columns[site]
    planes = torch.empty((split, len(plan.tokens), width), dtype=torch.float32, device=x.device)
    a, factors, b, ranks, items = (
        t[layer, at] for t in (on.a_address, on.factor_address, on.b_address, on.padded, on.item)
    )
    shared: dict[str, Any] = {
        "SLICES": b.shape[1], "SPLIT": split, "STORED": TYPES[table.dtype], "ROWS": plan.tile,
        "num_warps": 4 if plan.tile <= DECODE_TILE else 8,  # what 64 rows of sums take, spread over more registers
    }  # fmt: skip
    shrink_kernel[(len(plan.tiles), split)](
        x, planes, plan.counts, plan.tiles, plan.tokens, a, factors, ranks, items,
        x.stride(0), planes.stride(0), width, DEPTH=depth, WIDTH=table.layout.width(site), K=DEPTH_BLOCK, **shared,
    )  # fmt: skip
    # Not pipelined: stages of all planes of a wide block would not fit a multiprocessor's shared memory.
    expand_kernel[(len(plan.tiles), len(columns))](
        y, planes, plan.counts, plan.tiles, plan.tokens, columns, b, ranks, items,
        y.stride(0), planes.stride(0), width, N=COLUMNS, ADD=add, num_stages=1, **shared,
    )  # fmt: skip
