"""A small decoder that goes on from its own tokens on CPU: all levels of all rows in one compiled call.

Of a forward pass as small as a draft model's, most is entering: some 25 calls per layer, a plan, a batch. Here the
kernels that compute the same layers elsewhere are called from compiled code, one token of each row at a time, so the
numbers are theirs, bit for bit. Owns the order of layers once more, for decoders that are no more than that.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numba import carray  # type: ignore[attr-defined]
from numpy.typing import NDArray
from torch import Tensor

from tenantry.kernels.addresses import floats, pointer
from tenantry.kernels.attention import cpu as attention
from tenantry.kernels.attention import cpu_write
from tenantry.kernels.attention.cpu import LOG2_E, NO_FLOATS, SERIAL, all_units
from tenantry.kernels.attention.cpu_write import NONE, rotate_part
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.pieces import KINDS
from tenantry.kernels.attention.plan import CHUNK, NO_TREE
from tenantry.kernels.chain.contract import SITES, Chain, ChainLayer, Floats, Ints, Words
from tenantry.kernels.compiling import compiled
from tenantry.kernels.elementwise.cpu import TO_BASE_TWO, norm_rows, silu_rows
from tenantry.kernels.exponent import exp2
from tenantry.kernels.lora.cpu import all_tiles
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.pool import get_parts, get_threads
from tenantry.kernels.quant.cpu import SINGLE_THREAD_WORK, PanelLinear
from tenantry.kernels.quant.linear import Linear
from tenantry.kernels.quant.panels import multiply_all
from tenantry.kernels.quant.tiles import PANEL
from tenantry.kernels.sampling.cpu import heaviest
from tenantry.kernels.sampling.logits import BLOCK

Small = NDArray[np.int32]

LOWEST = float(np.finfo(np.float32).min)
NO_TILES = np.zeros((0, 3), np.int32), np.zeros(0, np.int32)
SMALLEST = np.float32(-np.inf)


@compiled
def linear(record: Ints, parts: int, x: int, y: int, rows: int) -> None:
    """y = x @ w + bias; record: of _record()."""
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
        tops[b] = SMALLEST
    for i in range(size):
        scaled[i] = logits[i] / temperature
        tops[i // BLOCK] = max(tops[i // BLOCK], scaled[i])
    winner: int = heaviest(scaled, tops, LOWEST, draw, best)
    return winner if winner >= 0 else best


@compiled
def rank(logits: Floats, weights: Floats, likely: Ints, chances: Floats) -> None:
    """The likeliest tokens, falling, and their share of the whole vocabulary's. weights: scratch."""
    wanted = len(likely)
    likely[:], chances[:] = 0, SMALLEST
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


def _record(layer: Linear, wider: bool = False) -> tuple[int, ...] | None:
    """Where a prepared layer's parts lie, if it is one that this file computes: no padding on either side, but behind
    outputs that may be `wider`."""
    if not isinstance(layer, PanelLinear) or layer.depth != layer.in_features:
        return None
    return layer.record if wider or layer.record[7] == layer.out_features else None


