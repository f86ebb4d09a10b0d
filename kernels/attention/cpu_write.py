"""Keys and values into their pages on CPU, quantised, with the rotation that comes before: one pass over a step.

A token's head is a row: normed, rotated and rounded on its own, so its bits never depend on its company.
"""

import math
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.attention import reference, rotary
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.pieces import HALF_SCALES
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.attention.vectors import (
    BYTES,
    HALF,
    MAGIC,
    WORD,
    Steps,
    across,
    emitted,
    larger,
    number,
    put,
    splat,
)
from tenantry.kernels.compiling import compiled
from tenantry.kernels.pool import fan_out, get_parts
from tenantry.kernels.tiles import F32, I64, INTS, LANES, VECTOR, at

SERIAL = 1 << 12  # values that one core writes in the time that waking a second takes
ZERO, ONE = np.float32(0), np.float32(1)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@emitted
def round_row(b: Any, x: Any, depth: Any, values: Any, scale: Any) -> None:
    """fp32 x[depth] to int8 values and their fp16 scale, NaN where x is not finite. depth: a multiple of LANES."""
    loop = Steps(b, depth, LANES, [number(0.0), number(0.0)])
    here = at(b, b.add(x, b.mul(loop.i, I64(4))), VECTOR)
    size = b.bitcast(b.and_(b.bitcast(here, INTS), ir.Constant(INTS, [0x7FFFFFFF] * LANES)), VECTOR)
    broken = b.fadd(loop.carried[1], b.fmul(here, number(0.0)))
    loop.close([larger(b, size, loop.carried[0]), broken])
    most = across(b, loop.carried[0], larger)
    broken = across(b, loop.carried[1], lambda b, x, y: b.fadd(x, y))
    factor = b.fadd(larger(b, b.fdiv(most, number(127.0)), number(reference.SMALLEST_SCALE)), broken)
    half = b.fptrunc(b.extract_element(factor, WORD(0)), HALF)
    b.store(half, b.inttoptr(scale, ir.PointerType(HALF)), align=2)
    stored = splat(b, b.fpext(half, F32))
    loop = Steps(b, depth, LANES)
    here = b.fdiv(at(b, b.add(x, b.mul(loop.i, I64(4))), VECTOR), stored)
    least, greatest = number(-127.0), number(127.0)
    here = b.select(b.fcmp_ordered("<", here, greatest), here, greatest)
    here = b.fadd(larger(b, here, least), number(MAGIC))
    put(b, b.trunc(b.bitcast(here, INTS), BYTES), b.add(values, loop.i), 1)
    loop.close()


@compiled
def rotate(
    x: Floats, weight: Floats, eps: np.float32, cos: Floats, sin: Floats, scratch: Floats, out: Floats
) -> None:
    """One head, all [D]; weight may be empty."""
    width = len(x)
    half, scale = width // 2, ONE
    if len(weight):
        lanes, total = np.zeros(16, np.float32), ZERO
        for d in range(0, width, 16):
            for i in range(16):
                lanes[i] += x[d + i] * x[d + i]
        for i in range(16):
            total += lanes[i]
        scale = ONE / np.float32(math.sqrt(total / np.float32(width) + eps))
        for d in range(width):
            scratch[d] = x[d] * scale * weight[d]
    else:
        scratch[:] = x
    for d in range(half):
        out[d] = scratch[d] * cos[d] + scratch[d + half] * sin[d]
        out[d + half] = scratch[d + half] * cos[d + half] + scratch[d] * sin[d + half]


