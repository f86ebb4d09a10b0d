"""Register tiles over weights packed in panels: one block of outputs stays in registers while k passes by.

A panel is PANEL outputs wide and holds its values k after k, so that a tile reads one stream from memory, needs no
sums across lanes, and adds every output in the order of k, whatever the tile's height (the micro-kernel of BLIS:
Van Zee and van de Geijn, TOMS 2015). make_panel: fp32 arithmetic on float32, bfloat16, int8 and int4 storage.
make_bytes: exact integer arithmetic on bytes.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tenantry.kernels.quant.schemes import EXACT_PAIRS
from tenantry.kernels.tiles import F32, FEATURES, I64, INTS, LANES, VECTOR, WIDE, Loop, at, fused, pick, widen

PANEL = 2 * LANES  # outputs
HEIGHTS = (1, 2, 4, 6, 8, 12) if WIDE else (1, 2, 4, 6)  # rows of x per tile: two accumulators for each
MOST = HEIGHTS[-1]
UNIT = 4  # values of k per iteration
CACHE_LINE = 64  # bytes
FOURS = WIDE and "+avx512vnni" in FEATURES.split(",")  # four products of bytes at once, without an intermediate sum
MOST_CODE = 127 if FOURS else EXACT_PAIRS  # of w8a8's weights
BITS = {"int4": 4, "int8": 8, "bfloat16": 16, "float32": 32}

I32 = ir.IntType(32)
QUADS = ir.VectorType(ir.IntType(8), 4 * LANES)
PAIRS = ir.VectorType(ir.IntType(16), 2 * LANES)


def call(b: Any, name: str, result: Any, *arguments: Any) -> Any:
    """One LLVM intrinsic."""
    declare: Any = cgutils.get_or_insert_function
    return b.call(declare(b.module, ir.FunctionType(result, [a.type for a in arguments]), name), list(arguments))


def constant(vector: Any, value: Any) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def splat(b: Any, address: Any, scalar: Any, vector: Any) -> Any:
    """One stored scalar in every lane."""
    value = b.load(b.inttoptr(address, ir.PointerType(scalar)), align=4)
    single = b.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    return pick(b, single, single, [0] * LANES)


def prefetch(b: Any, rows: int, ahead: Any, pace: Any, i: Any, nbytes: int) -> None:
    """Towards the second-level cache, of the `pace` bytes that come after those of iterations before i: as many lines
    as the iteration reads itself. A full tile fetches half: it seldom passes over a panel alone, and more would
    cost it up to a tenth of its speed."""
    lines = max(1, nbytes // CACHE_LINE // (1 if rows < MOST else 2))
    here, apart = b.add(ahead, b.mul(pace, b.udiv(i, I64(UNIT)))), b.udiv(pace, I64(lines))
    for line in range(lines):
        pointer = b.inttoptr(b.add(here, b.mul(apart, I64(line))), ir.PointerType(ir.IntType(8)))
        call(b, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(0), I32(2), I32(1))


def unpack(b: Any, here: Any, kind: str, scale: Any) -> list[tuple[Any, Any]]:
    """UNIT pairs of fp32 vectors, PANEL values each, from the stored values at an address. scale: address of the
    group's scale and offset, for int4."""
    if kind == "int4":
        words, factors = at(b, here, INTS), [at(b, b.add(scale, I64(4 * LANES * n)), INTS) for n in range(2)]
        high = [b.bitcast(b.and_(f, constant(INTS, 0xFFFF0000)), VECTOR) for f in factors]
        low = [b.bitcast(b.shl(f, constant(INTS, 16)), VECTOR) for f in factors]
        return [
            (nibble(b, words, i, high[0], low[0]), nibble(b, words, UNIT + i, high[1], low[1])) for i in range(UNIT)
        ]
    found = []
    for i in range(UNIT):
        line = b.add(here, I64(i * PANEL * BITS[kind] // 8))
        if kind == "bfloat16":
            raw = at(b, line, INTS, 2)
            even, odd = b.shl(raw, constant(INTS, 16)), b.and_(raw, constant(INTS, 0xFFFF0000))
            found.append((b.bitcast(even, VECTOR), b.bitcast(odd, VECTOR)))
        else:
            found.append((widen(b, line, kind), widen(b, b.add(line, I64(LANES * BITS[kind] // 8)), kind)))
    return found


def nibble(b: Any, words: Any, place: int, scale: Any, offset: Any) -> Any:
    """scale * (the place-th four bits of each word) + offset."""
    moved = b.lshr(words, constant(INTS, 4 * place)) if place else words
    if WIDE:  # the permutation looks at the lowest four bits alone, and so converts in one instruction
        table = ir.Constant(VECTOR, [float(i) for i in range(16)])
        code = call(b, "llvm.x86.avx512.permvar.sf.512", VECTOR, table, moved)
    else:
        code = b.sitofp(b.and_(moved, constant(INTS, 15)), VECTOR)
    return fused(b, code, scale, offset)


def clamped(b: Any, address: Any, stride: Any, count: Any, rows: int) -> list[Any]:
    """Addresses of `rows` rows of which only `count` exist: the last one stands in for the others."""
    last, found = b.sub(count, I64(1)), []
    for m in range(rows):
        row = b.select(b.icmp_signed("<", I64(m), last), I64(m), last)
        found.append(b.add(address, b.mul(stride, row)))
    return found


def by_height(b: Any, count: Any, emit: Callable[[int], None]) -> None:
    """Emit one tile for each of HEIGHTS, of which the lowest that holds `count` rows runs."""
    for below, height in pairwise((0, *HEIGHTS)):
        fits = b.and_(b.icmp_signed(">", count, I64(below)), b.icmp_signed("<=", count, I64(height)))
        with b.if_then(fits):
            emit(height)


def make_panel(kind: str) -> Any:
    """out[m, :] = scale * (before[m, :] + sum over i < depth of x[m, i] * panel[i, :]) + bias, for m < count <= MOST,
    summed in the order of i from `before` on: so a sum has the same bits however its depth is cut.

    Addresses and strides in bytes: (panel, groups, group, x, out, scale, bias, count, depth, x_stride, out_stride,
    first, last, ahead, pace). groups, group: of int4, where scales and offsets are, and the binary logarithm of how
    many k share one. depth: a multiple of UNIT and of those. before is zero if first, else out; scale and bias count
    only if last. ahead: where to prefetch from, pace: bytes further for every UNIT.
    """

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        (panel, groups, group, x, out, scale, bias, count, depth, x_stride, out_stride, first, last, ahead, pace) = (
            arguments
        )
        fresh, done = b.icmp_signed("!=", first, I64(0)), b.icmp_signed("!=", last, I64(0))
        zero = ir.Constant(VECTOR, None)

        def one(rows: int) -> None:
            xs, outs = clamped(b, x, x_stride, count, rows), clamped(b, out, out_stride, count, rows)
            places = [b.add(o, I64(4 * LANES * n)) for o in outs for n in range(2)]
            before = [b.select(fresh, zero, at(b, place, VECTOR)) for place in places]
            loop = Loop(b, depth, UNIT, before)
            sums = list(loop.carried)
            prefetch(b, rows, ahead, pace, loop.i, UNIT * PANEL * BITS[kind] // 8)
            here = b.add(panel, b.udiv(b.mul(loop.i, I64(PANEL * BITS[kind])), I64(8)))
            factors = b.add(groups, b.mul(b.lshr(loop.i, group), I64(4 * PANEL))) if kind == "int4" else groups
            values = unpack(b, here, kind, factors)
            for i in range(UNIT):
                for m in range(rows):
                    factor = splat(b, b.add(xs[m], b.mul(b.add(loop.i, I64(i)), I64(4))), F32, VECTOR)
                    for n in range(2):
                        sums[2 * m + n] = fused(b, values[i][n], factor, sums[2 * m + n])
            loop.close(sums)
            ends = [[at(b, b.add(end, I64(4 * LANES * n)), VECTOR) for end in (scale, bias)] for n in range(2)]
            for index, place in enumerate(places):
                value = b.select(done, fused(b, sums[index], *ends[index % 2]), sums[index])
                b.store(value, b.inttoptr(place, ir.PointerType(VECTOR)), align=4)

        by_height(b, count, one)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, panel, groups, group, x, out, scale, bias, count, depth, x_in, out_in, first, last, ahead, pace):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return types.void(*[types.intp] * 15), emit

    return tile


def multiply_bytes(b: Any, unsigned: Any, signed: Any, total: Any) -> Any:
    """total[lane] += the products of the four bytes of each lane. Exact for signed bytes up to MOST_CODE: without the
    instruction that sums four products, two of them must stay within sixteen bits."""
    if FOURS:
        words = [b.bitcast(value, INTS) for value in (unsigned, signed)]
        return call(b, "llvm.x86.avx512.vpdpbusd.512", INTS, total, *words)
    names = ("avx512.pmaddubs.w.512", "avx512.pmaddw.d.512") if WIDE else ("avx2.pmadd.ub.sw", "avx2.pmadd.wd")
    pairs = call(b, f"llvm.x86.{names[0]}", PAIRS, unsigned, signed)
    return b.add(total, call(b, f"llvm.x86.{names[1]}", INTS, pairs, constant(PAIRS, 1)))


def make_bytes() -> Any:
    """out[m, :] = (sum over i < depth of x[m, i] * panel[i, :] - excess) * x_scale[m] * scale + bias, for m < count.

    count: at most MOST. x: unsigned bytes; panel: signed bytes of at most MOST_CODE, four values of k side by side.
    Addresses and strides in bytes: (panel, excess, x, x_scale, out, scale, bias, count, depth, x_stride, out_stride,
    ahead, pace). depth: a multiple of UNIT. excess: int32. ahead, pace: as of make_panel.
    """

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        panel, excess, x, x_scale, out, scale, bias, count, depth, x_stride, out_stride, ahead, pace = arguments

        def one(rows: int) -> None:
            xs, outs = clamped(b, x, x_stride, count, rows), clamped(b, out, out_stride, count, rows)
            loop = Loop(b, depth, UNIT, [ir.Constant(VECTOR, None)] * (2 * rows))
            sums = [b.bitcast(value, INTS) for value in loop.carried]
            prefetch(b, rows, ahead, pace, loop.i, UNIT * PANEL)
            here = b.add(panel, b.mul(loop.i, I64(PANEL)))
            values = [at(b, b.add(here, I64(4 * LANES * n)), QUADS, 1) for n in range(2)]
            for m in range(rows):
                factor = b.bitcast(splat(b, b.add(xs[m], loop.i), I32, INTS), QUADS)
                for n in range(2):
                    sums[2 * m + n] = multiply_bytes(b, factor, values[n], sums[2 * m + n])
            loop.close([b.bitcast(value, VECTOR) for value in sums])
            scales = clamped(b, x_scale, I64(4), count, rows)
            for n in range(2):
                less, factor, ground = (
                    at(b, b.add(address, I64(4 * LANES * n)), kind)
                    for address, kind in ((excess, INTS), (scale, VECTOR), (bias, VECTOR))
                )
                for m in range(rows):
                    total = b.sitofp(b.sub(sums[2 * m + n], less), VECTOR)
                    value = fused(b, b.fmul(total, splat(b, scales[m], F32, VECTOR)), factor, ground)
                    b.store(value, b.inttoptr(b.add(outs[m], I64(4 * LANES * n)), ir.PointerType(VECTOR)), align=4)

        by_height(b, count, one)
        return context.get_dummy_value()

    @intrinsic
    def tile(typing, panel, excess, x, x_scale, out, scale, bias, count, depth, x_stride, out_stride, ahead, pace):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return types.void(*[types.intp] * 13), emit

    return tile
