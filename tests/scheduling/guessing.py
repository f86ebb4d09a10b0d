"""Guesses in the simulator: trees that are right as far as luck has it, and what the fake device makes of one.

Owns no rules of the core. A node's cell lies where the plan's contract says, and what stands is moved as it says.
"""

from collections.abc import Callable
from random import Random

from tenantry.runtime.speculative.tree import ROOT, DraftTree
from tests.scheduling.world import mix, pick


def lucky_tree(rng: Random, state: int, salt: int, vocab: int, deepest: int) -> DraftTree:
    """Guesses at what the model draws after `state`: a chain or a tree, at most `deepest` tokens in a row."""
    tokens: list[int] = []
    parents: list[int] = []
    states: list[int] = []
    depths: list[int] = []
    bushy = rng.choice((0.0, 0.0, 0.3, 0.7))
    for _ in range(rng.randint(1, 8 if bushy else min(deepest, 6))):
        parent = rng.randint(ROOT, len(tokens) - 1) if rng.random() < bushy else len(tokens) - 1
        before, depth = (state, 1) if parent == ROOT else (states[parent], depths[parent] + 1)
        right = pick(before, salt, vocab, ())
        token = right if rng.random() < 0.7 else rng.randrange(vocab)
        if depth > deepest or (parent, token) in zip(parents, tokens, strict=True):
            continue
        tokens.append(token)
        parents.append(parent)
        states.append(mix(before, token))
        depths.append(depth)
    return DraftTree(tuple(tokens), tuple(parents), kind="luck")


class Cells:
    """A row's cells behind its own tokens, from position `end` on: write and read by position."""

    def __init__(self, cells: list[list[object]], pages: list[int], size: int, end: int) -> None:
        self._cells, self._pages, self._size, self._end = cells, pages, size, end

    def write(self, at: int, what: object) -> None:
        position = self._end + at
        self._cells[self._pages[position // self._size]][position % self._size] = what

    def read(self, at: int) -> object:
        position = self._end + at
        return self._cells[self._pages[position // self._size]][position % self._size]


def verdict(draft: DraftTree, state: int, cells: Cells, draw: Callable[[int, int], int]) -> list[int]:
    """Compute all nodes, draw along the tree, close up what stands. draw(state, drawn so far) gives a token. Returns
    the tokens: one more than stood."""
    states: list[int] = []
    for node, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
        states.append(mix(state if parent == ROOT else states[parent], token))
        cells.write(node, states[node])
    place = {edge: node for node, edge in enumerate(zip(draft.parents, draft.tokens, strict=True))}
    at, drawn = ROOT, []
    while True:
        drawn.append(draw(state if at == ROOT else states[at], len(drawn)))
        following = place.get((at, drawn[-1]))
        if following is None:
            return drawn
        cells.write(len(drawn) - 1, cells.read(following))
        at = following
