"""What guessing did, counted since the engine started: per namespace, proposer and depth.

Owns the counts that people are shown; what decides about guesses is acceptance.py's, which forgets. A namespace is a
tenant's with one adapter (or none), so nobody's counts hold another's. Pure; bounded, least recently used first out.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tenantry.runtime.counts import Guessing, ProposerCounts

POSITIONS: Final = 16  # deeper guesses count with the last one
NAMESPACES: Final = 1024


@dataclass(slots=True)
class _Proposer:
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    tried: list[int] = field(default_factory=lambda: [0] * POSITIONS)
    stood: list[int] = field(default_factory=lambda: [0] * POSITIONS)

    def add(self, nodes: int, reach: int, accepted: int) -> None:
        self.drafts += 1
        self.drafted += nodes
        self.accepted += accepted
        for position in range(reach):
            at = min(position, POSITIONS - 1)
            self.tried[at] += 1
            self.stood[at] += position < accepted

    def counts(self, kind: str, adapted: bool) -> ProposerCounts:
        stood, tried = tuple(self.stood), tuple(self.tried)
        return ProposerCounts(kind, adapted, self.drafts, self.drafted, self.accepted, tried, stood)


@dataclass(slots=True)
class _Namespace:
    adapter: bytes | None
    steps: int = 0
    tokens: int = 0
    proposers: dict[str, _Proposer] = field(default_factory=dict)


class Tally:
    def __init__(self) -> None:
        self._namespaces: OrderedDict[bytes, _Namespace] = OrderedDict()
        self._totals: dict[tuple[str, bool], _Proposer] = {}

    def drew(self, namespace: bytes, adapter: bytes | None, steps: int, tokens: int) -> None:
        """A sequence drew tokens in so many steps, with guesses or without."""
        found = self._of(namespace, adapter)
        found.steps += steps
        found.tokens += tokens

    def judged(
        self, namespace: bytes, adapter: bytes | None, kind: str, nodes: int, reach: int, accepted: int
    ) -> None:
        """A draft of so many nodes, of which `accepted` in a row stood; there were guesses down to depth `reach`
        along the way that the text went."""
        self._of(namespace, adapter).proposers.setdefault(kind, _Proposer()).add(nodes, reach, accepted)
        self._totals.setdefault((kind, adapter is not None), _Proposer()).add(nodes, reach, accepted)

    def totals(self) -> tuple[ProposerCounts, ...]:
        """Of all namespaces, those with an adapter and those without apart."""
        return tuple(counts.counts(*key) for key, counts in sorted(self._totals.items()))

    def counts(self) -> Iterable[Guessing]:
        """Of each namespace."""
        for namespace, found in self._namespaces.items():
            adapted = found.adapter is not None
            proposers = tuple(p.counts(kind, adapted) for kind, p in sorted(found.proposers.items()))
            yield Guessing(namespace, found.adapter, found.steps, found.tokens, proposers)

    def _of(self, namespace: bytes, adapter: bytes | None) -> _Namespace:
        found = self._namespaces.get(namespace)
        if found is None:
            found = self._namespaces[namespace] = _Namespace(adapter)
            while len(self._namespaces) > NAMESPACES:
                self._namespaces.popitem(last=False)
        self._namespaces.move_to_end(namespace)
        return found
