"""How CPU kernels are compiled: by numba, for this processor, without Python's lock.

Machine code is cached in each module's __pycache__, and stays valid while its module and what that imports of this
library do not change.
"""

import ast
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba

HERE = Path(__file__).resolve().parent
PACKAGE = __name__.rpartition(".")[0]  # of this library

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compile for one thread. Only multiply-adds may be contracted, so results do not depend on inlining."""
    made: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})(kernel)
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
