"""Which tokens of a step attend to which pages: built once per step, read by every layer.

Owns how work is cut (blocks of queries, pieces of positions) and its order. Cuts depend on a row's own numbers, never
on its company: that makes results batch-invariant. Knows no model, request or scheduler.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import prod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 256  # positions per softmax, counted from a row's first: partial results join in the order of chunks
NODES = 64  # queries that a row with a tree may have
SHORT, LONG = 8, 16  # queries of one row that share a pass over its pages, in rows of at most NODES and of more
TENSORS = ("cu_q", "lengths", "block_table", "seen", "blocks", "starts", "owners", "counts", "tree", "buffer")
HOST = ("block_table", "cu_q", "lengths", "seen", "blocks", "starts", "owners", "tree")
NO_TREE = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Sizes of a plan whose tensors stay while their contents change, as a CUDA graph wants them.

    rows; queries: of each row at most, NODES at most; length: positions of each row at most.
    """

    rows: int
    queries: int
    length: int

    @property
    def blocks(self) -> int:
        return self.rows * -(-self.queries // SHORT)

    @property
    def pieces(self) -> int:
        return self.blocks * -(-self.length // CHUNK)


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """One step's cuts. T tokens, N blocks, P pieces; with a capacity the tensors are as large as that says.

    cu_q: int32 [rows + 1], row b owns query tokens cu_q[b] .. cu_q[b+1]-1 of the step.
    lengths: int32 [rows], tokens of row b in its pages, this step's included; query i of row b sits at absolute
    position lengths[b] - q_len[b] + i, where no tree says otherwise.
    block_table: int32 [rows, max_pages], entry i holds positions [i * page_size, (i+1) * page_size); unused
    entries are 0 and never read.
    seen: int32 [T], how many of its row's positions each query may attend to, from the first: all up to its own, or
    of a tree's nodes all of the row.
    blocks: int32 [N, 3]: row, first and past query, SHORT or LONG of them. Rows of more than NODES queries come
    first, then other rows of several, then rows of one; in each kind those that see most come first.
    starts: int32 [N + 1], where each block's pieces begin; a piece is CHUNK positions. owners: int32 [P], its block.
    counts: int32 [3]: the tokens, blocks and pieces that are real.
    tree: int64 [T], or None where every row is causal. Bit i of a node: whether it attends to the row's i-th query of
    this step (its own bit is set); it attends to all that came before the step. 0 for queries of causal rows.
    buffer: int32, the memory of all of these tensors.
    q_lens, totals: q_len and lengths once more, on the host. kinds: how many blocks each of the three kinds has.
    cost: multiply-adds of one head and dimension. dearest: pieces of the block that has most. capacity: as given.
    arrays: on CPU the tensors from block_table to tree, in HOST's order and an empty tree for none: to make them anew
    would cost every layer as much as a short row's attention.
    """

    cu_q: Tensor
    lengths: Tensor
    block_table: Tensor
    seen: Tensor
    blocks: Tensor
    starts: Tensor
    owners: Tensor
    counts: Tensor
    tree: Tensor | None
    buffer: Tensor
    q_lens: tuple[int, ...]
    totals: tuple[int, ...]
    kinds: tuple[int, int, int]
    cost: int
    dearest: int
    capacity: Capacity | None = None
    arrays: tuple[NDArray[Any], ...] = ()

    @classmethod
    def build(
        cls,
        q_lens: Sequence[int],
        lengths: Sequence[int],
        pages: Sequence[Sequence[int]],
        page_size: int,
        device: str = "cpu",
        tree: Sequence[int] | None = None,
        capacity: Capacity | None = None,
    ) -> Self:
        """pages[b]: page ids of row b, covering lengths[b] positions. tree: as above, signed or unsigned.
        Raises ValueError where pages do not cover, rows exceed the capacity, or a tree is not one."""
        if not len(q_lens) == len(lengths) == len(pages):
            raise ValueError("q_lens, lengths and pages: one entry per row")
        used = [-(-n // page_size) for n in lengths]
        for q_len, length, row_pages, need in zip(q_lens, lengths, pages, used, strict=True):
            if not 0 < q_len <= length or len(row_pages) < need:
                raise ValueError(
                    f"row of {q_len} queries and {length} tokens in {len(row_pages)} pages of {page_size}"
                )
        cu_q = [0, *accumulate(q_lens)]
        masks = None if tree is None else _tree_masks(tree, cu_q)
        seen: list[int] = []
        cuts: list[tuple[int, int, int, int, int]] = []  # kind, cost (dearest first), row, first, past
        for row, (q_len, length) in enumerate(zip(q_lens, lengths, strict=True)):
            branching = masks is not None and masks[cu_q[row]] != 0
            mine = [length] * q_len if branching else range(length - q_len + 1, length + 1)
            seen += mine
            size, kind = (SHORT, 1 + (q_len == 1)) if q_len <= NODES else (LONG, 0)
            for first in range(0, q_len, size):
                past = min(first + size, q_len)
                cuts.append((kind, -(past - first) * mine[past - 1], row, first, past))
        cuts.sort()
        pieces = [-(-seen[cu_q[row] + past - 1] // CHUNK) for _, _, row, _, past in cuts]
        starts = [0, *accumulate(pieces)]
        rows, tokens, blocks, most = len(q_lens), len(seen), len(cuts), starts[-1]
        width = max(used, default=0)
        if capacity is not None:
            longest = max(q_lens, default=0)
            if rows > capacity.rows or longest > capacity.queries or max(lengths, default=0) > capacity.length:
                raise ValueError(f"rows beyond {capacity}")
            rows, tokens = capacity.rows, capacity.rows * capacity.queries
            blocks, most, width = capacity.blocks, capacity.pieces, -(-capacity.length // page_size)
        shapes: list[tuple[int, ...]] = [(rows + 1,), (rows,), (rows, width), (tokens,)]
        shapes += [(blocks, 3), (blocks + 1,), (most,), (3,)]
        if masks is not None:
            shapes = [(tokens, 2), *shapes]  # first, because 64-bit values start at even places
        plan = cls(
            **_views(torch.zeros(sum(map(prod, shapes)), dtype=torch.int32), shapes, masks is not None),
            q_lens=tuple(q_lens),
            totals=tuple(lengths),
            kinds=tuple(sum(cut[0] == kind for cut in cuts) for kind in range(3)),  # type: ignore[arg-type]
            cost=-sum(cut[1] for cut in cuts),
            dearest=max(pieces, default=0),
            capacity=capacity,
        )
        _fill(plan.cu_q, cu_q, cu_q[-1])
        _fill(plan.lengths, lengths)
        _fill(plan.seen, seen)
        _fill(plan.blocks, [cut[2:] for cut in cuts])
        _fill(plan.starts, starts, starts[-1])
        _fill(plan.owners, np.repeat(np.arange(len(cuts)), pieces))
        _fill(plan.counts, (len(seen), len(cuts), starts[-1]))
        if plan.tree is not None and masks is not None:
            plan.tree.numpy()[: len(masks)] = masks
        for line, row_pages, need in zip(plan.block_table.numpy(), pages, used, strict=False):
            line[:need] = row_pages[:need]
        if device == "cpu":
            tensors = [getattr(plan, name) for name in HOST]
            return replace(plan, arrays=tuple(NO_TREE if t is None else t.numpy() for t in tensors))
        moved = _views(plan.buffer.to(device), shapes, masks is not None)
        return replace(plan, **moved)

    def over(self, buffer: Tensor) -> Self:
        """The same plan with its tensors in other memory of the same size, whose contents they take."""
        names = [name for name in TENSORS if name not in ("tree", "buffer")]
        shapes: list[tuple[int, ...]] = [tuple(getattr(self, name).shape) for name in names]
        if self.tree is not None:
            shapes.insert(0, (len(self.tree), 2))
        return replace(self, **_views(buffer, shapes, self.tree is not None))

    def refill(self, plan: "AttentionPlan") -> None:
        """Take another plan's contents into this one's memory, by one copy. Both of one capacity. Host-side facts
        (q_lens, totals, kinds, cost, dearest) stay: kernels launched for a capacity do not read them."""
        if plan.capacity != self.capacity or plan.buffer.shape != self.buffer.shape:
            raise ValueError("plans of different capacities")
        self.buffer.copy_(plan.buffer, non_blocking=True)


def _views(buffer: Tensor, shapes: Sequence[tuple[int, ...]], tree: bool) -> dict[str, Any]:
    """A plan's tensors over their memory, by name."""
    parts = torch.split(buffer, [prod(shape) for shape in shapes])
    views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    masks = views.pop(0).view(torch.int64).view(-1) if tree else None
    return dict(zip(TENSORS, (*views, masks, buffer), strict=True))


def _fill(tensor: Tensor, values: "Sequence[Any] | NDArray[Any]", rest: int = 0) -> None:
    """values, and `rest` in what remains."""
    array = tensor.numpy()
    array[: len(values)] = np.asarray(values, np.int32).reshape(-1, *array.shape[1:])
    array[len(values) :] = rest


def _tree_masks(tree: Sequence[int], cu_q: Sequence[int]) -> NDArray[np.int64]:
    """int64 [T]. Raises ValueError for a mask that no row could have."""
    if len(tree) != cu_q[-1]:
        raise ValueError("tree: one mask per query")
    masks = [mask % (1 << 64) for mask in tree]
    for first, past in pairwise(cu_q):
        mine, size = masks[first:past], past - first
        own = all(mask >> i & 1 and not mask >> size for i, mask in enumerate(mine))
        if any(mine) and not (own and size <= NODES):
            raise ValueError(f"tree: masks over a row's own {NODES} queries at most, with each one's own bit")
    return np.array(masks, np.uint64).view(np.int64)
