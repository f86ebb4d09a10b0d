"""How CPU kernels are compiled and run: numba's work queue, sized once, entered by one caller at a time.

Measured on two shared cores: a parallel region costs 28 us with the work queue and 2 ms with OpenMP, whose threads
spin while others compute. torch's own pool is OpenMP too, so callers do best with torch.set_num_threads(1).
Machine code is cached in each module's __pycache__, and stays valid while its module and what that imports of this
library do not change.
"""

import ast
import threading
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba

SETTINGS: Any = numba.config
SETTINGS.THREADING_LAYER = "workqueue"
GATE = threading.Lock()  # the work queue ends the process when two threads enter it at once

HERE = Path(__file__).resolve().parent
PACKAGE = __name__.rpartition(".")[0]  # of this library

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


@cache
def sources(path: Path) -> frozenset[Path]:
    """A file of this library and every file of it that it imports, directly or not."""
    found, new = {path}, {path}
    while new:
        new = {source for file in new for source in _imports(file)} - found
        found |= new
    return frozenset(found)


@cache
def _imports(file: Path) -> frozenset[Path]:
    imports = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module and f"{node.module}.".startswith(f"{PACKAGE}.")]
    names = [name for node in ours for name in (node.module, *(f"{node.module}.{a.name}" for a in node.names))]
    paths = [HERE.joinpath(*name.removeprefix(PACKAGE).split(".")).with_suffix(".py") for name in names if name]
    return frozenset(path for path in paths if path.is_file())


@cache
def digest(path: Path) -> str:
    """Of everything that the machine code of a file's kernels is made of."""
    return sha256(b"".join(source.read_bytes() for source in sorted(sources(path)))).hexdigest()


def stamp(kernel: Any) -> None:
    """Tie cached machine code to all of its sources: numba looks at the kernel's own file only, but what it inlines,
    constants among it, comes from others, and a stale tile would be a wrong answer."""
    kernel._cache._cache_file._source_stamp = digest(Path(kernel.py_func.__code__.co_filename).resolve())


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