@compiled
def rotate_part(
    part: int,
    parts: int,
    queries: int,
    kv_heads: int,
    qkv: Floats,
    cos: Floats,
    sin: Floats,
    q_norm: Floats,
    k_norm: Floats,
    eps: np.float32,
    out: Floats,
    layer: tuple[int, ...],
    slots: Ints,
) -> None:
    """Every parts-th stretch of the tokens. qkv: [T, heads, D]; out: [T, queries, D]. queries may be 0. cos, sin:
    [T, D], or empty to store keys as they are. layer: where pages lie."""
    k, v, k_scale, v_scale, groups, page_size, stride, scale_stride = layer
    tokens, heads, width = qkv.shape
    depth = width // groups
    scratch, row = np.empty(width, np.float32), np.empty(width, np.float32)
    for t in range(tokens * part // parts, tokens * (part + 1) // parts):
        for h in range(heads):
            if h < queries:
                rotate(qkv[t, h], q_norm, eps, cos[t], sin[t], scratch, out[t, h])
            elif slots[t] >= 0:
                is_key = h < queries + kv_heads
                if is_key and len(cos):
                    rotate(qkv[t, h], k_norm, eps, cos[t], sin[t], scratch, row)
                else:
                    row[:] = qkv[t, h]
                page, first = slots[t] // page_size, (h - queries) % kv_heads * page_size + slots[t] % page_size
                values = (k if is_key else v) + page * stride + first * width
                scales = (k_scale if is_key else v_scale) + 2 * (page * scale_stride + first * groups)
                for g in range(groups):
                    round_row(row[g * depth :].ctypes.data, depth, values + g * depth, scales + 2 * g)


@compiled
def rotate_all(
    parts: int,
    queries: int,
    kv_heads: int,
    qkv: Floats,
    cos: Floats,
    sin: Floats,
    q_norm: Floats,
    k_norm: Floats,
    eps: np.float32,
    out: Floats,
    layer: tuple[int, ...],
    slots: Ints,
) -> None:
    fan_out(rotate_part, parts, (queries, kv_heads, qkv, cos, sin, q_norm, k_norm, eps, out, layer, slots))


def supported(pages: LayerPages) -> bool:
    """Whether this kernel writes the layout; otherwise the reference does."""
    half = pages.k_scale is not None and pages.k_scale.dtype == torch.float16 and HALF_SCALES
    return half and pages.head_dim // pages.groups % 16 == 0


NONE, NONE_2 = np.zeros(0, np.float32), np.zeros((0, 0), np.float32)


def run(
    qkv: Tensor,
    queries: int,
    cos: Any,
    sin: Any,
    out: Tensor,
    pages: LayerPages,
    slots: Tensor,
    norms: HeadNorms | None,
) -> None:
    assert pages.k_scale is not None
    assert pages.v_scale is not None
    layer = (
        pages.k.data_ptr(),
        pages.v.data_ptr(),
        pages.k_scale.data_ptr(),
        pages.v_scale.data_ptr(),
        pages.groups,
        pages.page_size,
        pages.page_stride,
        pages.scale_stride,
    )
    weights = (NONE, NONE) if norms is None else (norms.q.float().numpy(), norms.k.float().numpy())
    eps = np.float32(0 if norms is None else norms.eps)
    work = (queries, pages.kv_heads, qkv.numpy(), cos, sin, *weights, eps, out.numpy(), layer, slots.numpy())
    rotate_all(get_parts() if qkv.numel() > SERIAL else 1, *work)


def rotate_and_write(
    qkv: Tensor, cos: Tensor, sin: Tensor, pages: LayerPages, slots: Tensor, norms: HeadNorms | None = None
) -> Tensor:
    """See rotary.py; qkv: fp32."""
    if not supported(pages):
        return rotary.rotate_and_write(qkv, cos, sin, pages, slots, norms)
    x = qkv.contiguous().view(len(qkv), -1, pages.head_dim)
    queries = x.shape[1] - 2 * pages.kv_heads
    out = torch.empty(len(x), queries, pages.head_dim)
    run(x, queries, cos.contiguous().numpy(), sin.contiguous().numpy(), out, pages, slots, norms)
    return out


def write_kv(k: Tensor, v: Tensor, pages: LayerPages, slots: Tensor) -> None:
    """Store one step's keys and values: see reference.py."""
    if not supported(pages):
        reference.write_kv(k, v, pages, slots)
        return
    both = torch.cat((k, v), 1).float().contiguous()
    run(both, 0, NONE_2, NONE_2, both[:, :0].contiguous(), pages, slots, None)
