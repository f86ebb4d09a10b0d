"""Mixed-adapter LoRA on CPU: each run of tokens reads its own adapter once, at its true rank, in stored precision.

Bytes are those of the active adapters and nothing else: no slab of all adapters, no gather, no padding to a common
rank. A row's result is the same bit for bit whatever shares the batch.
"""

import numpy as np
from numba import prange
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import CPU_PADDING, LoraTable
from tenantry.kernels.quant.cpu import arrange, multiply
from tenantry.kernels.threads import compiled, compiled_parallel, get_threads, run_parallel
from tenantry.kernels.tiles import LANES, ROWS, make_outer

IN_MULTIPLE, OUT_MULTIPLE = CPU_PADDING.inputs, CPU_PADDING.outputs
WIDTH = 4 * LANES  # outputs per outer tile

ob1, ob2, ob4 = (make_outer(min(rows, ROWS), 4, "bfloat16") for rows in (1, 2, 4))
of1, of2, of4 = (make_outer(min(rows, ROWS), 4, "float32") for rows in (1, 2, 4))

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Floats = NDArray[np.float32]


@compiled
def expand_tile(
    item: int, rows: int, b: int, bridge: int, y: int, rank: int, b_in: int, bridge_in: int, y_in: int
) -> None:
    """y[rows, WIDTH] += bridge[rows, rank] @ b[rank, WIDTH]; addresses and strides in bytes."""
    if item == 2:
        if rows == 4:
            ob4(b, bridge, y, rank, b_in, bridge_in, y_in)
        elif rows == 2:
            ob2(b, bridge, y, rank, b_in, bridge_in, y_in)
        else:
            ob1(b, bridge, y, rank, b_in, bridge_in, y_in)
    elif rows == 4:
        of4(b, bridge, y, rank, b_in, bridge_in, y_in)
    elif rows == 2:
        of2(b, bridge, y, rank, b_in, bridge_in, y_in)
    else:
        of1(b, bridge, y, rank, b_in, bridge_in, y_in)


@compiled
def shrink(item: int, x: Floats, a: int, nothing: Floats, bridge: Floats) -> None:
    """bridge[rows, ranks] = x[rows, depth] @ A_cat.T. Arrays, not addresses, so that callers keep them alive."""
    rows, depth = x.shape
    ranks = bridge.shape[1]
    out, before = bridge.ctypes.data, nothing.ctypes.data
    multiply(a, item, x.ctypes.data, before, out, rows, depth, 0, ranks, 4 * ranks)


@compiled
def expand(item: int, b: int, bridge: Floats, before: int, rank: int, delta: Floats) -> None:
    """delta[rows, width] += bridge[rows, before : before + rank] @ b[rank, width]; width a multiple of WIDTH."""
    rows, width = delta.shape
    bridge_in, out_in = 4 * bridge.shape[1], 4 * width
    bridge_at, out_at = bridge.ctypes.data + 4 * before, delta.ctypes.data
    for column in range(0, width, WIDTH):
        row = 0
        while row < rows:
            left = rows - row
            count = 4 if left >= 4 and ROWS >= 4 else 2 if left >= 2 else 1
            here, weight = out_at + row * out_in + 4 * column, bridge_at + row * bridge_in
            expand_tile(item, count, b + item * column, weight, here, rank, item * width, bridge_in, out_in)
            row += count


@compiled
def one_tile(
    item: int, x: Floats, y: Floats, tokens: Ints, a: int, b: Ints, ranks: Small, scale: Floats, widths: Ints
) -> None:
    """All slices of one site for some tokens of one adapter. a: address of A_cat; b: addresses per slice; ranks:
    as stored, per slice; widths: output features per slice."""
    rows, width = len(tokens), x.shape[1]
    total = ranks.sum()
    if total == 0:
        return
    taken = np.empty((rows, width), np.float32)
    arranged = np.empty((rows, (width + IN_MULTIPLE - 1) // IN_MULTIPLE * IN_MULTIPLE), np.float32)
    for i in range(rows):
        taken[i] = x[tokens[i]]
    arrange(taken, arranged, item)
    bridge = np.empty((rows, total), np.float32)
    shrink(item, arranged, a, np.zeros(total, np.float32), bridge)
    before, column = 0, 0
    for part in range(len(widths)):
        rank = ranks[part]
        if rank:
            for i in range(rows):
                for j in range(before, before + rank):
                    bridge[i, j] *= scale[part]
            delta = np.zeros((rows, (widths[part] + OUT_MULTIPLE - 1) // OUT_MULTIPLE * OUT_MULTIPLE), np.float32)
            expand(item, b[part], bridge, before, rank, delta)
            for i in range(rows):
                for j in range(widths[part]):
                    y[tokens[i], column + j] += delta[i, j]
        before += rank
        column += widths[part]


@compiled_parallel
def all_tiles(
    item: int,
    x: Floats,
    y: Floats,
    tokens: Ints,
    tiles: Ints,
    a: Ints,
    b: Ints,
    ranks: Small,
    scale: Floats,
    widths: Ints,
    parts: int,
) -> None:
    """tiles: [P, 3] slot, first token, past token; dearest first, so that dealing them out in turn is fair.
    a [slots], b, ranks and scale [slots, slices]: the table's columns of one site."""
    for part in prange(parts):
        for p in range(part, len(tiles), parts):
            slot = tiles[p, 0]
            mine = tokens[tiles[p, 1] : tiles[p, 2]]
            one_tile(item, x, y, mine, a[slot], b[slot], ranks[slot], scale[slot], widths)


def apply_lora(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> None:
    """Add each row's adapter to a site's output, in place: y += scale * B (A x).

    x: [T, in] fp32, the site's input. y: [T, sum of slices] fp32, its output. Rows of the base model are not read
    and not written. Raises RuntimeError for a plan older than the table.
    """
    table.require(plan)
    if not plan.runs:
        return
    at = table.site_index[site]
    run_parallel(
        all_tiles,
        table.dtype.itemsize,
        x.numpy(),
        y.numpy(),
        plan.tokens.numpy(),
        plan.tiles.numpy(),
        table.a_address[layer, at],
        table.b_address[layer, at],
        table.padded[layer, at],
        table.scale[layer, at],
        table.widths[site],
        min(get_threads(), len(plan.tiles)),
    )
