"""Arrays inside compiled code from addresses that were passed as ints: the cheapest way to hand a tensor over.

`tensor.data_ptr()` costs 0.1 us where `tensor.numpy()` costs 2; the caller keeps the tensor alive and contiguous.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

from tenantry.kernels.compiling import compiled


def make_pointer(typing: Any, address: Any) -> Any:
    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.intp), emit


pointer: Any = intrinsic(make_pointer)


@compiled
def floats(address: int, rows: int, columns: int) -> NDArray[np.float32]:
    """[rows, columns] fp32, contiguous."""
    return carray(pointer(address), (rows, columns), np.float32)
