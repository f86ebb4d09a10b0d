"""The two innermost loops of LoRA on CPU, over the packed format of layout.py: dot products with A, sums over B.

Rows of x and y are reached through arrays of addresses, so tokens that lie anywhere need no gathering. The order of
additions for one output depends on its own data alone, never on how many rows share the tile.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tenantry.kernels.tiles import (
    F32,
    FOUR,
    I64,
    ITEM,
    LANES,
    VECTOR,
    Loop,
    at,
    fused,
    pick,
    sum_four,
    widen,
    widen_pair,
)

BLOCK = 32  # stored inputs per iteration: CPU_PACKING.pairs
VECTORS = 4  # of outputs per expand tile
COLUMNS = 4  # stored rows per shrink tile
ZERO = ir.Constant(VECTOR, None)


def addresses(b: Any, array: Any, count: int) -> list[Any]:
    """The first `count` entries of an int64 array."""
    places = [b.add(array, I64(8 * m)) for m in range(count)]
    return [b.load(b.inttoptr(place, ir.PointerType(I64)), align=8) for place in places]


def block(b: Any, address: Any, kind: str) -> list[tuple[int, Any]]:
    """BLOCK stored values as (place in the block, LANES values in fp32)."""
    if kind != "bfloat16":
        return [(i, widen(b, b.add(address, I64(ITEM[kind] * i)), kind)) for i in range(0, BLOCK, LANES)]
    found = []
    for i in range(0, BLOCK // 2, LANES):
        first, second = widen_pair(b, b.add(address, I64(4 * i)), kind)
        found += [(i, first), (BLOCK // 2 + i, second)]
    return found


def make_shrink(rows: int, kind: str) -> Any:
    """out[m, 0:4] = sum over i < depth of a[0:4, i] * x[m][i], or += where again is not 0; for m < rows.

    The intrinsic takes (a, a_stride, x: address of int64 [rows] addresses, x_offset, out, out_stride, depth, again),
    addresses, offsets and strides in bytes; depth a multiple of BLOCK.
    """

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        a, a_stride, x, x_offset, out, out_stride, depth, again = arguments
        x_rows = [b.add(row, x_offset) for row in addresses(b, x, rows)]
        loop = Loop(b, depth, BLOCK, [ZERO] * (rows * COLUMNS))
        sums = list(loop.carried)
        here, there = b.mul(loop.i, I64(ITEM[kind])), b.mul(loop.i, I64(4))
        stored = [block(b, b.add(b.add(a, b.mul(a_stride, I64(n))), here), kind) for n in range(COLUMNS)]
        for m in range(rows):
            for index, (place, _) in enumerate(stored[0]):
                factor = at(b, b.add(b.add(x_rows[m], there), I64(4 * place)), VECTOR)
                for n in range(COLUMNS):
                    sums[m * COLUMNS + n] = fused(b, stored[n][index][1], factor, sums[m * COLUMNS + n])
        loop.close(sums)
        first = b.icmp_signed("==", again, I64(0))
        for m in range(rows):
            place = b.add(out, b.mul(out_stride, I64(m)))
            before = b.select(first, ir.Constant(FOUR, None), at(b, place, FOUR))
            total = b.fadd(before, sum_four(b, sums[m * COLUMNS : (m + 1) * COLUMNS]))
            b.store(total, b.inttoptr(place, ir.PointerType(FOUR)), align=4)
        return context.get_dummy_value()

    @intrinsic
    def shrink(typing, a, a_stride, x, x_offset, out, out_stride, depth, again):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return types.void(*[types.intp] * 8), emit

    return shrink


def make_expand(rows: int, kind: str) -> Any:
    """y[m][:] += sum over t < count of bridge[m, t] * b[t, :], VECTORS * LANES columns, for m < rows.

    The intrinsic takes (b, b_stride, bridge, bridge_stride, y: address of int64 [rows] addresses, y_offset, count),
    addresses, offsets and strides in bytes; count must be positive.
    """

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        stored, stored_stride, bridge, bridge_stride, y, y_offset, count = arguments
        loop = Loop(b, count, 1, [ZERO] * (rows * VECTORS))
        sums = list(loop.carried)
        row = b.add(stored, b.mul(stored_stride, loop.i))
        values = [widen(b, b.add(row, I64(ITEM[kind] * LANES * n)), kind) for n in range(VECTORS)]
        for m in range(rows):
            address = b.add(b.add(bridge, b.mul(bridge_stride, I64(m))), b.mul(loop.i, I64(4)))
            scalar = b.load(b.inttoptr(address, ir.PointerType(F32)), align=4)
            single = b.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
            factor = pick(b, single, single, [0] * LANES)
            for n in range(VECTORS):
                sums[m * VECTORS + n] = fused(b, values[n], factor, sums[m * VECTORS + n])
        loop.close(sums)
        for m, start in enumerate(addresses(b, y, rows)):
            for n in range(VECTORS):
                place = b.add(b.add(start, y_offset), I64(4 * LANES * n))
                total = b.fadd(at(b, place, VECTOR), sums[m * VECTORS + n])
                b.store(total, b.inttoptr(place, ir.PointerType(VECTOR)), align=4)
        return context.get_dummy_value()

    @intrinsic
    def expand(typing, stored, stored_stride, bridge, bridge_stride, y, y_offset, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return types.void(*[types.intp] * 7), emit

    return expand


def make_load(typing: Any, address: Any) -> Any:
    """The fp32 value at an address."""

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.load(b.inttoptr(arguments[0], ir.PointerType(F32)), align=4)

    return types.float32(types.intp), emit


def make_store(typing: Any, address: Any, value: Any) -> Any:
    """Write an fp32 value to an address."""

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.store(arguments[1], b.inttoptr(arguments[0], ir.PointerType(F32)), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32), emit


load: Any = intrinsic(make_load)
store: Any = intrinsic(make_store)