class CpuChain:
    """A Chain. held: what lies at the addresses."""

    def __init__(
        self,
        embedding: Tensor,
        layers: Sequence[ChainLayer],
        norm: Tensor | None,
        records: Sequence[Sequence[int]],
        join: Sequence[int],
        held: object,
        table: LoraTable,
        angles: tuple[Tensor, Tensor],
        heads: int,
        eps: float,
    ) -> None:
        self._held = embedding, layers, norm, held
        pages = layers[0].pages
        vocab, hidden = embedding.shape
        inner, wide = layers[0].gate_up.out_features // 2, embedding.dtype == torch.float32
        self._sizes = (hidden, heads, pages.kv_heads, pages.head_dim, inner, vocab, int(wide))
        self._eps, self._scale = eps, np.float32(pages.head_dim**-0.5 * LOG2_E)
        norms = [t for layer in layers for t in (layer.input_norm, layer.post_norm)] + [norm]
        self._norms = np.array([0 if t is None else t.data_ptr() for t in norms], np.int64)
        self._join = np.array(join, np.int64)
        self._records = np.array(records, np.int64)
        self._places = np.array([_place(layer.pages) for layer in layers], np.int64)
        self._cos, self._sin = (t.contiguous().numpy() for t in angles)
        qkv, o, gate_up, down = (table.widths[site] for site in SITES)
        self._widths = qkv, o, gate_up, down
        self._embedding, self._table = embedding.data_ptr(), table
        every = (hidden, hidden, hidden, (2 * heads + 2 * pages.kv_heads) * pages.head_dim, heads * pages.head_dim)
        self._line = (
            sum(every)
            + (2 * hidden if len(join) else 0)
            + inner
            + records[2][7]
            + records[-1][7]
            + 2 * pages.head_dim
        )
        self._rest = vocab + -(-vocab // BLOCK)

    def __call__(
        self,
        tokens: Ints,
        features: Floats,
        given: int,
        begins: Ints,
        ends: Ints,
        starts: Ints,
        pages: Sequence[Sequence[int]],
        keys: Words,
        temperatures: Floats,
        likely: Ints,
        chances: Floats,
        plan: LoraPlan | None,
    ) -> None:
        """See Chain."""
        rows, size = len(tokens), int(self._places[0, 7])
        needed = (-(-(starts + ends - begins - 1) // size)).tolist()
        table = np.zeros((rows, max(needed)), np.int32)
        for line, mine, need in zip(table, pages, needed, strict=True):
            line[:need] = mine[:need]
        most = max(needed) * size // CHUNK + 1
        counts = np.zeros((4 + most, rows + 1), np.int32)
        blocks = np.zeros((rows, 3), np.int32)
        blocks[:, 0], blocks[:, 2] = np.arange(rows), 1
        lora, tiles = self._table, NO_TILES
        if plan is not None:
            lora.require(plan)
            tiles = plan.host_tiles, plan.host_tokens
        walk(
            tokens,
            features,
            given,
            begins,
            ends,
            starts,
            table,
            keys,
            temperatures,
            likely,
            chances,
            self._sizes,
            self._join,
            self._eps,
            self._scale,
            get_parts() if get_threads() > 1 else 1,
            self._embedding,
            self._norms,
            self._records,
            self._places,
            self._cos,
            self._sin,
            NONE,
            torch.empty(rows * self._line + self._rest).numpy(),
            counts,
            blocks,
            NO_TREE,
            NO_FLOATS,
            0 if plan is None else plan.n_tiles,
            *tiles,
            self._widths,
            lora.a_address,
            lora.factor_address,
            lora.b_address,
            lora.padded,
            lora.item,
        )


def prepare_chain(
    embedding: Tensor,
    layers: Sequence[ChainLayer],
    norm: Tensor | None,
    head: Linear,
    table: LoraTable,
    angles: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
    join: Linear | None = None,
) -> Chain | None:
    """See PrepareChain. Walks once, over a page in which nothing lies yet, so that nothing is compiled later."""
    records = [_record(each, each is layer.gate_up) for layer in layers for each in layer.linears]
    records.append(_record(head, wider=True))
    joined = () if join is None else _record(join)
    known = [record for record in records if record is not None]
    fits = all(attention.supported(layer.pages) and cpu_write.supported(layer.pages) for layer in layers)
    plain = embedding.dtype in (torch.float32, torch.bfloat16) and embedding.is_contiguous()
    if len(known) < len(records) or joined is None or not (fits and plain) or tuple(table.sites) != SITES:
        return None
    chain = CpuChain(embedding, layers, norm, known, joined, (head, join), table, angles, heads, eps)
    one, nothing = np.ones(1, np.int64), np.zeros((1, 2, 0), np.int64)
    keys, noise = np.zeros((1, 2), np.uint64), np.zeros(1, np.float32)
    features = np.zeros((1, 1, embedding.shape[1]) if joined else (0, 0, 0), np.float32)
    chances = nothing.astype(np.float32)
    chain(
        np.zeros((1, 2), np.int64), features, 1, 0 * one, 2 * one, 0 * one, [[0]], keys, noise, nothing, chances, None
    )
    return chain


def _place(pages: LayerPages) -> list[int]:
    """Where a layer's pages lie, as attention takes it."""
    assert pages.k_scale is not None
    assert pages.v_scale is not None
    scales = pages.k_scale.data_ptr(), pages.v_scale.data_ptr()
    sizes = pages.groups, pages.head_dim, pages.page_size, pages.page_stride, pages.scale_stride
    return [KINDS[pages.k.dtype], pages.k.data_ptr(), pages.v.data_ptr(), *scales, *sizes]
