"""How often guesses stood, by adapter, proposer and position, and what that says of the next ones.

Owns the statistics. Rates are exponentially weighted and shrunk towards a prior, which for an adapter is what all
adapters together reached: a new adapter starts from its neighbours' experience. Pure; knows no requests.
"""

from dataclasses import dataclass, field

DECAY = 0.98  # weight of what was known, per verified guess
SHRINK = 8.0  # guesses that a prior is worth
PRIOR = 0.6
POSITIONS = 16  # deeper guesses count with the last one


@dataclass(slots=True)
class _Rate:
    stood: float = 0.0
    tried: float = 0.0

    def add(self, stood: bool) -> None:
        self.stood = self.stood * DECAY + stood
        self.tried = self.tried * DECAY + 1

    def towards(self, prior: float) -> float:
        return (self.stood + SHRINK * prior) / (self.tried + SHRINK)


@dataclass(slots=True)
class Acceptance:
    """Rates of one engine. A position is the depth of a guess, 0 for the first: the rate is that of a guess whose
    ancestors all stood."""

    _all: dict[str, list[_Rate]] = field(default_factory=dict)
    _own: dict[tuple[bytes | None, str], list[_Rate]] = field(default_factory=dict)

    def observe(self, adapter: bytes | None, kind: str, accepted: int, depth: int) -> None:
        """One verified row: `accepted` guesses stood, of a tree `depth` deep along the path that was taken."""
        for rates in (self._all.setdefault(kind, _fresh()), self._own.setdefault((adapter, kind), _fresh())):
            for position in range(min(accepted + 1, depth)):
                rates[min(position, POSITIONS - 1)].add(position < accepted)

    def rate(self, adapter: bytes | None, kind: str, position: int) -> float:
        """Chance that a guess at this depth stands, its ancestors having stood."""
        at = min(position, POSITIONS - 1)
        shared = self._all[kind][at].towards(PRIOR) if kind in self._all else PRIOR
        own = self._own.get((adapter, kind))
        return own[at].towards(shared) if own is not None else shared

    def chances(self, adapter: bytes | None, kind: str, depth: int) -> list[float]:
        """Chance that a whole chain down to each depth stands: falling."""
        found, chance = [], 1.0
        for position in range(depth):
            chance *= self.rate(adapter, kind, position)
            found.append(chance)
        return found

    def forget(self, adapter: bytes) -> None:
        """A retired adapter's rates."""
        for key in [key for key in self._own if key[0] == adapter]:
            del self._own[key]


def _fresh() -> list[_Rate]:
    return [_Rate() for _ in range(POSITIONS)]
