"""One sequence's possible guesses in one step, with the chance of each: what the knapsack chooses from.

Owns the joining of a proposal with what was measured of its like. It must not know batches, costs or who asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tenantry.runtime.speculative.acceptance import Acceptance, Basis, Grade, Scale, found_grades, graded
from tenantry.runtime.speculative.lookup import KIND, Match
from tenantry.runtime.speculative.tree import ROOT, DraftTree, depths, keep, likeliest
from tenantry.runtime.speculative.verify import children


@dataclass(frozen=True, slots=True)
class Lead:
    """grades: of each node, on `scale`. chances: of each node's whole path, the likeliest first."""

    tree: DraftTree
    scale: Scale
    grades: Sequence[Grade]
    chances: Sequence[float]

    @property
    def worth(self) -> float:
        """Tokens that it is expected to bring."""
        return sum(self.chances)

    @property
    def copies(self) -> bool:
        """Whether it is a text that came before."""
        return self.tree.kind == KIND

    def take(self, count: int) -> DraftTree | None:
        if not count:
            return None
        if self.copies and count < len(self.tree.tokens):  # a chain, whose beginning is one
            return DraftTree.chain(self.tree.tokens[:count], kind=KIND)
        return likeliest(self.tree, count)


def looked_up(match: Match, most: int, acceptance: Acceptance, adapter: bytes | None, sequence: int) -> Lead:
    """So many tokens of a text that came before."""
    grades = found_grades(match.agreed, match.chain_marks(most))
    return _lead(match.chain(most), (KIND, Basis.FOUND), grades, acceptance, adapter, sequence)


def proposed(tree: DraftTree, room: int, acceptance: Acceptance, adapter: bytes | None, sequence: int) -> Lead | None:
    """A model's guesses, at most `room` deep; None when nothing is left of them."""
    if room < 1:
        return None
    deep = depths(tree)
    if max(deep) > room:
        tree = keep(tree, [node for node, depth in enumerate(deep) if depth <= room])
    return _lead(tree, *graded(tree), acceptance, adapter, sequence)


def _lead(
    tree: DraftTree,
    scale: Scale,
    grades: Sequence[Grade],
    acceptance: Acceptance,
    adapter: bytes | None,
    sequence: int,
) -> Lead:
    rates = acceptance.rates(adapter, sequence, scale, grades)
    chances: list[float] = []
    for rate, parent in zip(rates, tree.parents, strict=True):
        chances.append(rate * (1.0 if parent == ROOT else chances[parent]))
    return Lead(tree, scale, grades, chances if tree.is_chain else sorted(chances, reverse=True))


def outcomes(tree: DraftTree, tokens: Sequence[int], grades: Sequence[Grade]) -> list[list[tuple[Grade, bool]]]:
    """By level, of each guess that was tried, its ancestors having stood: its grade, and whether it stood.

    tokens: what was drawn after the root; grades: of each node.
    """
    below, at = children(tree), ROOT
    tried: list[list[tuple[Grade, bool]]] = []
    for token in tokens:
        if at not in below:
            break
        tried.append([(grades[node], tree.tokens[node] == token) for node in below[at]])
        following = next((node for node in below[at] if tree.tokens[node] == token), None)
        if following is None:
            break
        at = following
    return tried
