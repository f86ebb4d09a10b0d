"""A small decoder that goes on from its own tokens on CPU: all levels of all rows in one compiled call.

Of a forward pass as small as a draft model's, most is entering: some 25 calls per layer, a plan, a batch. Owns what
the compiled walk (walk.py) is told: where a decoder's parts lie, and scratch memory. Decoders that it does not fit
are refused here.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tenantry.kernels.attention import cpu as attention
from tenantry.kernels.attention import cpu_write
from tenantry.kernels.attention.cpu import LOG2_E, NO_FLOATS
from tenantry.kernels.attention.cpu_write import NONE
from tenantry.kernels.attention.layout import LayerPages
from tenantry.kernels.attention.pieces import KINDS
from tenantry.kernels.attention.plan import CHUNK, NO_TREE
from tenantry.kernels.chain.contract import SITES, Chain, ChainLayer, Floats, Ints, Words
from tenantry.kernels.chain.walk import walk
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.pool import get_parts, get_threads
from tenantry.kernels.quant.cpu import PanelLinear
from tenantry.kernels.quant.linear import Linear
from tenantry.kernels.sampling.logits import BLOCK

NO_TILES = np.zeros((0, 3), np.int32), np.zeros(0, np.int32)


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
