"""Where resident adapters lie: what the residency asks of memory, and the plainest memory there is.

Owns the question, not the answer: an adapter's footprint, and the seam behind which bytes are found. The runtime's
arena answers it with blocks that it shares with the KV cache; Budget answers with a number. Knows no tensors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an adapter occupies when resident. pieces: bytes of each run of memory that must not be torn, in the
    order in which they are stored. bytes: their sum."""

    pieces: tuple[int, ...]
    bytes: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes", sum(self.pieces))


NONE = Footprint(())


class Idle(NamedTuple):
    """An adapter nobody owns. quiet: steps since its last use, or between its uses if those are longer apart."""

    digest: bytes
    quiet: float


class Room(Protocol):
    """Told of every arrival and departure, by the residency alone."""

    @property
    def now(self) -> int:
        """Steps so far."""

    @property
    def limit(self) -> int:
        """Most bytes that adapters may occupy together."""

    @property
    def busy(self) -> bool:
        """Whether a step is in flight: nothing may be placed then."""

    def fits(self, footprint: Footprint, staying: Iterable[bytes], at_worst: bool = False) -> bool:
        """Whether there is a place if, of all adapters, only `staying` remained. at_worst: even if whoever else
        draws on the same memory uses all it ever may."""

    def make(self, footprint: Footprint, idle: Sequence[Idle]) -> bytes | None:
        """Make a place. The idle adapter that has to leave next for it, or None: it can be placed now.

        Precondition: it fits if all of `idle`, least recently used first, leave.
        """

    def place(self, digest: bytes, footprint: Footprint) -> None:
        """Take the place that was made."""

    def trim(self, digest: bytes, asked: Footprint, held: Footprint) -> None:
        """It turned out to hold less of each piece than was asked for: what is left over is free."""

    def vacate(self, digest: bytes) -> None:
        """It has left, or will have before anything else happens to its place."""

    def restore(self, digest: bytes, footprint: Footprint) -> bool:
        """Take back the place that was vacated since the last step, if nobody has it."""

    def extents(self, digest: bytes) -> tuple[tuple[int, int], ...]:
        """The runs of blocks that are its place, as (first, count); none where memory has no blocks."""

    def reserve(self, footprint: Footprint | None, staying: Iterable[bytes]) -> None:
        """The first in line needs this beside those that stay, and nobody else may start to use it. None: no line."""


class Budget:
    """A number of bytes, for adapters alone, wherever they lie."""

    now = 0
    busy = False

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[bytes, int] = {}

    def fits(self, footprint: Footprint, staying: Iterable[bytes], at_worst: bool = False) -> bool:
        return sum(self._held[digest] for digest in staying) + footprint.bytes <= self.limit

    def make(self, footprint: Footprint, idle: Sequence[Idle]) -> bytes | None:
        return None if self.fits(footprint, self._held) else idle[0].digest

    def place(self, digest: bytes, footprint: Footprint) -> None:
        self._held[digest] = footprint.bytes

    def trim(self, digest: bytes, asked: Footprint, held: Footprint) -> None:
        self.place(digest, held)

    def vacate(self, digest: bytes) -> None:
        del self._held[digest]

    def restore(self, digest: bytes, footprint: Footprint) -> bool:
        if not self.fits(footprint, self._held):
            return False
        self.place(digest, footprint)
        return True

    def extents(self, digest: bytes) -> tuple[tuple[int, int], ...]:
        return ()

    def reserve(self, footprint: Footprint | None, staying: Iterable[bytes]) -> None:
        """No one else draws on these bytes."""
