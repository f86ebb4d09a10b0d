"""Register tiles for CPU kernels: the two innermost loops that everything heavy is made of, emitted as LLVM vectors.

`dot` multiplies a few rows of x with four rows of stored values; `outer` adds weighted rows of stored values.
Both read int8, bfloat16 (as uint16) or float32 storage and compute in fp32. The order of additions for one output
depends on its own data alone, never on how many rows share the tile: that is what makes results batch-invariant.
"""

from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SETTINGS: Any = numba.config
FEATURES = SETTINGS.CPU_FEATURES or llvmlite.binding.get_host_cpu_features().flatten()  # of what is compiled for
WIDE = "+avx512bw" in FEATURES.split(",")
LANES = 16 if WIDE else 8  # floats per register
ROWS = 6 if WIDE else 2  # rows of x per tile: ROWS * 4 accumulators fill the register file
COLUMNS = 4  # stored rows per dot tile

F32, I64 = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)
FOUR = ir.VectorType(F32, COLUMNS)
ITEM = {"int8": 1, "bfloat16": 2, "float32": 4}


def at(b: Any, address: Any, vector: Any, alignment: int = 4) -> Any:
    """Load a vector from an integer address."""
    return b.load(b.inttoptr(address, ir.PointerType(vector)), align=alignment)


def widen(b: Any, address: Any, kind: str) -> Any:
    """Load LANES consecutive stored values as fp32."""
    if kind == "float32":
        return at(b, address, VECTOR)
    if kind == "int8":
        return b.sitofp(b.sext(at(b, address, ir.VectorType(ir.IntType(8), LANES), 1), INTS), VECTOR)
    raw = b.zext(at(b, address, ir.VectorType(ir.IntType(16), LANES), 2), INTS)
    return b.bitcast(b.shl(raw, ir.Constant(INTS, [16] * LANES)), VECTOR)


def widen_pair(b: Any, address: Any, kind: str) -> tuple[Any, Any]:
    """Load 2 * LANES stored values as two fp32 vectors; of bfloat16 the even ones and the odd ones, because one
    shift and one mask of 32-bit words are all that takes."""
    if kind != "bfloat16":
        return widen(b, address, kind), widen(b, b.add(address, I64(ITEM[kind] * LANES)), kind)
    raw = at(b, address, INTS, 2)
    even, odd = b.shl(raw, ir.Constant(INTS, [16] * LANES)), b.and_(raw, ir.Constant(INTS, [0xFFFF0000] * LANES))
    return b.bitcast(even, VECTOR), b.bitcast(odd, VECTOR)


