"""A small decoder's levels in one call, compiled: embeddings, layers, head, draw, one token of each row at a time.

Owns the order of layers once more, over addresses: the kernels that compute the same layers elsewhere are called from
compiled code, so the numbers are theirs, bit for bit. It must not know tensors, nor who owns the memory.
"""

import numpy as np
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray

from tenantry.kernels.addresses import floats, pointer
from tenantry.kernels.attention.cpu import SERIAL, all_units
from tenantry.kernels.attention.cpu_write import rotate_part
from tenantry.kernels.attention.plan import CHUNK
from tenantry.kernels.chain.contract import Floats, Ints, Words
from tenantry.kernels.compiling import compiled
from tenantry.kernels.elementwise.cpu import TO_BASE_TWO, norm_rows, silu_rows
from tenantry.kernels.exponent import exp2
from tenantry.kernels.lora.cpu import all_tiles
from tenantry.kernels.quant.cpu import SINGLE_THREAD_WORK
from tenantry.kernels.quant.panels import multiply_all
from tenantry.kernels.quant.tiles import PANEL
from tenantry.kernels.sampling.cpu import heaviest
from tenantry.kernels.sampling.logits import BLOCK

Small = NDArray[np.int32]

LOWEST = float(np.finfo(np.float32).min)
NOTHING_YET = np.float32(-np.inf)


@compiled
def linear(record: Ints, parts: int, x: int, y: int, rows: int) -> None:
    """y = x @ w + bias; record: of PanelLinear."""
    depth, columns = record[6], record[7]
    many = parts if rows * depth * columns > SINGLE_THREAD_WORK else 1
    bits, w, groups, group, scale, bias = record[0], record[1], record[2], record[3], record[4], record[5]
    multiply_all(
        many, bits, w, groups, group, x, y, scale, bias, rows, depth, 4 * depth, 4 * columns, columns // PANEL
    )


@compiled
def close_up(address: int, rows: int, wider: int, width: int) -> None:
    """Rows that lie `wider` values apart to `width` values apart."""
    values = floats(address, 1, rows * wider)[0]
    for r in range(1, rows):
        for i in range(width):
            values[r * width + i] = values[r * wider + i]


@compiled
def embed(embedding: int, wide: bool, vocab: int, token: int, out: Floats) -> None:
    """One line of an fp32 or a bfloat16 matrix."""
    width = len(out)
    if wide:
        out[:] = floats(embedding, vocab, width)[token]
    else:
        line = carray(pointer(embedding), (vocab, width), np.uint16)[token]
        bits = out.view(np.uint32)
        for i in range(width):
            bits[i] = np.uint32(line[i]) << np.uint32(16)


