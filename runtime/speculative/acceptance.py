"""How often guesses stood, and what that says of the next ones.

Owns the statistics that decide how much is guessed. A guess has a grade, known before it is judged: how long the
text agreed before it and whether it was foreseeable back then (lookup), how sure its proposer was, or how deep it
lies. Rates per grade are exponentially weighted and shrunk: a sequence's towards its adapter's, an adapter's towards
all adapters'. Pure.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from tenantry.runtime.speculative.tree import ROOT, DraftTree, depths

DECAY: Final = 0.98  # weight of what was known, per judged guess
SHRINK: Final = 6.0  # judged guesses that a prior is worth
GRADES: Final = 15
AGREED: Final = (3, 5, 9, 17)  # tokens that agreed: where the next grade begins

Grade = int


class Basis(StrEnum):
    """What a grade says: depth of the guess (or of a whole level, of which one may stand; LATE where the proposer
    knows the end of the text only), what a lookup knows of it, or its chance as its proposer sees it."""

    DEPTH = "depth"
    LEVEL = "level"
    LATE = "late"
    FOUND = "found"
    SURE = "sure"

    def prior(self, grade: Grade) -> float:
        """Before anything was judged: long agreement mostly goes on, and proposers roughly know what they say."""
        match self:
            case Basis.DEPTH | Basis.LEVEL | Basis.LATE:
                return 0.6
            case Basis.FOUND:
                mark, bucket = divmod(grade, len(AGREED) + 1)
                return (0.5, 0.8, 0.3)[mark] + 0.04 * bucket
            case Basis.SURE:
                return (grade + 0.5) / GRADES


Key = TypeVar("Key")
Scale = tuple[str, Basis]  # a proposer's name, and what its guesses are graded by


def found_grades(agreed: int, marks: Sequence[int]) -> list[Grade]:
    """Of a chain that was looked up. agreed: tokens before it that agreed. marks: of each guess, see lookup.Mark."""
    buckets = len(AGREED) + 1
    return [mark * buckets + bisect_right(AGREED, agreed + i) for i, mark in enumerate(marks)]


def graded(tree: DraftTree) -> tuple[Scale, list[Grade]]:
    """Of each node of a model's tree."""
    if not tree.chance:
        return (tree.kind, Basis.DEPTH), [at_depth(depth) for depth in depths(tree)]
    sure = []
    for node, parent in enumerate(tree.parents):
        before = 1.0 if parent == ROOT else tree.chance[parent]
        sure.append(max(0, min(int(GRADES * tree.chance[node] / before) if before > 0 else 0, GRADES - 1)))
    return (tree.kind, Basis.SURE), sure


def at_depth(depth: int) -> Grade:
    """1 for the root's children; those below the last grade count with it."""
    return min(depth, GRADES) - 1


@dataclass(slots=True)
class Rate:
    stood: float = 0.0
    tried: float = 0.0

    def add(self, stood: bool) -> None:
        self.stood = self.stood * DECAY + stood
        self.tried = self.tried * DECAY + 1

    def towards(self, prior: float) -> float:
        return (self.stood + SHRINK * prior) / (self.tried + SHRINK)


@dataclass(slots=True)
class Acceptance:
    """Rates of one engine."""

    _all: dict[Scale, list[Rate]] = field(default_factory=dict)
    _own: dict[tuple[bytes | None, Scale], list[Rate]] = field(default_factory=dict)
    _sequence: dict[int, dict[Scale, list[Rate]]] = field(default_factory=dict)

    def observe(
        self, adapter: bytes | None, sequence: int, scale: Scale, judged: Iterable[tuple[Grade, bool]]
    ) -> None:
        """judged: guesses whose ancestors all stood, and whether they did."""
        mine = self._sequence.setdefault(sequence, {})
        tables = _at(self._all, scale), _at(self._own, (adapter, scale)), _at(mine, scale)
        for grade, stood in judged:
            for rates in tables:
                rates[grade].add(stood)

    def rate(self, adapter: bytes | None, sequence: int | None, scale: Scale, grade: Grade) -> float:
        """Chance that a guess of this grade stands, its ancestors having stood. sequence: None for any."""
        return self.rates(adapter, sequence, scale, (grade,))[0]

    def rates(self, adapter: bytes | None, sequence: int | None, scale: Scale, found: Sequence[Grade]) -> list[float]:
        """Of guesses of these grades, one by one."""
        mine = self._sequence.get(sequence) if sequence is not None else None
        every = self._all.get(scale), self._own.get((adapter, scale)), mine.get(scale) if mine else None
        tables = [table for table in every if table is not None]
        known: dict[Grade, float] = {}
        for grade in found:
            if grade not in known:
                rate = scale[1].prior(grade)
                for table in tables:
                    rate = table[grade].towards(rate)
                known[grade] = rate
        return [known[grade] for grade in found]

    def end(self, sequence: int) -> None:
        """A sequence is over."""
        self._sequence.pop(sequence, None)

    def forget(self, adapter: bytes) -> None:
        """A retired adapter's rates."""
        for key in [key for key in self._own if key[0] == adapter]:
            del self._own[key]


def _at(tables: dict[Key, list[Rate]], key: Key) -> list[Rate]:
    found = tables.get(key)
    if found is None:
        found = tables[key] = [Rate() for _ in range(GRADES)]
    return found
