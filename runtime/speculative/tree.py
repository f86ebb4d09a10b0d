"""Draft trees: guessed continuations of one sequence, to be verified in one row.

Owns the shape alone: order, depth, ancestors, pruning. Pure; it must not know who guessed, nor what is accepted.

    root (the row's last real token)
      |- 0: "the"            tokens  = (the, a, cat, dog)
      |    |- 2: "cat"       parents = (-1, -1, 0, 0)
      |    `- 3: "dog"
      `- 1: "a"
"""

from collections.abc import Sequence
from typing import Self

import msgspec

from tenantry.runtime.errors import InvalidRequest

ROOT = -1
MAX_NODES = 63  # a row's queries, its last real token included, fit one 64-bit mask


class DraftTree(msgspec.Struct, frozen=True):
    """tokens[i]: the guess at node i. parents[i]: its parent's index, below i, or ROOT. Siblings differ.

    chance[i]: how likely the proposer thinks the path down to node i is, in falling order along every path; empty
    when it has no opinion. kind: the proposer's name, for statistics. fitted: whether it had a LoRA of its own for
    the row's adapter.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    chance: tuple[float, ...] = ()
    kind: str = ""
    fitted: bool = False

    @classmethod
    def chain(cls, tokens: Sequence[int], chance: Sequence[float] = (), kind: str = "") -> Self:
        """One guess after the other, without branches."""
        return cls(tuple(tokens), tuple(range(ROOT, len(tokens) - 1)), tuple(chance), kind)

    @property
    def is_chain(self) -> bool:
        return self.parents == tuple(range(ROOT, len(self.tokens) - 1))

    def check(self) -> None:
        """Raises InvalidRequest for what is no tree: a proposer's mistake must not reach the kernels."""
        if len(self.tokens) != len(self.parents) or len(self.tokens) > MAX_NODES:
            raise InvalidRequest("draft", f"one parent per token, and at most {MAX_NODES} nodes")
        if any(not ROOT <= parent < i for i, parent in enumerate(self.parents)):
            raise InvalidRequest("draft", "a parent comes before its children")
        if len(set(zip(self.parents, self.tokens, strict=True))) != len(self.tokens):
            raise InvalidRequest("draft", "siblings differ")
        if self.chance and len(self.chance) != len(self.tokens):
            raise InvalidRequest("draft", "one chance per token, or none")


def depths(tree: DraftTree) -> list[int]:
    """Distance of each node from the root: 1 for the root's children."""
    found: list[int] = []
    for parent in tree.parents:
        found.append(1 if parent == ROOT else found[parent] + 1)
    return found


def path(tree: DraftTree, node: int) -> list[int]:
    """Node indices from the root's child down to `node`; none for ROOT."""
    found = []
    while node != ROOT:
        found.append(node)
        node = tree.parents[node]
    return found[::-1]


def walk(tree: DraftTree, tokens: Sequence[int]) -> list[int]:
    """Node indices along `tokens` from the root down, as far as the tree goes with them."""
    place = {edge: node for node, edge in enumerate(zip(tree.parents, tree.tokens, strict=True))}
    at, found = ROOT, []
    for token in tokens:
        following = place.get((at, token))
        if following is None:
            break
        found.append(following)
        at = following
    return found


def ancestor_masks(tree: DraftTree, before: int) -> list[int]:
    """What each query of a row sees of the row's own queries, as bits; own bit set.

    before: real tokens of the row, which come first and see each other causally. Every node sees all of them.
    Length before + nodes; bit i stands for the row's i-th query.
    """
    masks = [(1 << (i + 1)) - 1 for i in range(before)]
    real = (1 << before) - 1
    for node, parent in enumerate(tree.parents):
        inherited = real if parent == ROOT else masks[before + parent]
        masks.append(inherited | 1 << (before + node))
    return masks


def keep(tree: DraftTree, nodes: Sequence[int]) -> DraftTree:
    """The tree of these nodes alone. Raises ValueError when a kept node's parent is not kept."""
    order = sorted(set(nodes))
    place = {node: i for i, node in enumerate(order)}
    place[ROOT] = ROOT
    try:
        parents = tuple(place[tree.parents[node]] for node in order)
    except KeyError as missing:
        raise ValueError(f"node {missing.args[0]} is a parent, and not kept") from None
    tokens = tuple(tree.tokens[node] for node in order)
    chance = tuple(tree.chance[node] for node in order) if tree.chance else ()
    return DraftTree(tokens, parents, chance, tree.kind, tree.fitted)


def likeliest(tree: DraftTree, count: int) -> DraftTree:
    """At most `count` nodes: the likeliest ones, or the first ones where the proposer has no opinion. Since chance
    falls along every path and parents come first, what is kept is a tree."""
    if len(tree.tokens) <= count:
        return tree
    if not tree.chance:
        return keep(tree, range(count))
    ranked = sorted(range(len(tree.tokens)), key=lambda node: (-tree.chance[node], node))
    return keep(tree, ranked[:count])
