"""How CPU kernels are compiled and run: numba's work queue, sized once, entered by one caller at a time.

Measured on two shared cores: a parallel region costs 28 us with the work queue and 2 ms with OpenMP, whose threads
spin while others compute. torch's own pool is OpenMP too, so callers do best with torch.set_num_threads(1).
Machine code is cached in each module's __pycache__, and stays valid while no source of these kernels changes.
"""

import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba

SETTINGS: Any = numba.config
SETTINGS.THREADING_LAYER = "workqueue"
GATE = threading.Lock()  # the work queue ends the process when two threads enter it at once

SOURCES = sorted(Path(__file__).parent.rglob("*.py"))
STAMP = sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compile for one thread. Only multiply-adds may be contracted, so results do not depend on inlining."""
    made: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})(kernel)
    stamp(made)
    return made  # type: ignore[no-any-return]


def compiled_parallel(kernel: Kernel) -> Kernel:
    """Compile a kernel whose prange iterations are independent; call it through run_parallel."""
    made: Any = numba.njit(nogil=True, cache=True, parallel=True, error_model="numpy", fastmath={"contract"})(kernel)
    stamp(made)
    return made  # type: ignore[no-any-return]


def stamp(kernel: Any) -> None:
    """Tie cached machine code to every source here: numba looks at the kernel's own file only, but what it inlines
    comes from others, and a stale tile would be a wrong answer."""
    kernel._cache._cache_file._source_stamp = STAMP


def set_threads(count: int) -> int:
    """Use `count` threads, 0 for every core; returns the number in use."""
    most = int(SETTINGS.NUMBA_NUM_THREADS)
    numba.set_num_threads(min(count or most, most))
    return get_threads()


def get_threads() -> int:
    """Threads that a parallel kernel called from this thread will use."""
    return int(numba.get_num_threads())


def run_parallel(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel made by compiled_parallel."""
    with GATE:
        kernel(*arguments)
