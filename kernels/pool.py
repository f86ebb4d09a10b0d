"""Who computes the parts of a parallel region on CPU: the caller itself, and workers that stay awake for a moment.

A decode step enters some 150 regions of 0.05 to 1 ms, with 10 to 50 us of other work between two. Pools that put
their threads to sleep in between, and deal the parts out beforehand, lose 0.1 to 0.25 ms a region on two virtual
cores; pools that wait for whom they gave a part wait for a thread that the OS does not run. Here parts are claimed
one by one, so that nobody waits for a thread that has not begun, and a worker spins for AWAKE cycles before it
sleeps. A second caller meanwhile computes its region alone.

State is one block of 64-bit words, each owner's on cache lines of its own:

    CLAIMS: epoch << 32 | parts that nobody took yet        DONE: parts that are computed
    HELPERS: workers that may take parts                    BUSY: 1 while a caller has the pool
    FN, ARGUMENTS, PARTS: the region under way, valid for whoever took one of its parts
    WORKERS + LINE * w: whether worker w sleeps, and its semaphore
"""

import atexit
import ctypes
import os
import threading
import time
from typing import Any, Final

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from tenantry.kernels.atomics import add, cycles, exchange, load, pause, store, swap_if
from tenantry.kernels.compiling import compiled

LINE: Final = 128  # bytes: two cache lines, for they are fetched in pairs
CLAIMS, DONE, HELPERS, BUSY, REGION, WORKERS = (LINE * i for i in range(6))
FN, ARGUMENTS, PARTS = REGION, REGION + 8, REGION + 16
SEMAPHORE: Final = 8  # in a worker's lines
MOST_WORKERS: Final = 255
OPEN: Final = 0xFFFFFFFF  # mask of CLAIMS
AWAKE: Final = 1_000_000  # cycles that an idle worker spins: 0.4 ms at 2.5 GHz
PATIENCE: Final = 64  # looks before the core is offered to others: some 4 us
STATE: Final = "tenantry_pool"  # a symbol, so that cached machine code finds this process's own
WORD = ir.IntType(64)
CODE: Any = cgutils

sem_wait: Any = types.ExternalFunction("sem_wait", types.int32(types.intp))
sem_post: Any = types.ExternalFunction("sem_post", types.int32(types.intp))
sched_yield: Any = types.ExternalFunction("sched_yield", types.int32())


def make_invoke(typing: Any, fn: Any, arguments: Any, part: Any, parts: Any) -> Any:
    """Call what fan_out made of a kernel's body."""

    def emit(context: Any, b: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [WORD] * 3)
        b.call(b.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), emit


invoke: Any = intrinsic(make_invoke)


@compiled
def take(state: int) -> int:
    """Claim a part; which, or -1 when all are taken."""
    while True:
        now = load(state + CLAIMS)
        left = now & OPEN
        if left == 0:
            return -1
        if swap_if(state + CLAIMS, now, now - 1):
            part: int = load(state + PARTS) - left  # first things first
            return part


@compiled
def compute(state: int, part: int) -> None:
    invoke(load(state + FN), load(state + ARGUMENTS), part, load(state + PARTS))
    add(state + DONE, 1)


@compiled
def wait_a_little(looks: int) -> int:
    """Between two looks, which are counted: whom we wait for may be waiting for this very core."""
    pause()
    if looks % PATIENCE == PATIENCE - 1:
        sched_yield()
    return looks + 1


@compiled
def work(state: int, me: int) -> None:
    """A worker's life, which ends with the process."""
    mine, last, looks = state + WORKERS + LINE * me, cycles(), 0
    while True:
        part = take(state) if me < load(state + HELPERS) else -1
        if part >= 0:
            compute(state, part)
            last = cycles()
        elif cycles() - last < AWAKE:
            looks = wait_a_little(looks)
        else:
            store(mine, 1)
            # A region that was opened before its caller could see that we sleep: stay, unless it did and posts.
            late = me < load(state + HELPERS) and load(state + CLAIMS) & OPEN != 0
            if not (late and exchange(mine, 0) == 1):
                sem_wait(mine + SEMAPHORE)
            last = cycles()


