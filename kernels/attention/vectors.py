"""The vector loops of paged attention on CPU, emitted as LLVM: widening, products, softmax, rounding.

Keys are transposed in registers as they are widened, so that lanes are positions: scores then need no sums across
lanes, and softmax runs on whole registers. All arithmetic is fp32; for one output the order of additions depends on
its own position alone, never on what shares the tile. Every function takes addresses, and strides in bytes; none
knows pages.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tenantry.kernels.tiles import F32, I64, INTS, LANES, VECTOR, at, fused, pick

TILE = 2 * LANES  # positions per product
BLOCK = 8  # rows per product
LOWEST = -1e30  # the largest score where every position is hidden
FLOAT32, BFLOAT16, FLOAT16, INT8 = range(4)  # how values are stored
ITEM = (4, 2, 2, 1)

BYTE, HALF, SHORT, WORD = ir.IntType(8), ir.HalfType(), ir.IntType(16), ir.IntType(32)
BYTES, HALVES, SHORTS = (ir.VectorType(t, LANES) for t in (BYTE, HALF, SHORT))
QUAD = ir.VectorType(WORD, 4)
MAGIC = 12582912.0  # 1.5 * 2**23: adding and subtracting it rounds an fp32 half to even
TAYLOR = [math.log(2) ** n / math.factorial(n) for n in range(8)]  # of 2 ** x, to 6e-9 over -0.5 .. 0.5


def emitted(body: Callable[..., None]) -> Any:
    """An intrinsic over integers from a function that emits its body, of (builder, *arguments)."""
    names = list(inspect.signature(body).parameters)[1:]

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        body(b, *arguments)
        return context.get_dummy_value()

    def signature(typing: Any, *arguments: Any) -> Any:
        return types.void(*[types.intp] * len(names)), emit

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named: Any = signature
    named.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in ("typing", *names)])
    named.__name__ = body.__name__
    return intrinsic(named)


def splat(b: Any, scalar: Any, vector: Any = VECTOR) -> Any:
    single = b.insert_element(ir.Constant(vector, ir.Undefined), scalar, WORD(0))
    return pick(b, single, single, [0] * LANES)


def number(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * LANES)


def whole(value: int) -> Any:
    return ir.Constant(INTS, [value] * LANES)


def put(b: Any, value: Any, address: Any, alignment: int = 4) -> None:
    b.store(value, b.inttoptr(address, ir.PointerType(value.type)), align=alignment)


def scalar_at(b: Any, address: Any, kind: Any = F32) -> Any:
    return b.load(b.inttoptr(address, ir.PointerType(kind)), align=1)


def plus(b: Any, address: Any, stride: Any, times: int) -> Any:
    return b.add(address, b.mul(stride, I64(times))) if times else address


class Steps:
    """`for (i = 0; i < stop; i += step)` with values carried in registers; stop may be 0."""

    def __init__(self, b: Any, stop: Any, step: int, carried: Sequence[Any] = ()) -> None:
        self.b, self.stop, self.step = b, stop, step
        entry = b.block
        self.head, self.body, self.after = (b.append_basic_block(n) for n in ("head", "body", "after"))
        b.branch(self.head)
        b.position_at_end(self.head)
        self.i = b.phi(I64)
        self.i.add_incoming(I64(0), entry)
        self.carried = [b.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, entry)
        b.cbranch(b.icmp_signed("<", self.i, stop), self.body, self.after)
        b.position_at_end(self.body)

    def close(self, values: Sequence[Any] = ()) -> None:
        """The carried phis hold the last values afterwards."""
        end = self.b.block
        self.i.add_incoming(self.b.add(self.i, I64(self.step)), end)
        for phi, value in zip(self.carried, values, strict=True):
            phi.add_incoming(value, end)
        self.b.branch(self.head)
        self.b.position_at_end(self.after)


def transposed(b: Any, rows: list[Any]) -> list[Any]:
    """LANES addresses of 16 bytes to four vectors of words: word j of every row."""
    lanes = []
    for r in range(4):
        parts = [at(b, rows[4 * group + r], QUAD, 1) for group in range(LANES // 4)]
        while len(parts) > 1:
            size = 2 * parts[0].type.count
            parts = [pick(b, x, y, list(range(size))) for x, y in zip(parts[::2], parts[1::2], strict=True)]
        lanes.append(parts[0])
    groups = range(0, LANES, 4)
    low = [i for g in groups for i in (g, LANES + g, g + 1, LANES + g + 1)]
    first, second = [i for g in groups for i in (g, g + 1, LANES + g, LANES + g + 1)], []
    second = [i + 2 for i in first]
    high = [i + 2 for i in low]
    result = []
    for order in (low, high):
        x, y = pick(b, lanes[0], lanes[1], order), pick(b, lanes[2], lanes[3], order)
        result += [pick(b, x, y, first), pick(b, x, y, second)]
    return result


def unpacked(b: Any, words: Any, kind: int) -> list[Any]:
    """A vector of words of stored values to fp32 vectors, the first value of each word first."""
    if kind == FLOAT32:
        return [b.bitcast(words, VECTOR)]
    if kind == BFLOAT16:
        return [b.bitcast(x, VECTOR) for x in (b.shl(words, whole(16)), b.and_(words, whole(0xFFFF0000)))]
    if kind == FLOAT16:
        halves = [b.trunc(x, SHORTS) for x in (words, b.lshr(words, whole(16)))]
        return [b.fpext(b.bitcast(x, HALVES), VECTOR) for x in halves]
    shifted = [b.shl(words, whole(24 - 8 * byte)) if byte < 3 else words for byte in range(4)]
    return [b.sitofp(b.ashr(x, whole(24)), VECTOR) for x in shifted]


def widened(b: Any, address: Any, kind: int) -> Any:
    """LANES stored values as fp32."""
    if kind == FLOAT32:
        return at(b, address, VECTOR)
    if kind == INT8:
        return b.sitofp(b.sext(at(b, address, BYTES, 1), INTS), VECTOR)
    if kind == FLOAT16:
        return b.fpext(at(b, address, HALVES, 2), VECTOR)
    return b.bitcast(b.shl(b.zext(at(b, address, SHORTS, 2), INTS), whole(16)), VECTOR)


def fetch(b: Any, address: Any) -> None:
    """Ask for the cache line at an address."""
    pointer = ir.PointerType(BYTE)
    kind = ir.FunctionType(ir.VoidType(), [pointer, WORD, WORD, WORD])
    declare: Any = cgutils.get_or_insert_function
    function = declare(b.module, kind, "llvm.prefetch.p0i8")
    b.call(function, [b.inttoptr(address, pointer), WORD(0), WORD(3), WORD(1)])


def make_keys(kind: int, scaled: bool) -> Any:
    """out[d, 0:TILE] = keys of TILE positions, transposed, for d < depth (16 bytes' worth divide it).

    (keys, values: addresses that `where` counts from; where: address of int64 bytes, one per position; ahead: from
    the positions now to those wanted next, in bytes of `where`; out; depth; factors: address of TILE fp32 that scale
    positions, used when scaled). Asks for the values' lines of now and the keys' of next.
    """
    per_word = 4 // ITEM[kind]

    @emitted
    def keys(b: Any, keys: Any, values: Any, where: Any, ahead: Any, out: Any, depth: Any, factors: Any) -> None:
        for part in range(0, TILE, LANES):
            mine = b.add(where, I64(8 * part))
            factor = at(b, b.add(factors, I64(4 * part)), VECTOR) if scaled else None
            loop = Steps(b, depth, 4 * per_word)
            shift = b.mul(loop.i, I64(ITEM[kind]))
            base = b.add(keys, shift)
            rows = [b.add(base, scalar_at(b, b.add(mine, I64(8 * i)), I64)) for i in range(LANES)]
            line = b.icmp_signed("==", b.and_(shift, I64(63)), I64(0))
            with b.if_then(line):
                for i in range(LANES):
                    place = b.add(mine, I64(8 * i))
                    fetch(b, b.add(b.add(values, shift), scalar_at(b, place, I64)))
                    fetch(b, b.add(base, scalar_at(b, b.add(place, ahead), I64)))
            place = b.add(b.add(out, I64(4 * part)), b.mul(loop.i, I64(4 * TILE)))
            lines = [x for words in transposed(b, rows) for x in unpacked(b, words, kind)]
            for d, x in enumerate(lines):
                put(b, b.fmul(x, factor) if scaled else x, b.add(place, I64(4 * TILE * d)))
            loop.close()

    return keys


def make_values(kind: int, scaled: bool) -> Any:
    """out[t, 0:depth] = values of TILE positions as fp32, rows `stride` bytes apart; depth a multiple of LANES.

    (values, where, out, depth, stride, factors): as for make_keys.
    """

    @emitted
    def values(b: Any, values: Any, where: Any, out: Any, depth: Any, stride: Any, factors: Any) -> None:
        rows = Steps(b, I64(TILE), 1)
        base = b.add(values, scalar_at(b, b.add(where, b.mul(rows.i, I64(8))), I64))
        place = b.add(out, b.mul(rows.i, stride))
        factor = splat(b, scalar_at(b, b.add(factors, b.mul(rows.i, I64(4))))) if scaled else None
        loop = Steps(b, depth, LANES)
        x = widened(b, b.add(base, b.mul(loop.i, I64(ITEM[kind]))), kind)
        put(b, b.fmul(x, factor) if scaled else x, b.add(place, b.mul(loop.i, I64(4))))
        loop.close()
        rows.close()

    return values


def emit_product(
    b: Any, rows: int, vectors: int, stored: Any, weights: Any, out: Any, count: Any, in_: Any, w_: Any, o_: Any
) -> None:
    places = [b.add(plus(b, out, o_, m), I64(4 * LANES * n)) for m in range(rows) for n in range(vectors)]
    loop = Steps(b, count, 4, [at(b, place, VECTOR) for place in places])
    sums = list(loop.carried)
    sources = [b.add(plus(b, weights, w_, m), b.mul(loop.i, I64(4))) for m in range(rows)]
    line = b.add(stored, b.mul(loop.i, in_))
    for step in range(4):
        here = plus(b, line, in_, step)
        lines = [at(b, b.add(here, I64(4 * LANES * n)), VECTOR) for n in range(vectors)]
        for m in range(rows):
            factor = splat(b, scalar_at(b, b.add(sources[m], I64(4 * step))))
            for n in range(vectors):
                sums[m * vectors + n] = fused(b, lines[n], factor, sums[m * vectors + n])
    loop.close(sums)
    for place, total in zip(places, loop.carried, strict=True):
        put(b, total, place)


def make_product(vectors: int) -> Any:
    """out[m, :] += sum over i < count of weights[m, i] * stored[i, :], for m < rows, vectors * LANES columns.

    (rows: 1 .. BLOCK; stored, weights, out; count: a multiple of 4; and the rows' strides of the three).
    """

    @emitted
    def product(
        b: Any, rows: Any, stored: Any, weights: Any, out: Any, count: Any, stored_: Any, weights_: Any, out_: Any
    ) -> None:
        after = b.append_basic_block("done")
        switch = b.switch(rows, after)
        for n in range(1, BLOCK + 1):
            block = b.append_basic_block(f"rows{n}")
            switch.add_case(I64(n), block)
            b.position_at_end(block)
            emit_product(b, n, vectors, stored, weights, out, count, stored_, weights_, out_)
            b.branch(after)
        b.position_at_end(after)

    return product


def raised(b: Any, x: Any) -> Any:
    """2 ** x for x <= 0, to 2e-7; 0 below -126. NaN stays NaN."""
    shifted = b.fadd(x, number(MAGIC))
    f = b.fsub(x, b.fsub(shifted, number(MAGIC)))
    series = number(TAYLOR[-1])
    for c in TAYLOR[-2::-1]:
        series = fused(b, series, f, number(c))
    bits = b.add(b.bitcast(series, INTS), b.shl(b.bitcast(shifted, INTS), whole(23)))
    return b.select(b.fcmp_ordered("<", x, number(-126.0)), number(0.0), b.bitcast(bits, VECTOR))


def larger(b: Any, x: Any, y: Any) -> Any:
    """x where it is the larger, else y."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def across(b: Any, x: Any, join: Callable[[Any, Any, Any], Any]) -> Any:
    """Every lane joined with every other, in one fixed tree: the result in all lanes."""
    width = LANES
    while width > 1:
        width //= 2
        x = join(b, x, pick(b, x, x, [(i + width) % LANES for i in range(LANES)]))
    return x


@emitted
def soften(
    b: Any, scores: Any, count: Any, visible: Any, k_factors: Any, v_factors: Any, top: Any, mass: Any
) -> None:
    """One row's scores, times k_factors, to weights 2 ** (score - largest) times v_factors, in place.

    count: a multiple of LANES; positions from `visible` on, and scores of -inf, weigh nothing. top, mass: addresses
    where the largest score and the sum of the weights before v_factors go.
    """
    lane = ir.Constant(INTS, list(range(LANES)))
    limit = splat(b, b.trunc(visible, WORD), INTS)
    loop = Steps(b, count, LANES, [number(LOWEST)])
    shift = b.mul(loop.i, I64(4))
    x = b.fmul(at(b, b.add(scores, shift), VECTOR), at(b, b.add(k_factors, shift), VECTOR))
    seen = b.icmp_signed("<", b.add(lane, splat(b, b.trunc(loop.i, WORD), INTS)), limit)
    x = b.select(seen, x, number(-math.inf))
    put(b, x, b.add(scores, shift))
    loop.close([larger(b, x, loop.carried[0])])
    best = across(b, loop.carried[0], larger)
    put(b, b.extract_element(best, WORD(0)), top)
    loop = Steps(b, count, LANES, [number(0.0)])
    shift = b.mul(loop.i, I64(4))
    place = b.add(scores, shift)
    weight = raised(b, b.fsub(at(b, place, VECTOR), best))
    put(b, b.fmul(weight, at(b, b.add(v_factors, shift), VECTOR)), place)
    loop.close([b.fadd(loop.carried[0], weight)])
    total = across(b, loop.carried[0], lambda b, x, y: b.fadd(x, y))
    put(b, b.extract_element(total, WORD(0)), mass)


@emitted
def fold(b: Any, out: Any, top: Any, mass: Any, more: Any, more_top: Any, more_mass: Any, depth: Any) -> None:
    """Join the weighted sums of later positions (`more` and its top and mass) into those of earlier ones."""
    tops = [splat(b, scalar_at(b, a)) for a in (top, more_top)]
    masses = [splat(b, scalar_at(b, a)) for a in (mass, more_mass)]
    best = larger(b, *tops)
    old, new = (raised(b, b.fsub(x, best)) for x in tops)
    put(b, b.extract_element(best, WORD(0)), top)
    total = fused(b, masses[0], old, b.fmul(masses[1], new))
    put(b, b.extract_element(total, WORD(0)), mass)
    loop = Steps(b, depth, LANES)
    shift = b.mul(loop.i, I64(4))
    place = b.add(out, shift)
    put(b, fused(b, at(b, place, VECTOR), old, b.fmul(at(b, b.add(more, shift), VECTOR), new)), place)
    loop.close()


@emitted
def finish(b: Any, sums: Any, mass: Any, out: Any, depth: Any) -> None:
    """out[0:depth] = sums / mass."""
    total = splat(b, scalar_at(b, mass))
    loop = Steps(b, depth, LANES)
    shift = b.mul(loop.i, I64(4))
    put(b, b.fdiv(at(b, b.add(sums, shift), VECTOR), total), b.add(out, shift))
    loop.close()


@emitted
def widen_scales(b: Any, scales: Any, out: Any, count: Any, step: Any) -> None:
    """out[i] = the fp16 at scales + i * step bytes."""
    near = b.select(b.icmp_signed("==", step, I64(2)), b.and_(count, I64(-LANES)), I64(0))
    loop = Steps(b, near, LANES)
    put(b, b.fpext(at(b, b.add(scales, b.mul(loop.i, I64(2))), HALVES, 2), VECTOR), b.add(out, b.mul(loop.i, I64(4))))
    loop.close()
    rest = Steps(b, b.sub(count, near), 1)
    i = b.add(near, rest.i)
    put(b, b.fpext(scalar_at(b, b.add(scales, b.mul(i, step)), HALF), F32), b.add(out, b.mul(i, I64(4))))
    rest.close()
