"""One row's guesses while a draft model makes them, level by level, and the tree that they are in the end.

Owns which guess of a level is gone on from (the first: one token per forward pass) and which stand beside it. It must
not know models or pages.
"""

from collections.abc import Sequence
from math import inf

import msgspec
import torch
from torch import Tensor

from tenantry.runtime.model.proposer import Proposal
from tenantry.runtime.plan import Draw
from tenantry.runtime.speculative.growth import Growth, Limits
from tenantry.runtime.speculative.tree import ROOT

WIDTH = 4  # children of one node


class Spine:
    """draw: the first token to guess. levels: how many may be guessed in a row. nodes: of the tree. stochastic: the
    guesses are drawn from a distribution of their own, in a shape that does not depend on what is drawn."""

    def __init__(self, draw: Draw, levels: int, nodes: int, stochastic: bool = False) -> None:
        self.draw = draw
        self.levels = levels
        self.branches = nodes > levels
        self.stochastic = stochastic and draw.sampling.temperature > 0
        self.path: list[int] = []
        self.ended = False
        self._spare = max(0, nodes - levels)
        plain = self.stochastic or not self.branches
        limits = Limits(max(nodes, levels), WIDTH, WIDTH, inf, 0.0) if plain else Limits(nodes, WIDTH, WIDTH)
        self._growth = Growth(limits)
        self._q: dict[int, Tensor] = {}

    @property
    def width(self) -> int:
        """Guesses of the next level, where their number is fixed: what is to spare goes to the levels in turn."""
        left = self.levels - len(self.path)
        return 1 + min(WIDTH - 1, -(-self._spare // left)) if left else 0

    def grow(self, found: Sequence[tuple[int, float]], q: Tensor | None = None) -> None:
        """One level more. found: tokens and their chances, the one to go on from first. q: what they were drawn
        from, fp32 [vocab]."""
        growth = self._growth
        if q is not None:
            self._q[growth.frontier[0]] = q
        self._spare -= max(0, len(found) - 1)
        frontier = growth.grow([found, *[()] * (len(growth.frontier) - 1)])
        if frontier:
            self.path.append(growth.tokens[frontier[0]])
        self.ended = not frontier or len(self.path) == self.levels

    def proposal(self, kind: str, fitted: bool = False) -> Proposal | None:
        if not self.path:
            return None
        tree = msgspec.structs.replace(self._growth.tree(kind), fitted=fitted)
        if self.branches and not self.stochastic:
            return Proposal(tree)
        tree = msgspec.structs.replace(tree, chance=())
        if not self.stochastic:
            return Proposal(tree)
        q = torch.zeros(1 + len(tree.tokens), len(self._q[ROOT]))
        for node, line in self._q.items():
            q[node + 1] = line
        return Proposal(tree, q)
