"""Keys and values into their pages in Triton, quantised, with head norms and rotation in the same launch."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201, SIM102

import torch
import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.attention import reference
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.rotary import HeadNorms

HALF_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2**23: adding and subtracting it rounds an fp32 half to even


@triton.jit
def write_kernel(
    qkv, cos, sin, q_norm, k_norm, out, k, v, k_scale, v_scale, slots, queries, kv_heads, eps, stride, scale_stride,
    D: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, NORMED: tl.constexpr,
    ROTATED: tl.constexpr, QUANTISED: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """One program per (token, head): norm, rotate, and to out or, rounded, to its slot. GROUP: a power of two that
    holds a group's values."""
    token, head = tl.program_id(0), tl.program_id(1)
    i = tl.arange(0, GROUP)[None, :]
    d = tl.arange(0, GROUPS)[:, None] * (D // GROUPS) + i
    inside = (i < D // GROUPS) & (d < D)
    line = qkv + (token.to(tl.int64) * (queries + 2 * kv_heads) + head) * D
    x = tl.load(line + d, mask=inside, other=0.0).to(tl.float32)
    if ROTATED:
        if head < queries + kv_heads:
            other = (d + D // 2) % D
            y = tl.load(line + other, mask=inside, other=0.0).to(tl.float32)
            if NORMED:
                weight = k_norm
                if head < queries:
                    weight = q_norm
                factor = 1.0 / tl.sqrt_rn(tl.sum(tl.sum(x * x, 1), 0) / D + eps)
                x = x * factor * tl.load(weight + d, mask=inside, other=0.0).to(tl.float32)
                y = y * factor * tl.load(weight + other, mask=inside, other=0.0).to(tl.float32)
            x = x * tl.load(cos + token * D + d, mask=inside, other=0.0)
            x += y * tl.load(sin + token * D + d, mask=inside, other=0.0)
    if head < queries:
        tl.store(out + (token.to(tl.int64) * queries + head) * D + d, x.to(out.dtype.element_ty), mask=inside)
    else:
        slot = tl.load(slots + token)
        if slot >= 0:
            store = v
            scales = v_scale
            if head < queries + kv_heads:
                store = k
                scales = k_scale
            place = (head - queries) % kv_heads * PAGE + slot % PAGE
            values = store + slot // PAGE * stride + place * D
            if QUANTISED:
                broken = tl.sum(x * 0.0, 1)  # NaN for a group with NaN or infinity
                scale = tl.maximum(tl.div_rn(tl.max(tl.abs(x), 1), 127.0), FLOOR) + broken
                scale = scale.to(scales.dtype.element_ty)
                tl.store(scales + slot // PAGE * scale_stride + place * GROUPS + tl.arange(0, GROUPS), scale)
                whole = tl.div_rn(x, tl.broadcast_to(scale.to(tl.float32)[:, None], GROUPS, GROUP))
                whole = tl.minimum(tl.maximum(whole, -127.0), 127.0)
                tl.store(values + d, ((whole + HALF_EVEN) - HALF_EVEN).to(tl.int8), mask=inside)
            else:
                tl.store(values + d, x.to(store.dtype.element_ty), mask=inside)


def launch(
    qkv: Tensor,
    out: Tensor,
    pages: LayerPages,
    slots: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
    norms: HeadNorms | None,
) -> None:
    """qkv: [T, heads, head_dim], contiguous."""
    tokens, heads, width = qkv.shape
    if not tokens:
        return
    cos, sin = rotation or (qkv, qkv)  # absent tensors are never read: qkv stands in for them
    q_norm, k_norm = (qkv, qkv) if norms is None else (norms.q, norms.k)
    k_scale, v_scale = (qkv if s is None else s for s in (pages.k_scale, pages.v_scale))
    write_kernel[(tokens, heads)](
        qkv, cos, sin, q_norm, k_norm, out, pages.k, pages.v, k_scale, v_scale, slots, heads - 2 * pages.kv_heads,
        pages.kv_heads, 0.0 if norms is None else norms.eps, pages.page_stride, pages.scale_stride,
        D=width, PAGE=pages.page_size, GROUPS=pages.groups, GROUP=triton.next_power_of_2(width // pages.groups),
        NORMED=norms is not None, ROTATED=rotation is not None, QUANTISED=pages.k_scale is not None,
        FLOOR=reference.SMALLEST_SCALE, num_warps=1,
    )  # fmt: skip


def rotate_and_write(
    qkv: Tensor, cos: Tensor, sin: Tensor, pages: LayerPages, slots: Tensor, norms: HeadNorms | None = None
) -> Tensor:
    """See rotary.py; the number of groups must be a power of two. A token whose slot is negative is not stored."""
    x = qkv.contiguous().view(len(qkv), -1, pages.head_dim)
    out = torch.empty(len(x), x.shape[1] - 2 * pages.kv_heads, pages.head_dim, dtype=x.dtype, device=x.device)
    launch(x, out, pages, slots, (cos.contiguous(), sin.contiguous()), norms)
    return out


def write_kv(k: Tensor, v: Tensor, pages: LayerPages, slots: Tensor) -> None:
    """Store one step's keys and values: see reference.py."""
    both = torch.cat((k, v), 1)
    launch(both, both, pages, slots, None, None)