def fused(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    declare: Any = cgutils.get_or_insert_function
    return b.call(declare(b.module, kind, f"llvm.fma.v{LANES}f32"), [x, y, z])


def pick(b: Any, x: Any, y: Any, lanes: list[int]) -> Any:
    """Shuffle two vectors."""
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def sum_four(b: Any, v: list[Any]) -> Any:
    """The sums of four vectors as one vector of four: a transposed tree, a third of four single reductions."""
    groups = range(0, LANES, 4)
    low = [i for g in groups for i in (g, LANES + g, g + 1, LANES + g + 1)]
    high = [i + 2 for i in low]
    first = b.fadd(pick(b, v[0], v[1], low), pick(b, v[0], v[1], high))
    second = b.fadd(pick(b, v[2], v[3], low), pick(b, v[2], v[3], high))
    low = [i for g in groups for i in (g, g + 1, LANES + g, LANES + g + 1)]
    high = [i + 2 for i in low]
    total = b.fadd(pick(b, first, second, low), pick(b, first, second, high))
    width = LANES
    while width > COLUMNS:
        width //= 2
        low = list(range(width))
        total = b.fadd(pick(b, total, total, low), pick(b, total, total, [i + width for i in low]))
    return total


class Loop:
    """`while (i < stop) { ...; i += step }` with vectors carried in registers; the body runs at least once."""

    def __init__(self, b: Any, stop: Any, step: int, carried: list[Any]) -> None:
        self.b, self.stop, self.step = b, stop, step
        entry = b.block
        self.body, self.after = b.append_basic_block("body"), b.append_basic_block("after")
        b.branch(self.body)
        b.position_at_end(self.body)
        self.i = b.phi(I64)
        self.i.add_incoming(I64(0), entry)
        self.carried = [b.phi(VECTOR) for _ in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, entry)

    def close(self, values: list[Any]) -> None:
        following = self.b.add(self.i, I64(self.step))
        self.i.add_incoming(following, self.body)
        for phi, value in zip(self.carried, values, strict=True):
            phi.add_incoming(value, self.body)
        self.b.cbranch(self.b.icmp_signed("<", following, self.stop), self.body, self.after)
        self.b.position_at_end(self.after)


def make_dot(rows: int, kind: str, paired: bool) -> Any:
    """out[m, 0:4] = before[m, 0:4] + sum over i < depth of stored[0:4, i] * x[m, i], for m < rows.

    The intrinsic takes addresses and strides in bytes: (stored, x, out, before, depth, stored_stride, x_stride,
    out_stride, before_stride). depth: a multiple of LANES, or of 2 * LANES when paired. A paired bfloat16 tile
    wants every 2 * LANES values of x as the even ones and then the odd ones.
    """

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        stored, x, out, before, depth, stored_stride, x_stride, out_stride, before_stride = arguments
        zero = ir.Constant(VECTOR, None)
        loop = Loop(b, depth, 2 * LANES if paired else LANES, [zero] * (rows * COLUMNS))
        sums = list(loop.carried)
        bytes_in, x_in = b.mul(loop.i, I64(ITEM[kind])), b.mul(loop.i, I64(4))
        addresses = [b.add(b.add(stored, b.mul(stored_stride, I64(n))), bytes_in) for n in range(COLUMNS)]
        values = [widen_pair(b, a, kind) if paired else (widen(b, a, kind),) for a in addresses]
        for m in range(rows):
            address = b.add(b.add(x, b.mul(x_stride, I64(m))), x_in)
            for half in range(2 if paired else 1):
                factor = at(b, b.add(address, I64(4 * LANES * half)), VECTOR)
                for n in range(COLUMNS):
                    sums[m * COLUMNS + n] = fused(b, values[n][half], factor, sums[m * COLUMNS + n])
        loop.close(sums)
        for m in range(rows):
            previous = at(b, b.add(before, b.mul(before_stride, I64(m))), FOUR)
            total = b.fadd(previous, sum_four(b, sums[m * COLUMNS : (m + 1) * COLUMNS]))
            b.store(total, b.inttoptr(b.add(out, b.mul(out_stride, I64(m))), ir.PointerType(FOUR)), align=4)
        return context.get_dummy_value()

    @intrinsic
    def dot(typing, stored, x, out, before, depth, stored_stride, x_stride, out_stride, before_stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return types.void(*[types.intp] * 9), emit

    return dot


def make_outer(rows: int, vectors: int, kind: str) -> Any:
    """out[m, :] += sum over t < count of weight[m, t] * stored[t, :], for m < rows, vectors * LANES columns.

    The intrinsic takes addresses and strides in bytes: (stored, weight, out, count, stored_stride, weight_stride,
    out_stride); count must be positive.
    """

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        stored, weight, out, count, stored_stride, weight_stride, out_stride = arguments
        places = [
            b.add(b.add(out, b.mul(out_stride, I64(m))), I64(4 * LANES * n))
            for m in range(rows)
            for n in range(vectors)
        ]
        loop = Loop(b, count, 1, [at(b, place, VECTOR) for place in places])
        sums = list(loop.carried)
        row = b.add(stored, b.mul(stored_stride, loop.i))
        values = [widen(b, b.add(row, I64(ITEM[kind] * LANES * n)), kind) for n in range(vectors)]
        for m in range(rows):
            address = b.add(b.add(weight, b.mul(weight_stride, I64(m))), b.mul(loop.i, I64(4)))
            scalar = b.load(b.inttoptr(address, ir.PointerType(F32)), align=4)
            single = b.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
            factor = pick(b, single, single, [0] * LANES)
            for n in range(vectors):
                sums[m * vectors + n] = fused(b, values[n], factor, sums[m * vectors + n])
        loop.close(sums)
        for place, value in zip(places, sums, strict=True):
            b.store(value, b.inttoptr(place, ir.PointerType(VECTOR)), align=4)
        return context.get_dummy_value()

    @intrinsic
    def outer(typing, stored, weight, out, count, stored_stride, weight_stride, out_stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return types.void(*[types.intp] * 7), emit

    return outer
