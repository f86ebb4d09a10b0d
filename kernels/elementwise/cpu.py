"""The small operations between matrix products on CPU: one pass over each row instead of five calls into torch.

At decode a row is a few kilobytes, so what these cost is the entering: one call by address against 6 (norm) and 3
(SiLU) into torch. A row is summed in strands that depend on nothing but the row: the same bits in any batch.
"""

import math

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.addresses import floats
from tenantry.kernels.compiling import compiled
from tenantry.kernels.exponent import LOG2_E, exp2
from tenantry.kernels.pool import fan_out, get_parts

STRANDS = 32  # of a row's sum
SINGLE_THREAD_VALUES = 1 << 13  # fewer than these are done before a second thread has woken
TO_BASE_TWO, ONE, ZERO = np.float32(LOG2_E), np.float32(1), np.float32(0)


@compiled
def norm_rows(hidden: int, delta: int, weight: int, eps: float, out: int, rows: int, width: int) -> None:
    """add_norm by addresses. delta: 0 for nothing to add."""
    states, results, factors = floats(hidden, rows, width), floats(out, rows, width), floats(weight, 1, width)[0]
    whole = width - width % STRANDS
    sums = np.empty(STRANDS, np.float32)
    for t in range(rows):
        row, result = states[t], results[t]
        if delta:
            other = floats(delta + 4 * t * width, 1, width)[0]
            for i in range(width):
                row[i] += other[i]
        sums[:] = 0
        for block in range(0, whole, STRANDS):
            values = row[block : block + STRANDS]
            for strand in range(STRANDS):
                sums[strand] += values[strand] * values[strand]
        total = 0.0
        for strand in range(STRANDS):
            total += np.float64(sums[strand])
        for i in range(whole, width):
            total += np.float64(row[i] * row[i])
        scale = np.float32(1.0 / math.sqrt(total / width + eps))
        for i in range(width):
            result[i] = row[i] * scale * factors[i]


@compiled
def silu_rows(gate_up: int, out: int, rows: int, width: int) -> None:
    """silu_mul by addresses. exp() is only taken of what is not positive, so nothing overflows."""
    inputs, results = floats(gate_up, rows, 2 * width), floats(out, rows, width)
    for t in range(rows):
        gate, up, result = inputs[t, :width], inputs[t, width:], results[t]
        for i in range(width):
            x = gate[i]
            small = exp2(-abs(x) * TO_BASE_TWO)
            result[i] = x * up[i] * (ONE if x >= ZERO else small) / (ONE + small)


@compiled
def norm_part(
    part: int, parts: int, hidden: int, delta: int, weight: int, eps: float, out: int, rows: int, width: int
) -> None:
    first, past = part * rows // parts, (part + 1) * rows // parts
    at = 4 * first * width
    norm_rows(hidden + at, delta + at if delta else 0, weight, eps, out + at, past - first, width)


@compiled
def norm_all(parts: int, hidden: int, delta: int, weight: int, eps: float, out: int, rows: int, width: int) -> None:
    fan_out(norm_part, parts, (hidden, delta, weight, eps, out, rows, width))


@compiled
def silu_part(part: int, parts: int, gate_up: int, out: int, rows: int, width: int) -> None:
    first, past = part * rows // parts, (part + 1) * rows // parts
    silu_rows(gate_up + 8 * first * width, out + 4 * first * width, past - first, width)


@compiled
def silu_all(parts: int, gate_up: int, out: int, rows: int, width: int) -> None:
    fan_out(silu_part, parts, (gate_up, out, rows, width))


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """hidden += delta in place (nothing for None), then RMSNorm (Zhang and Sennrich 2019) over the last dimension.

    hidden, delta: [..., D] fp32, hidden contiguous. weight: [D] fp32. Returns [..., D] fp32.
    """
    out, width = torch.empty_like(hidden), hidden.shape[-1]
    rows = hidden.numel() // width
    other = 0 if delta is None else (delta := delta.contiguous()).data_ptr()
    addresses = (hidden.data_ptr(), other, weight.data_ptr(), eps, out.data_ptr())
    norm_all(get_parts() if rows * width > SINGLE_THREAD_VALUES else 1, *addresses, rows, width)
    return out


def silu_mul(gate_up: Tensor) -> Tensor:
    """gate_up: [T, 2 * I] fp32, gates first. Returns silu(gate) * up, [T, I] fp32."""
    gate_up = gate_up.contiguous()
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty(rows, width)
    parts = get_parts() if rows * width > SINGLE_THREAD_VALUES else 1
    silu_all(parts, gate_up.data_ptr(), out.data_ptr(), rows, width)
    return out
