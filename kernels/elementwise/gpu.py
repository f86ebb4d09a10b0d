"""The small operations between matrix products in Triton: one launch each, a row's sum in one program.

fp32 inside whatever the activations' dtype. Nothing depends on the batch but the grid.
"""

# Triton reads signatures itself, so its kernels carry no annotations.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 1024


@triton.jit
def norm_kernel(hidden, delta, weight, out, delta_stride, eps, D: tl.constexpr, N: tl.constexpr, ADDS: tl.constexpr):
    """One program per row."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, N)
    inside = i < D
    x = tl.load(hidden + row * D + i, mask=inside, other=0.0)
    if ADDS:
        x = x + tl.load(delta + row * delta_stride + i, mask=inside, other=0.0).to(x.dtype)
        tl.store(hidden + row * D + i, x, mask=inside)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / D + eps)
    normed = wide * scale * tl.load(weight + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * D + i, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def silu_kernel(gate_up, out, stride, I: tl.constexpr, N: tl.constexpr):  # noqa: E741
    """One program per (row, N columns)."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * N + tl.arange(0, N)
    inside = i < I
    gate = tl.load(gate_up + row * stride + i, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + I + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * I + i, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


def add_norm(hidden: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    """hidden += delta in place (nothing for None), then RMSNorm (Zhang and Sennrich 2019) over the last dimension.

    hidden, delta: [..., D] float; hidden contiguous, delta's rows anywhere. weight: [D]. Returns [..., D] in
    hidden's dtype.
    """
    out, width = torch.empty_like(hidden), hidden.shape[-1]
    rows, added = hidden.numel() // width, hidden if delta is None else delta
    if rows:
        norm_kernel[(rows,)](
            hidden, added, weight, out, added.stride(-2), eps,
            D=width, N=triton.next_power_of_2(width), ADDS=delta is not None,
        )  # fmt: skip
    return out


def silu_mul(gate_up: Tensor) -> Tensor:
    """gate_up: [T, 2 * I] float, gates first, rows anywhere. Returns silu(gate) * up, [T, I] in its dtype."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        grid = (rows, triton.cdiv(width, COLUMNS))
        silu_kernel[grid](gate_up, out, gate_up.stride(0), I=width, N=COLUMNS)
    return out
