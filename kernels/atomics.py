"""Shared memory between compiled threads: ordered loads, stores and exchanges of 64-bit words by address, and how a
thread waits without giving up its core. Every operation is sequentially consistent, so that an order seen by one
thread is the order that all see.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WORD = ir.IntType(64)
ORDER = "seq_cst"


def word(b: Any, address: Any) -> Any:
    return b.inttoptr(address, WORD.as_pointer())


def made(result: Any, arguments: int, emit: Callable[..., Any]) -> Any:
    """An intrinsic over so many words."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        answer = emit(b, *values)
        return context.get_dummy_value() if signature.return_type == types.void else answer

    signature = result(*[types.intp] * arguments)
    if arguments == 0:
        return intrinsic(lambda typing: (signature, generate))
    if arguments == 1:
        return intrinsic(lambda typing, address: (signature, generate))
    if arguments == 2:
        return intrinsic(lambda typing, address, value: (signature, generate))
    return intrinsic(lambda typing, address, old, new: (signature, generate))


def _swap_if(b: Any, address: Any, old: Any, new: Any) -> Any:
    return b.extract_value(b.cmpxchg(word(b, address), old, new, ORDER, ORDER), 1)


def _declared(b: Any, name: str, result: Any) -> Any:
    found = b.module.globals.get(name)
    return found or ir.Function(b.module, ir.FunctionType(result, []), name)


load = made(types.intp, 1, lambda b, a: b.load_atomic(word(b, a), ORDER, 8))
store = made(types.void, 2, lambda b, a, v: b.store_atomic(v, word(b, a), ORDER, 8))
add = made(types.intp, 2, lambda b, a, v: b.atomic_rmw("add", word(b, a), v, ORDER))  # returns what was there
exchange = made(types.intp, 2, lambda b, a, v: b.atomic_rmw("xchg", word(b, a), v, ORDER))
swap_if = made(types.boolean, 3, _swap_if)  # (address, old, new): whether old was there, and was replaced
pause = made(types.void, 0, lambda b: b.call(_declared(b, "llvm.x86.sse2.pause", ir.VoidType()), []))
cycles = made(types.intp, 0, lambda b: b.call(_declared(b, "llvm.readcyclecounter", WORD), []))
