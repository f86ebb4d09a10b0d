"""Matrix products over bfloat16 or fp32 rows as they are stored, in fp32: what adapters are multiplied with.

Blocked so that a slice of the weights stays in the L2 cache while all rows pass over it (BLIS: Van Zee and van de
Geijn, TOMS 2015). An output is summed in one fixed order, so it is the same bit for bit whatever shares the batch.
"""

import numpy as np
from numpy.typing import NDArray

from tenantry.kernels.threads import compiled
from tenantry.kernels.tiles import COLUMNS, LANES, ROWS, make_dot

Floats = NDArray[np.float32]

STEP = 2 * LANES  # stored values that one iteration reads
DEPTH = 1024  # values of a row per block
BLOCK_BYTES = 1 << 18  # of stored values per block

b1, b2, b3, b4, b5, b6 = (make_dot(min(rows, ROWS), "bfloat16", True) for rows in range(1, 7))
f1, f2, f3, f4, f5, f6 = (make_dot(min(rows, ROWS), "float32", True) for rows in range(1, 7))


@compiled
def tile_bfloat16(
    rows: int,
    w: int,
    x: int,
    y: int,
    before: int,
    depth: int,
    w_stride: int,
    x_stride: int,
    y_stride: int,
    before_stride: int,
) -> None:
    if rows == 1:
        b1(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 2:
        b2(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 3:
        b3(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 4:
        b4(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 5:
        b5(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    else:
        b6(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)


@compiled
def tile_float32(
    rows: int,
    w: int,
    x: int,
    y: int,
    before: int,
    depth: int,
    w_stride: int,
    x_stride: int,
    y_stride: int,
    before_stride: int,
) -> None:
    if rows == 1:
        f1(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 2:
        f2(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 3:
        f3(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 4:
        f4(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    elif rows == 5:
        f5(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)
    else:
        f6(w, x, y, before, depth, w_stride, x_stride, y_stride, before_stride)


@compiled
def multiply(
    w: int, item: int, x: int, bias: int, y: int, rows: int, depth: int, first: int, past: int, y_stride: int
) -> None:
    """y[:, first:past] = x @ w[first:past].T + bias. w, x, bias, y: addresses of [*, depth] stored values of `item`
    bytes, [rows, depth] fp32 in tile order, [*] fp32, [rows, y_stride / 4] fp32."""
    tiles = (rows + ROWS - 1) // ROWS
    for k in range(0, depth, DEPTH):
        deep = min(DEPTH, depth - k)
        wide = max(1, BLOCK_BYTES // (item * deep * COLUMNS)) * COLUMNS
        for block in range(first, past, wide):
            row = 0
            for tile in range(tiles):
                count = (rows - row + tiles - tile - 1) // (tiles - tile)
                for n in range(block, min(block + wide, past), COLUMNS):
                    here = y + row * y_stride + 4 * n
                    before, stride = (bias + 4 * n, 0) if k == 0 else (here, y_stride)
                    w_at, x_at = w + item * (n * depth + k), x + 4 * (row * depth + k)
                    if item == 2:
                        tile_bfloat16(count, w_at, x_at, here, before, deep, 2 * depth, 4 * depth, y_stride, stride)
                    else:
                        tile_float32(count, w_at, x_at, here, before, deep, 4 * depth, 4 * depth, y_stride, stride)
                row += count


@compiled
def arrange(x: Floats, out: Floats, item: int) -> None:
    """Copy x [T, in] into out [T, depth >= in] in the order that tiles of `item`-byte storage want, zero-padded."""
    rows, width = x.shape
    half = STEP // 2
    for t in range(rows):
        out[t, width - width % STEP :] = 0
        if item == 2:
            for i in range(width):
                within = i % STEP
                out[t, i - within + (within % 2) * half + within // 2] = x[t, i]
        else:
            for i in range(width):
                out[t, i] = x[t, i]
