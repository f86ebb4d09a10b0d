"""How a draft tree grows, level by level, towards the paths that most likely stand.

Owns which candidates become nodes and which nodes are gone on from (EAGLE-2, Li et al. 2024: by the chance of the
whole path; Clover-2, Xiao et al. 2024: filters before budgets). Pure; it must not know where candidates come from.
"""

from collections.abc import Sequence

import msgspec

from tenantry.runtime.speculative.tree import MAX_NODES, ROOT, DraftTree, likeliest

FEWEST = 4  # nodes of a row's tree, however many rows there are
TOGETHER = 64  # nodes of all rows, while they have more than that each

Candidates = Sequence[tuple[int, float]]  # tokens and their chances after one node, likeliest first


class Limits(msgspec.Struct, frozen=True):
    """nodes: of the tree. level: nodes of one level. width: children of one node. top_p: a node's children beyond
    this share of its chance are dropped, all but the first. tail: so are paths less likely than this."""

    nodes: int
    level: int = 8
    width: int = 4
    top_p: float = 0.9
    tail: float = 0.02


def node_budget(rows: int) -> int:
    """Nodes that each of so many rows may guess: a step's tokens are shared, and each row has a few."""
    return min(MAX_NODES, max(FEWEST, TOGETHER // max(rows, 1)))


class Growth:
    """frontier: nodes whose children are asked for next, likeliest first: the root, then the last level."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.chance: list[float] = []
        self.frontier: list[int] = [ROOT]

    def grow(self, candidates: Sequence[Candidates]) -> list[int]:
        """One level more. candidates: what may follow each node of the frontier. Returns the new frontier, which is
        empty when no path is likely enough."""
        limits, found = self.limits, []
        for parent, following in zip(self.frontier, candidates, strict=True):
            so_far, share = 1.0 if parent == ROOT else self.chance[parent], 0.0
            for token, chance in following[: limits.width]:
                if share >= limits.top_p or so_far * chance < limits.tail:
                    break
                found.append((so_far * chance, parent, token))
                share += chance
        found.sort(key=lambda node: -node[0])
        first = len(self.tokens)
        for chance, parent, token in found[: limits.level]:
            self.tokens.append(token)
            self.parents.append(parent)
            self.chance.append(chance)
        self.frontier = list(range(first, len(self.tokens)))
        return self.frontier

    def tree(self, kind: str) -> DraftTree:
        """The likeliest nodes, as many as the limit allows."""
        grown = DraftTree(tuple(self.tokens), tuple(self.parents), tuple(self.chance), kind)
        return likeliest(grown, min(self.limits.nodes, MAX_NODES))
