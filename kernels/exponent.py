"""2 ** x inside compiled CPU kernels, in arithmetic that loops over it can run a register at a time."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tenantry.kernels.compiling import compiled

LOG2_E = math.log2(math.e)
LEAST, ONE = np.float32(-126), np.float32(1)


def make_power_of_two(typing: Any, exponent: Any) -> Any:
    """2 ** exponent of an int32 in -126..127, by its bits."""

    def emit(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        bits = b.shl(b.add(arguments[0], ir.IntType(32)(127)), ir.IntType(32)(23))
        return b.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), emit


power_of_two: Any = intrinsic(make_power_of_two)

C1, C2, C3, C4, C5, C6, C7, C8 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 9))


@compiled
def exp2(x: np.float32) -> np.float32:
    """2 ** x for x <= 0, to 2e-7; below -126 it stays there. NaN stays NaN. Taylor over -1 < fraction <= 0."""
    x = LEAST if x < LEAST else x
    whole = np.int32(x)
    f = x - np.float32(whole)
    series = ONE + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * (C6 + f * (C7 + f * C8)))))))
    return series * np.float32(power_of_two(whole))
