"""Which engine takes a request: affinity first, within a bounded imbalance. Pure arithmetic over a few facts.

Owns the rule alone. It must not know engines' addresses, sockets or requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """An engine that takes requests. open: what it has to do already. prefix: tokens of the prompt that it most
    likely has. session: it served this session last. resident: it holds the adapter, or none is wanted."""

    name: str
    open: int
    prefix: int = 0
    session: bool = False
    resident: bool = True


def choose(candidates: Sequence[Candidate], most_ahead: int = MOST_AHEAD) -> Candidate | None:
    """The engine of the session, else that of the longest prefix, else one that holds the adapter, else the least
    busy, else the first; but never one that is more than `most_ahead` requests ahead of the least busy: affinity is
    worth a little waiting, and a popular prefix must not idle the rest of the fleet. None without candidates.
    """
    if not candidates:
        return None
    least = min(candidate.open for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.open <= least + most_ahead]
    return max(near, key=lambda c: (c.session, c.prefix, c.resident, -c.open))
