"""After a verdict: keys and values of the guesses that stand go to the positions that they now have.

Node i of a draft lies i places after its row's tokens, rotated for its depth; what stands of it is a path, and
belongs there without gaps. Owns which slots move where, so that pages are filled as by plain decoding. A chain never
moves.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tenantry.kernels.ops import Ops
from tenantry.runtime.cache.pool import KvPool
from tenantry.runtime.model.batch import branches
from tenantry.runtime.plan import Row, RowResult
from tenantry.runtime.speculative.tree import walk

Moves = list[tuple[int, int]]  # slots, from and to, in this order


def compact(pool: KvPool, ops: Ops, rows: Sequence[Row], results: Sequence[RowResult]) -> None:
    """Move what stands of every row's draft to its own positions, in all layers of a pool."""
    found: list[Moves] = []
    for row, result in zip(rows, results, strict=True):
        if row.draft is not None and branches(row) and result.accepted:
            nodes = walk(row.draft, result.tokens[: result.accepted])
            found.append(path_moves(row.pages, row.start + len(row.tokens), nodes, pool.layout.page_size))
    move(pool, ops, found)


def path_moves(pages: Sequence[int], base: int, nodes: Sequence[int], page_size: int) -> Moves:
    """For `nodes`, a path of a tree whose nodes were written from position `base` on."""

    def slot(position: int) -> int:
        return pages[position // page_size] * page_size + position % page_size

    return [(slot(base + node), slot(base + depth)) for depth, node in enumerate(nodes) if node != depth]


def move(pool: KvPool, ops: Ops, rows: Sequence[Moves]) -> None:
    """Do each row's moves, in all layers: bytes as they are, never rounded again."""
    rows = [moves for moves in rows if moves]
    if not rows:
        return
    padded = np.full((2, len(rows), max(map(len, rows))), -1, np.int64)
    for i, moves in enumerate(rows):
        padded[:, i, : len(moves)] = np.array(moves, np.int64).T
    sources, targets = torch.from_numpy(padded).to(ops.device)
    for layer in pool.layers:
        ops.move_kv(layer, sources, targets)