@compiled
def run_region(state: int, fn: int, arguments: int, parts: int) -> None:
    """All parts of one region, which lies at an address that is good until this returns."""
    if parts == 1 or exchange(state + BUSY, 1) == 1:
        for part in range(parts):
            invoke(fn, arguments, part, parts)
        return
    store(state + FN, fn)
    store(state + ARGUMENTS, arguments)
    store(state + PARTS, parts)
    store(state + DONE, 0)
    store(state + CLAIMS, ((load(state + CLAIMS) >> 32) + 1) << 32 | parts)
    for worker in range(min(load(state + HELPERS), parts - 1)):
        line = state + WORKERS + LINE * worker
        if exchange(line, 0) == 1:
            sem_post(line + SEMAPHORE)
    part = take(state)
    while part >= 0:
        compute(state, part)
        part = take(state)
    looks = 0
    while load(state + DONE) != parts:
        looks = wait_a_little(looks)
    store(state + BUSY, 0)


def overload(kernel: Any, kinds: tuple[Any, ...]) -> Any:
    """A kernel compiled for arguments of these types."""
    kernel.compile(kinds)
    return kernel.overloads[kinds]


def make_fan_out(typing: Any, body: Any, parts: Any, arguments: Any) -> Any:
    """body(part, parts, *arguments) for every part, in any order and at once. body: made by `compiled`; must not
    raise. arguments: a tuple of what compiled code can hold."""
    kinds = (types.intp, types.intp, *arguments.types)
    made, run = overload(body.dispatcher, kinds), overload(run_region, (types.intp,) * 4)

    def emit(context: Any, b: Any, signature: Any, values: Any) -> Any:
        _, count, packed = values
        context.add_linking_libs([made.library, run.library])
        kind = ir.FunctionType(ir.VoidType(), [WORD] * 3)
        entry = ir.Function(b.module, kind, b.module.get_unique_name("part"))
        entry.linkage = "internal"
        inner: Any = ir.IRBuilder(entry.append_basic_block())
        where, part, whole = entry.args
        held = inner.load(inner.inttoptr(where, packed.type.as_pointer()))
        unpacked = CODE.unpack_tuple(inner, held, len(arguments.types))
        context.call_internal_no_propagate(inner, made.fndesc, made.signature, [part, whole, *unpacked])
        inner.ret_void()
        slot = CODE.alloca_once_value(b, packed)
        state = b.module.globals.get(STATE) or CODE.add_global_variable(b.module, ir.IntType(8), STATE)
        words = [b.ptrtoint(address, WORD) for address in (state, entry, slot)]
        context.call_internal_no_propagate(b, run.fndesc, run.signature, [*words, count])
        return context.get_dummy_value()

    return types.void(body, types.intp, arguments), emit


fan_out: Any = intrinsic(make_fan_out)


class Pool:
    """The process's workers. Its memory is never freed: a thread may look at it until the process is gone."""

    def __init__(self) -> None:
        memory = ctypes.create_string_buffer(WORKERS + LINE * (MOST_WORKERS + 1))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        self._state = -(-ctypes.addressof(memory) // LINE) * LINE
        self._started = 0
        llvmlite.binding.add_symbol(STATE, self._state)
        atexit.register(self.rest)

    def resize(self, helpers: int) -> None:
        """Let so many workers help a caller. Raises OSError."""
        overload(work, (types.intp, types.intp))
        for me in range(self._started, min(helpers, MOST_WORKERS)):
            semaphore = ctypes.c_void_p(self._state + WORKERS + LINE * me + SEMAPHORE)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.sem_init(semaphore, 0, 0):
                raise OSError(ctypes.get_errno(), "sem_init")
            threading.Thread(target=work, args=(self._state, me), name=f"kernels-{me}", daemon=True).start()
            self._started += 1
        self._word(HELPERS).value = min(helpers, MOST_WORKERS)

    def rest(self) -> None:
        """Send every worker to sleep: machine code goes away when the interpreter ends, and none may be in it."""
        self._word(HELPERS).value = 0
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline and not all(self._asleep(me) for me in range(self._started)):
            time.sleep(0.001)

    def _asleep(self, me: int) -> bool:
        return self._word(WORKERS + LINE * me).value == 1

    def _word(self, offset: int) -> ctypes.c_int64:
        return ctypes.c_int64.from_address(self._state + offset)


POOL = Pool()
PARTS_EACH: Final = 4  # parts per thread: who is slowed down by others does fewer of them
threads = 1


def set_threads(count: int) -> int:
    """Use `count` threads, 0 for every core; returns the number in use."""
    global threads
    threads = min(count or len(os.sched_getaffinity(0)), MOST_WORKERS + 1)
    POOL.resize(threads - 1)
    return threads


def get_threads() -> int:
    """Threads that a region is computed by: the caller and its helpers."""
    return threads


def get_parts() -> int:
    """Parts that a region of even work is best split into."""
    return threads * PARTS_EACH if threads > 1 else 1
