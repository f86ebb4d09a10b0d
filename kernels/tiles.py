"""What register tiles are made of: LLVM vectors, loads that widen int8, bfloat16 (as uint16) or float32 storage to
fp32, sums across lanes, and a loop that carries accumulators. The tiles themselves are their kernels' (quant, lora,
attention): each adds an output in an order that depends on its own data alone, which makes results batch-invariant.
"""

from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils

SETTINGS: Any = numba.config
FEATURES = SETTINGS.CPU_FEATURES or llvmlite.binding.get_host_cpu_features().flatten()  # of what is compiled for
WIDE = "+avx512bw" in FEATURES.split(",")
LANES = 16 if WIDE else 8  # floats per register
ROWS = 6 if WIDE else 2  # rows of x per tile: ROWS * 4 accumulators fill the register file
COLUMNS = 4  # vectors that sum_four adds up

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