@compiled
def choose(logits: Floats, scaled: Floats, tops: Floats, temperature: np.float32, draw: np.uint64) -> int:
    """The likeliest token, or above temperature 0 the one that the draw's noise makes so. scaled, tops: scratch."""
    size, best = len(logits), 0
    for i in range(1, size):
        if logits[i] > logits[best]:
            best = i
    if temperature == 0:
        return best
    for b in range(len(tops)):
        tops[b] = NOTHING_YET
    for i in range(size):
        scaled[i] = logits[i] / temperature
        tops[i // BLOCK] = max(tops[i // BLOCK], scaled[i])
    winner: int = heaviest(scaled, tops, LOWEST, draw, best)
    return winner if winner >= 0 else best


@compiled
def rank(logits: Floats, weights: Floats, likely: Ints, chances: Floats) -> None:
    """The likeliest tokens, falling, and their share of the whole vocabulary's. weights: scratch."""
    wanted = len(likely)
    likely[:], chances[:] = 0, NOTHING_YET
    for i in range(len(logits)):
        if logits[i] > chances[wanted - 1]:
            at = wanted - 1
            while at > 0 and logits[i] > chances[at - 1]:
                likely[at], chances[at] = likely[at - 1], chances[at - 1]
                at -= 1
            likely[at], chances[at] = i, logits[i]
    top, total = chances[0], 0.0
    for i in range(len(logits)):
        weights[i] = exp2((logits[i] - top) * TO_BASE_TWO)
    for i in range(len(logits)):
        total += weights[i]
    for at in range(wanted):
        chances[at] = np.float32(exp2((chances[at] - top) * TO_BASE_TWO) / total)


@compiled
def walk(
    tokens: Ints,
    features: Floats,
    given: int,
    begins: Ints,
    ends: Ints,
    starts: Ints,
    table: Small,
    keys: Words,
    temperatures: Floats,
    likely: Ints,
    chances: Floats,
    sizes: tuple[int, ...],
    join: Ints,
    eps: float,
    scale: np.float32,
    parts: int,
    embedding: int,
    norms: Ints,
    records: Ints,
    places: Ints,
    cos: Floats,
    sin: Floats,
    none: Floats,
    scratch: Floats,
    counts: Small,
    blocks: Small,
    tree: Ints,
    partial: tuple[NDArray[np.float32], Floats, Floats],
    n_tiles: int,
    tiles: Small,
    members: Small,
    widths: tuple[Ints, Ints, Ints, Ints],
    a: Ints,
    factor: Ints,
    b: Ints,
    padded: Small,
    item: Small,
) -> None:
    """tokens .. starts, keys .. chances: see Chain; features may be empty. join: of what joins them. table: int32 [R,
    pages]. sizes: hidden, heads, kv heads, head's width, inner, vocab, and whether embeddings are fp32. scratch,
    counts: memory, as CpuChain makes it. blocks: one of attention's for each row."""
    hidden, heads, kv_heads, width, inner, vocab, wide = sizes
    rows, total = tokens.shape
    layers, at = len(places), scratch.ctypes.data
    state_at = at
    x_at = state_at + 4 * rows * hidden
    change_at = x_at + 4 * rows * hidden
    qkv_at = change_at + 4 * rows * hidden
    q_at = qkv_at + 4 * rows * (heads + 2 * kv_heads) * width
    mixed_at = q_at + 4 * rows * heads * width
    gates_at = mixed_at + 4 * rows * heads * width
    wider = records[2, 7]  # of gate and up as the product leaves them, whose panels may not divide them
    inner_at = gates_at + 4 * rows * wider
    cos_at = inner_at + 4 * rows * inner
    sin_at = cos_at + 4 * rows * width
    logits_at = sin_at + 4 * rows * width
    stored = records[4 * layers, 7]
    scaled_at = logits_at + 4 * rows * stored
    tops_at = scaled_at + 4 * vocab
    pairs_at = tops_at + 4 * ((vocab + BLOCK - 1) // BLOCK)
    states, changes, pairs = (
        floats(state_at, rows, hidden),
        floats(change_at, rows, hidden),
        floats(pairs_at, rows, 2 * hidden),
    )
    qkv = carray(pointer(qkv_at), (rows, heads + 2 * kv_heads, width), np.float32)
    q = carray(pointer(q_at), (rows, heads, width), np.float32)
    mixed = carray(pointer(mixed_at), (rows, heads, width), np.float32)
    logits, scaled = floats(logits_at, rows, stored), floats(scaled_at, 1, vocab)[0]
    tops = floats(tops_at, 1, (vocab + BLOCK - 1) // BLOCK)[0]
    cosines, sines = floats(cos_at, rows, width), floats(sin_at, rows, width)
    cu_q, lengths, seen, first = counts[0], counts[1, :rows], counts[2, :rows], counts[3]
    owners = counts[4:].reshape(-1)
    slots = np.empty(rows, np.int64)
    for level in range(total - 1):
        pieces, cost = 0, 0
        for r in range(rows):
            at_level, page_size = max(min(level, ends[r] - 2), begins[r]), places[0, 7]
            position = starts[r] + at_level - begins[r]
            lengths[r] = seen[r] = position + 1
            slots[r] = np.int64(table[r, position // page_size]) * page_size + position % page_size
            if level != at_level:  # a row that waits or has ended is computed with the others, and stores nothing
                slots[r] = -1
            cosines[r], sines[r] = cos[position], sin[position]
            if len(features):
                pairs[r, hidden:] = features[r, at_level] if at_level < given else states[r]
                embed(embedding, wide != 0, vocab, tokens[r, at_level], pairs[r, :hidden])
            else:
                embed(embedding, wide != 0, vocab, tokens[r, at_level], states[r])
            cu_q[r + 1], first[r] = r + 1, pieces
            for piece in range(pieces, pieces + position // CHUNK + 1):
                owners[piece] = r
            pieces += position // CHUNK + 1
            cost += position + 1
        first[rows] = pieces
        if len(features):
            linear(join, parts, pairs_at, state_at, rows)
        many = parts if cost * heads * width >= SERIAL else 1
        for layer in range(layers):
            place, record = places[layer], 4 * layer
            pages = (
                place[0],
                place[1],
                place[2],
                place[3],
                place[4],
                place[5],
                place[6],
                place[7],
                place[8],
                place[9],
            )
            written = (place[1], place[2], place[3], place[4], place[5], place[7], place[8], place[9])
            source = state_at
            if norms[2 * layer]:
                source = x_at
                norm_rows(state_at, change_at if layer else 0, norms[2 * layer], eps, x_at, rows, hidden)
            linear(records[record], parts, source, qkv_at, rows)
            if n_tiles:
                y_in = 4 * (heads + 2 * kv_heads) * width
                all_tiles(
                    n_tiles, True, source, 4 * hidden, qkv_at, y_in, layer, 0, hidden, widths[0], tiles, members,
                    a, factor, b, padded, item,
                )  # fmt: skip
            rotate_part(0, 1, heads, kv_heads, qkv, cosines, sines, none, none, np.float32(0), q, written, slots)
            all_units(
                many, False, q, mixed, pages, kv_heads, scale, table, cu_q, lengths, seen, blocks, first, owners,
                tree, partial[0], partial[1], partial[2],
            )  # fmt: skip
            linear(records[record + 1], parts, mixed_at, change_at, rows)
            if n_tiles:
                x_in = 4 * heads * width
                all_tiles(
                    n_tiles, True, mixed_at, x_in, change_at, 4 * hidden, layer, 1, heads * width, widths[1], tiles,
                    members, a, factor, b, padded, item,
                )  # fmt: skip
            norm_rows(state_at, change_at, norms[2 * layer + 1], eps, x_at, rows, hidden)
            linear(records[record + 2], parts, x_at, gates_at, rows)
            if wider != 2 * inner:
                close_up(gates_at, rows, wider, 2 * inner)
            if n_tiles:
                all_tiles(
                    n_tiles, True, x_at, 4 * hidden, gates_at, 8 * inner, layer, 2, hidden, widths[2], tiles, members,
                    a, factor, b, padded, item,
                )  # fmt: skip
            silu_rows(gates_at, inner_at, rows, inner)
            linear(records[record + 3], parts, inner_at, change_at, rows)
            if n_tiles:
                all_tiles(
                    n_tiles, True, inner_at, 4 * inner, change_at, 4 * hidden, layer, 3, inner, widths[3], tiles,
                    members, a, factor, b, padded, item,
                )  # fmt: skip
        if level < given - 1:
            continue
        source = state_at
        if norms[2 * layers]:
            source = x_at
            norm_rows(state_at, change_at, norms[2 * layers], eps, x_at, rows, hidden)
        else:
            states += changes
        linear(records[4 * layers], parts, source, logits_at, rows)
        for r in range(rows):
            tokens[r, level + 1] = choose(logits[r, :vocab], scaled, tops, temperatures[r], keys[r, level + 1])
            if likely.shape[2]:
                rank(logits[r, :vocab], scaled, likely[r, level + 1], chances[r, level + 1])
