"""Mixed-adapter LoRA on CPU: each run of tokens reads its own adapter once, at its true rank, in stored precision.

Bytes are those of the active adapters and nothing else: no slab of all adapters, no gather, no padding to a common
rank. int8 weights are widened in registers and their scales multiply the bridge. A row's result is the same bit for
bit whatever shares the batch.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.compiling import compiled
from tenantry.kernels.lora.layout import CPU_PACKING
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.lora.tiles import BLOCK, COLUMNS, VECTORS, load, make_expand, make_shrink, store
from tenantry.kernels.pool import fan_out, get_threads
from tenantry.kernels.tiles import LANES, ROWS

DEPTH = 1024  # inputs per block: a block of x for ROWS rows stays in the L1 cache
SINGLE_THREAD_WORK = 1 << 18  # plan.work times features below which a parallel region costs more than it saves
PANEL = CPU_PACKING.panel
WIDTH = VECTORS * LANES  # outputs per expand tile

Ints = NDArray[np.int64]
Small = NDArray[np.int32]
Floats = NDArray[np.float32]

si1, si2, si4, si6 = (make_shrink(min(rows, ROWS), "int8") for rows in (1, 2, 4, 6))
sb1, sb2, sb4, sb6 = (make_shrink(min(rows, ROWS), "bfloat16") for rows in (1, 2, 4, 6))
sf1, sf2, sf4, sf6 = (make_shrink(min(rows, ROWS), "float32") for rows in (1, 2, 4, 6))
ei1, ei2, ei4, ei6 = (make_expand(min(rows, ROWS), "int8") for rows in (1, 2, 4, 6))
eb1, eb2, eb4, eb6 = (make_expand(min(rows, ROWS), "bfloat16") for rows in (1, 2, 4, 6))
ef1, ef2, ef4, ef6 = (make_expand(min(rows, ROWS), "float32") for rows in (1, 2, 4, 6))


@compiled
def shrink_tile(
    item: int, rows: int, a: int, a_in: int, x: int, x_at: int, out: int, out_in: int, depth: int, again: int
) -> None:
    if item == 1:
        if rows == 6:
            si6(a, a_in, x, x_at, out, out_in, depth, again)
        elif rows == 4:
            si4(a, a_in, x, x_at, out, out_in, depth, again)
        elif rows == 2:
            si2(a, a_in, x, x_at, out, out_in, depth, again)
        else:
            si1(a, a_in, x, x_at, out, out_in, depth, again)
    elif item == 2:
        if rows == 6:
            sb6(a, a_in, x, x_at, out, out_in, depth, again)
        elif rows == 4:
            sb4(a, a_in, x, x_at, out, out_in, depth, again)
        elif rows == 2:
            sb2(a, a_in, x, x_at, out, out_in, depth, again)
        else:
            sb1(a, a_in, x, x_at, out, out_in, depth, again)
    elif rows == 6:
        sf6(a, a_in, x, x_at, out, out_in, depth, again)
    elif rows == 4:
        sf4(a, a_in, x, x_at, out, out_in, depth, again)
    elif rows == 2:
        sf2(a, a_in, x, x_at, out, out_in, depth, again)
    else:
        sf1(a, a_in, x, x_at, out, out_in, depth, again)


@compiled
def expand_tile(
    item: int, rows: int, b: int, b_in: int, bridge: int, bridge_in: int, y: int, y_at: int, rank: int
) -> None:
    if item == 1:
        if rows == 6:
            ei6(b, b_in, bridge, bridge_in, y, y_at, rank)
        elif rows == 4:
            ei4(b, b_in, bridge, bridge_in, y, y_at, rank)
        elif rows == 2:
            ei2(b, b_in, bridge, bridge_in, y, y_at, rank)
        else:
            ei1(b, b_in, bridge, bridge_in, y, y_at, rank)
    elif item == 2:
        if rows == 6:
            eb6(b, b_in, bridge, bridge_in, y, y_at, rank)
        elif rows == 4:
            eb4(b, b_in, bridge, bridge_in, y, y_at, rank)
        elif rows == 2:
            eb2(b, b_in, bridge, bridge_in, y, y_at, rank)
        else:
            eb1(b, b_in, bridge, bridge_in, y, y_at, rank)
    elif rows == 6:
        ef6(b, b_in, bridge, bridge_in, y, y_at, rank)
    elif rows == 4:
        ef4(b, b_in, bridge, bridge_in, y, y_at, rank)
    elif rows == 2:
        ef2(b, b_in, bridge, bridge_in, y, y_at, rank)
    else:
        ef1(b, b_in, bridge, bridge_in, y, y_at, rank)


@compiled
def rows_at_once(left: int) -> int:
    """The largest tile for so many rows."""
    if left >= 6 and ROWS >= 6:
        return 6
    if left >= 4 and ROWS >= 4:
        return 4
    return 2 if left >= 2 else 1


@compiled
def shrink(item: int, a: int, width: int, x: Ints, memory: Floats, bridge: Floats) -> None:
    """bridge[rows, ranks] = x @ A_cat.T. a: address of [ranks, width]. x: [rows] addresses of fp32 [width]. memory:
    what they may point into; an argument outlives the call, and a variable that is not used again does not."""
    rows, ranks = bridge.shape
    x_at, bridge_at = x.ctypes.data, bridge.ctypes.data
    for k in range(0, width, DEPTH):
        row = 0
        while row < rows:
            count = rows_at_once(rows - row)
            for rank in range(0, ranks, COLUMNS):
                out, stored = bridge_at + 4 * (row * ranks + rank), a + item * (rank * width + k)
                deep = min(DEPTH, width - k)
                shrink_tile(item, count, stored, item * width, x_at + 8 * row, 4 * k, out, 4 * ranks, deep, k)
            row += count


@compiled
def expand(item: int, b: int, bridge: Floats, before: int, rank: int, y: Ints, column: int, width: int) -> None:
    """y[rows][column : column + width] += bridge[:, before : before + rank] @ B. b: address of panels. y: [rows]
    addresses of fp32 rows. A panel that is not full goes through scratch memory."""
    rows, ranks = bridge.shape
    y_at, weight = y.ctypes.data, bridge.ctypes.data + 4 * before
    scratch = np.empty((ROWS, PANEL), np.float32)
    lines = np.empty(ROWS, np.int64)
    for i in range(ROWS):
        lines[i] = scratch.ctypes.data + 4 * PANEL * i
    row = 0
    while row < rows:
        count = rows_at_once(rows - row)
        bridge_at = weight + 4 * row * ranks
        for panel in range(0, width, PANEL):
            stored = b + item * panel * rank
            if panel + PANEL <= width:
                for n in range(0, PANEL, WIDTH):
                    at = 4 * (column + panel + n)
                    here = stored + item * n
                    expand_tile(item, count, here, item * PANEL, bridge_at, 4 * ranks, y_at + 8 * row, at, rank)
            else:
                scratch[:] = 0
                for n in range(0, PANEL, WIDTH):
                    here = stored + item * n
                    expand_tile(item, count, here, item * PANEL, bridge_at, 4 * ranks, lines.ctypes.data, 4 * n, rank)
                add(scratch, count, y[row : row + count], column + panel, width - panel)
        row += count


@compiled
def add(values: Floats, rows: int, y: Ints, column: int, width: int) -> None:
    """y[rows][column : column + width] += values[:, :width]."""
    for i in range(rows):
        for j in range(width):
            place = y[i] + 4 * (column + j)
            store(place, load(place) + values[i, j])


@compiled
def one_tile(
    item: int, x: Ints, y: Ints, a: int, factor: int, b: Ints, padded: Small, in_features: int, widths: Ints
) -> None:
    """All slices of one site for some tokens of one adapter. x, y: addresses of the tokens' rows. a, factor:
    addresses of A_cat and of what the bridge is multiplied by. b: addresses, and padded: stored ranks, per slice."""
    rows, total = len(x), padded.sum()
    if total == 0:
        return
    width = (in_features + BLOCK - 1) // BLOCK * BLOCK
    whole = np.zeros((rows if width != in_features else 0, width), np.float32)
    lines = x.copy()
    for i in range(len(whole)):
        for j in range(in_features):
            whole[i, j] = load(x[i] + 4 * j)
        lines[i] = whole.ctypes.data + 4 * width * i
    bridge = np.empty((rows, total), np.float32)
    shrink(item, a, width, lines, whole, bridge)
    for i in range(rows):
        for j in range(total):
            bridge[i, j] *= load(factor + 4 * j)
    before, column = 0, 0
    for part in range(len(widths)):
        if padded[part]:
            expand(item, b[part], bridge, before, padded[part], y, column, widths[part])
        before += padded[part]
        column += widths[part]


@compiled
def tile_part(
    part: int,
    parts: int,
    x: int,
    x_in: int,
    y: int,
    y_in: int,
    layer: int,
    site: int,
    in_features: int,
    widths: Ints,
    tiles: Small,
    tokens: Small,
    a: Ints,
    factor: Ints,
    b: Ints,
    padded: Small,
    item: Small,
) -> None:
    """The part-th tile; arguments as in all_tiles."""
    slot, first, past = tiles[part, 0], tiles[part, 1], tiles[part, 2]
    x_rows, y_rows = np.empty(past - first, np.int64), np.empty(past - first, np.int64)
    for i in range(past - first):
        x_rows[i], y_rows[i] = x + x_in * tokens[first + i], y + y_in * tokens[first + i]
    one_tile(
        item[layer, site, slot],
        x_rows,
        y_rows,
        a[layer, site, slot],
        factor[layer, site, slot],
        b[layer, site, slot],
        padded[layer, site, slot],
        in_features,
        widths,
    )


@compiled
def all_tiles(
    n_tiles: int,
    alone: bool,
    x: int,
    x_in: int,
    y: int,
    y_in: int,
    layer: int,
    site: int,
    in_features: int,
    widths: Ints,
    tiles: Small,
    tokens: Small,
    a: Ints,
    factor: Ints,
    b: Ints,
    padded: Small,
    item: Small,
) -> None:
    """x, y: addresses, rows x_in and y_in bytes apart. tiles, tokens: the plan's, the dearest tile first. a .. item:
    the table's, whole. alone: without helpers."""
    work = (x, x_in, y, y_in, layer, site, in_features, widths, tiles, tokens, a, factor, b, padded, item)
    if alone:
        for part in range(n_tiles):
            tile_part(part, n_tiles, *work)
    else:
        fan_out(tile_part, n_tiles, work)


def apply_lora(x: Tensor, y: Tensor, layer: int, site: str, plan: LoraPlan, table: LoraTable) -> None:
    """Add each row's adapter to a site's output, in place: y += B (factors * (A x)).

    x: [T, in] fp32, the site's input. y: [T, sum of slices] fp32, its output; rows of both contiguous. Rows of the
    base model are not read and not written. Raises RuntimeError for a plan older than the table.
    """
    table.require(plan)
    if not plan.n_tiles:
        return
    shape = table.sites[site]
    alone = get_threads() == 1 or plan.work * (shape.in_features + shape.out_features) < SINGLE_THREAD_WORK
    all_tiles(
        plan.n_tiles,
        alone,
        x.data_ptr(),
        4 * x.stride(0),
        y.data_ptr(),
        4 * y.stride(0),
        layer,
        table.site_index[site],
        shape.in_features,
        table.widths[site],
        plan.host_tiles,
        plan.host_tokens,
        table.a_address,
        table.factor_address,
        table.b_address,
        table.padded,
        table.item,
    )
