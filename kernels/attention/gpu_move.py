"""Moving single positions of a cache in Triton: bits are copied as they are, so what was rounded once stays so."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: ANN001, ANN201

import triton
import triton.language as tl
from torch import Tensor

from tenantry.kernels.attention.layout import LayerPages


@triton.jit
def move_one(store, source, target, head, stride, PAGE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    from_place = source // PAGE * stride + (head * PAGE + source % PAGE) * WIDTH
    to_place = target // PAGE * stride + (head * PAGE + target % PAGE) * WIDTH
    tl.store(store + to_place + i, tl.load(store + from_place + i, mask=i < WIDTH), mask=i < WIDTH)


@triton.jit
def move_kernel(
    k, v, k_scale, v_scale, sources, targets, most, stride, scale_stride,
    D: tl.constexpr, PAGE: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr, GROUP_BLOCK: tl.constexpr,
    QUANTISED: tl.constexpr,
):  # fmt: skip
    """One program per (row of moves, kv head), which does them in order: every element is its own thread's."""
    row, head = tl.program_id(0), tl.program_id(1)
    for i in range(most):
        source = tl.load(sources + row * most + i)
        target = tl.load(targets + row * most + i)
        if target >= 0:
            move_one(k, source, target, head, stride, PAGE, D, BLOCK)
            move_one(v, source, target, head, stride, PAGE, D, BLOCK)
            if QUANTISED:
                move_one(k_scale, source, target, head, scale_stride, PAGE, GROUPS, GROUP_BLOCK)
                move_one(v_scale, source, target, head, scale_stride, PAGE, GROUPS, GROUP_BLOCK)


def move_kv(pages: LayerPages, sources: Tensor, targets: Tensor) -> None:
    """See reference.py."""
    rows, most = sources.shape
    k, v = pages.k, pages.v
    k_scale, v_scale = (k if scale is None else scale for scale in (pages.k_scale, pages.v_scale))
    move_kernel[(rows, pages.kv_heads)](
        k, v, k_scale, v_scale, sources.contiguous(), targets.contiguous(), most, pages.page_stride,
        pages.scale_stride, D=pages.head_dim, PAGE=pages.page_size, GROUPS=pages.groups,
        BLOCK=triton.next_power_of_2(pages.head_dim), GROUP_BLOCK=triton.next_power_of_2(pages.groups),
        QUANTISED=pages.k_scale is not None, num_warps=1,
    )  # fmt: skip
