"""Products with packed weights on CPU; tiles.py has the innermost loops.

A strip of rows stays in the second-level cache, a block of k at a time, while all panels pass over it; a panel's
block stays in the caches while the strip's tiles pass over it, and meanwhile the next is fetched: reading weights and
computing overlap (Goto and van de Geijn, TOMS 2008). Panels are shared out among threads.
"""

import numpy as np
from numpy.typing import NDArray

from tenantry.kernels.compiling import compiled
from tenantry.kernels.pool import fan_out
from tenantry.kernels.quant.schemes import SMALLEST_SCALE
from tenantry.kernels.quant.tiles import MOST, PANEL, UNIT, make_bytes, make_panel

BLOCK = 1024  # values of k that a strip passes over together
STRIP = 10 * MOST  # rows: a block of them is half of a megabyte
STRIP_BYTES = 1 << 19  # where rows are bytes, and not cut along k
ZERO, MOST_CODE, MIDDLE = np.float32(0), np.float32(127), np.int32(128)
NOT_FINITE, MAGNITUDE, NAN = np.int32(0x7F800000), np.int32(0x7FFFFFFF), np.float32(np.nan)
FLOOR = np.float32(SMALLEST_SCALE)

p4, p8, p16, p32 = (make_panel(kind) for kind in ("int4", "int8", "bfloat16", "float32"))
bytes_tile = make_bytes()

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@compiled
def multiply(
    bits: int,
    w: int,
    groups: int,
    group: int,
    x: int,
    y: int,
    scale: int,
    bias: int,
    rows: int,
    depth: int,
    x_in: int,
    y_in: int,
    first: int,
    past: int,
) -> None:
    """y[:, panels first to past] = scale * (x @ panels) + bias. w: panels of [depth, PANEL] values of `bits` bits.
    groups: panels of [depth >> group, PANEL] scales and offsets, for 4 bits. x, y: fp32, rows x_in and y_in bytes
    apart. scale, bias: fp32 for every output."""
    for top in range(0, rows, STRIP):
        strip = min(STRIP, rows - top)
        tiles = (strip + MOST - 1) // MOST
        for step in range((depth + BLOCK - 1) // BLOCK * (past - first)):
            k, panel = step // (past - first) * BLOCK, first + step % (past - first)
            out, s, z = y + 4 * PANEL * panel, scale + 4 * PANEL * panel, bias + 4 * PANEL * panel
            deep = min(BLOCK, depth - k)
            here = w + (panel * depth + k) * PANEL * bits // 8
            following = here + depth * PANEL * bits // 8
            g = groups + 4 * PANEL * (panel * depth + k >> group)
            begin, end = k == 0, k + deep == depth
            share = deep * PANEL * bits // 8 // tiles
            pace = share * UNIT // deep
            for tile in range(tiles):
                row = top + strip * tile // tiles
                count = top + strip * (tile + 1) // tiles - row
                ahead = following + tile * share
                x_at, y_at = x + row * x_in + 4 * k, out + row * y_in
                if bits == 16:
                    p16(here, g, group, x_at, y_at, s, z, count, deep, x_in, y_in, begin, end, ahead, pace)
                elif bits == 8:
                    p8(here, g, group, x_at, y_at, s, z, count, deep, x_in, y_in, begin, end, ahead, pace)
                elif bits == 4:
                    p4(here, g, group, x_at, y_at, s, z, count, deep, x_in, y_in, begin, end, ahead, pace)
                else:
                    p32(here, g, group, x_at, y_at, s, z, count, deep, x_in, y_in, begin, end, ahead, pace)


@compiled
def multiply_part(
    part: int,
    parts: int,
    bits: int,
    w: int,
    groups: int,
    group: int,
    x: int,
    y: int,
    scale: int,
    bias: int,
    rows: int,
    depth: int,
    x_in: int,
    y_in: int,
    panels: int,
) -> None:
    """multiply over one part of all panels."""
    first, past = panels * part // parts, panels * (part + 1) // parts
    multiply(bits, w, groups, group, x, y, scale, bias, rows, depth, x_in, y_in, first, past)


@compiled
def multiply_all(
    parts: int,
    bits: int,
    w: int,
    groups: int,
    group: int,
    x: int,
    y: int,
    scale: int,
    bias: int,
    rows: int,
    depth: int,
    x_in: int,
    y_in: int,
    panels: int,
) -> None:
    """multiply over all panels."""
    fan_out(multiply_part, parts, (bits, w, groups, group, x, y, scale, bias, rows, depth, x_in, y_in, panels))


@compiled
def to_bytes(x: Floats, codes: Bytes, scales: Floats, first: int, past: int) -> None:
    """Quantise rows of x [T, in] into codes [T, depth >= in], zero being 128, with one scale per row: largest
    magnitude / 127, rounding half to even. A row that is not finite gets a scale of NaN."""
    bits = scales.view(np.int32)
    for t in range(first, past):
        row, out = x[t], codes[t]
        raw, largest = row.view(np.int32), np.int32(0)
        for i in range(len(raw)):
            largest = max(largest, raw[i] & MAGNITUDE)
        bits[t] = largest  # magnitudes are ordered as their bits are
        scale = max(scales[t] / MOST_CODE, FLOOR)
        scales[t] = scale if largest < NOT_FINITE else NAN
        for i in range(len(row)):
            out[i] = np.uint8(np.int32(np.rint(row[i] / scale)) + MIDDLE)
        out[len(row) :] = 0


@compiled
def to_bytes_part(part: int, parts: int, x: Floats, codes: Bytes, scales: Floats) -> None:
    to_bytes(x, codes, scales, len(x) * part // parts, len(x) * (part + 1) // parts)


@compiled
def to_bytes_all(parts: int, x: Floats, codes: Bytes, scales: Floats) -> None:
    """to_bytes over all rows."""
    fan_out(to_bytes_part, parts, (x, codes, scales))


@compiled
def multiply_bytes(
    w: int,
    excess: int,
    x: int,
    x_scale: int,
    y: int,
    scale: int,
    bias: int,
    rows: int,
    depth: int,
    y_in: int,
    first: int,
    past: int,
) -> None:
    """y[:, panels first to past] = (x @ panels - excess) * x_scale * scale + bias, x: bytes [rows, depth]."""
    most = max(1, STRIP_BYTES // (MOST * depth)) * MOST
    for top in range(0, rows, most):
        strip = min(most, rows - top)
        tiles = (strip + MOST - 1) // MOST
        for panel in range(first, past):
            column = 4 * PANEL * panel
            here, nbytes = w + panel * depth * PANEL, depth * PANEL
            share = nbytes // tiles
            for tile in range(tiles):
                row = top + strip * tile // tiles
                bytes_tile(
                    here,
                    excess + column,
                    x + row * depth,
                    x_scale + 4 * row,
                    y + row * y_in + column,
                    scale + column,
                    bias + column,
                    top + strip * (tile + 1) // tiles - row,
                    depth,
                    depth,
                    y_in,
                    here + nbytes + tile * share,
                    share * UNIT // depth,
                )


@compiled
def multiply_bytes_part(
    part: int,
    parts: int,
    w: int,
    excess: int,
    x: int,
    x_scale: int,
    y: int,
    scale: int,
    bias: int,
    rows: int,
    depth: int,
    y_in: int,
    panels: int,
) -> None:
    first, past = panels * part // parts, panels * (part + 1) // parts
    multiply_bytes(w, excess, x, x_scale, y, scale, bias, rows, depth, y_in, first, past)


@compiled
def multiply_bytes_all(
    parts: int,
    w: int,
    excess: int,
    x: int,
    x_scale: int,
    y: int,
    scale: int,
    bias: int,
    rows: int,
    depth: int,
    y_in: int,
    panels: int,
) -> None:
    """multiply_bytes over all panels."""
    fan_out(multiply_bytes_part, parts, (w, excess, x, x_scale, y, scale, bias, rows, depth, y_in, panels))
