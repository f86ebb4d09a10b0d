"""Which adapters occupy the device: a pure state machine over footprints, driven by the scheduler.

    absent -> loading -> resident -> absent        draining: retired while in use, leaves with its last owner
                 \\-> failed -> loading (on the next acquire)

Owns who uses what, what must be evicted and what comes next. It must not know files, tensors, clocks or steps.
The fence: an adapter is evicted only when no request owns it, hence no step in flight reads it; its place is free
from that moment on, because the runner performs a plan's evictions before all else, and nothing is placed while a
step is in flight. Where adapters lie, and who of the idle ones leaves for another, is the Room's question.

Fairness: the first waiter reserves. What it needs is taken from the least recently used adapters (unowned first);
those "yield": they take no new owners until it is loading. Every waiter is served in order of arrival, so neither
a big adapter behind small ones nor a new one behind busy ones waits longer than the yielding requests last.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from tenantry.adapters.errors import ResidencyError
from tenantry.adapters.room import Footprint, Idle, Room

_REMEMBERED_FAILURES = 256


class Outcome(StrEnum):
    """Answer to acquire. HELD, LOADING and WAIT register the owner, who must release; the others do not.

    HELD: resident, use it. LOADING: on its way. WAIT: queued, and started by itself once bytes are free.
    CANNOT_FIT: larger than what adapters are sure to get, less what is pinned. RETIRED: dropped, and still draining.
    """

    HELD = "held"
    LOADING = "loading"
    WAIT = "wait"
    CANNOT_FIT = "cannot_fit"
    RETIRED = "retired"


class State(StrEnum):
    ABSENT = "absent"
    LOADING = "loading"
    RESIDENT = "resident"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True)
class _Entry:
    """footprint: what was asked for. held: what it occupies, which may be less once it is loaded. last: the step of
    its last use. gap: steps between uses, averaged over the last few."""

    footprint: Footprint
    held: Footprint
    last: int
    gap: float = 0.0
    loaded: bool = False
    retired: bool = False
    pinned: bool = False
    owners: set[str] = field(default_factory=set)

    def use(self, now: int) -> None:
        self.gap = (self.gap + now - self.last) / 2
        self.last = now


@dataclass(slots=True)
class _Waiter:
    footprint: Footprint
    owners: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Occupant:
    """One adapter's residency, for statistics. users counts owners, waiting ones included."""

    digest: bytes
    state: State
    bytes: int
    users: int


class Residency:
    """room: where adapters lie. used: their bytes, loading ones included. Never a number of slots."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # least recently used first
        self._queue: OrderedDict[bytes, _Waiter] = OrderedDict()  # in order of arrival
        self._yielding: set[bytes] = set()
        self._failures: OrderedDict[bytes, None] = OrderedDict()
        self._loads: list[bytes] = []
        self._evictions: dict[bytes, Footprint] = {}  # and what they held
        self.used = 0
        self.evicted = 0

    @property
    def limit(self) -> int:
        return self._room.limit

    def extents(self, digest: bytes) -> tuple[tuple[int, int], ...]:
        """Where it lies, for whoever copies it there."""
        return self._room.extents(digest)

    def acquire(self, digest: bytes, footprint: Footprint, owner: str) -> Outcome:
        """Ask for an adapter on behalf of a request. Repeating it is free and tells how things stand now.

        Raises ResidencyError when the footprint is not what is known of that digest.
        """
        if footprint.bytes < 1:
            raise ResidencyError("an adapter occupies at least one byte")
        entry = self._entries.get(digest)
        known = entry or self._queue.get(digest)
        if known is not None and known.footprint is not footprint and known.footprint != footprint:
            raise ResidencyError(f"adapter {digest.hex()} occupies {known.footprint.bytes} bytes, in other pieces")
        if entry is not None and owner in entry.owners:
            self._entries.move_to_end(digest)
            return Outcome.HELD if entry.loaded else Outcome.LOADING
        if entry is not None and entry.retired:
            return Outcome.RETIRED
        if entry is not None and digest not in self._yielding:
            entry.owners.add(owner)
            entry.use(self._room.now)
            self._leave_queue(digest, owner)  # it may have waited while this adapter yielded to another waiter
            self._entries.move_to_end(digest)
            return Outcome.HELD if entry.loaded else Outcome.LOADING
        if not self._room.fits(footprint, self._pinned(besides=digest), at_worst=True):
            return Outcome.CANNOT_FIT
        waiter = self._queue.setdefault(digest, _Waiter(footprint))
        if owner in waiter.owners:
            return Outcome.WAIT
        waiter.owners.add(owner)
        self.serve()
        return self._standing(digest, owner)

    def prefetch(self, digest: bytes, footprint: Footprint, owner: str) -> bool:
        """acquire() for a request that cannot start yet: only what costs no one but idle adapters, and never a place
        in the line. False registers nothing."""
        entry = self._entries.get(digest)
        if entry is None and (self._queue or self._room.busy or not self._fits(footprint)):
            return False
        if entry is not None and (entry.retired or digest in self._yielding):
            return False
        return self.acquire(digest, footprint, owner) in (Outcome.HELD, Outcome.LOADING)

    def warm(self, digest: bytes, footprint: Footprint) -> Outcome:
        """Load without an owner, if that harms nobody: WAIT means not now, and nothing is remembered of it."""
        entry = self._entries.get(digest)
        if entry is not None and entry.retired:
            return Outcome.RETIRED
        if entry is not None:
            return Outcome.HELD if entry.loaded else Outcome.LOADING
        if not self._room.fits(footprint, self._pinned(), at_worst=True):
            return Outcome.CANNOT_FIT
        if self._queue or self._room.busy or not self._fits(footprint):
            return Outcome.WAIT
        return Outcome.HELD if self._start(digest, footprint).loaded else Outcome.LOADING

    def release(self, digest: bytes, owner: str) -> None:
        """The request needs the adapter no more, be it held, loading or waited for. Repeating it is a no-op."""
        self._leave_queue(digest, owner)
        entry = self._entries.get(digest)
        if entry is not None:
            if owner in entry.owners:
                entry.owners.discard(owner)
                entry.last = self._room.now
            if entry.retired and entry.loaded and not entry.owners:
                self._evict(digest)
        self.serve()

    def loaded(self, digest: bytes, held: Footprint | None = None) -> None:
        """The runner finished a load. held: what it occupies, if that is less than its footprint: the rest is free.
        Raises ResidencyError when none was under way."""
        entry = self._loading(digest)
        entry.loaded = True
        if held is not None:
            assert held.bytes <= entry.held.bytes, "more than was asked for"
            self.used -= entry.held.bytes - held.bytes
            entry.held = held
            self._room.trim(digest, entry.footprint, held)
        self._failures.pop(digest, None)
        if entry.retired and not entry.owners:
            self._evict(digest)
        self.serve()

    def failed(self, digest: bytes) -> frozenset[str]:
        """The runner could not load it. Returns the owners that counted on it, who hold nothing any more.

        The next acquire tries again: each attempt is paid for by requests that end with an error.
        """
        entry = self._loading(digest)
        self._forget(digest)
        waiter = self._queue.pop(digest, None)
        if not entry.retired:
            self._failures[digest] = None
            while len(self._failures) > _REMEMBERED_FAILURES:
                self._failures.popitem(last=False)
        self.serve()
        return frozenset(entry.owners | (waiter.owners if waiter else set()))

    def drop(self, digest: bytes) -> frozenset[str]:
        """Retire a digest: no new owners; it leaves with its last one. Returns the waiting owners, now refused."""
        waiter = self._queue.pop(digest, None)
        self._failures.pop(digest, None)
        entry = self._entries.get(digest)
        if entry is not None:
            entry.retired, entry.pinned = True, False
            if digest in self._loads and not entry.owners:
                self._loads.remove(digest)
                self._forget(digest)
            elif entry.loaded and not entry.owners:
                self._evict(digest)
        self.serve()
        return frozenset(waiter.owners if waiter else ())

    def pin(self, digest: bytes) -> bool:
        """Exempt a loading or resident adapter from eviction. False if it is neither, or a waiter needs its bytes."""
        entry = self._entries.get(digest)
        if entry is None or entry.retired:
            return False
        pinned = [*self._pinned(besides=digest), digest]
        waiting = [w.footprint for d, w in self._queue.items() if d != digest]
        if not all(self._room.fits(footprint, pinned, at_worst=True) for footprint in waiting):
            return False
        entry.pinned = True
        self._yielding.discard(digest)
        self.serve()
        return True

    def unpin(self, digest: bytes) -> None:
        entry = self._entries.get(digest)
        if entry is not None:
            entry.pinned = False
        self.serve()

    def serve(self) -> None:
        """Give to waiters, first come first served, whatever can be given now; then see who must yield.

        For whoever shares the memory to call when it may have let some go. Nothing is given under a step in flight.
        """
        while self._queue and not self._room.busy:
            digest, waiter = next(iter(self._queue.items()))
            entry = self._entries.get(digest)
            if entry is None and not self._fits(waiter.footprint):
                break
            del self._queue[digest]
            if entry is None:
                self._yielding.clear()
                entry = self._start(digest, waiter.footprint)
            entry.owners |= waiter.owners
            self._yielding.discard(digest)
            self._entries.move_to_end(digest)
        self._choose_yielding()

    def idle(self) -> list[Idle]:
        """Those that may leave for something else, least recently used first."""
        now = self._room.now
        return [Idle(d, max(now - self._entries[d].last, self._entries[d].gap)) for d in self._idle()]

    @property
    def idle_bytes(self) -> int:
        return sum(self._entries[digest].held.bytes for digest in self._idle())

    def leave(self, digest: bytes) -> None:
        """Evict an idle adapter for the sake of others that share its memory."""
        entry = self._entries[digest]
        assert entry.loaded, "a loading adapter cannot leave"
        assert not entry.owners, "an adapter in use cannot leave"
        self._evict(digest)

    @property
    def has_actions(self) -> bool:
        """Whether take_actions would give any."""
        return bool(self._loads or self._evictions)

    def take_actions(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """(loads, evictions) decided since the last call, each handed out once. Evictions come first in time."""
        loads, evictions = tuple(self._loads), tuple(self._evictions)
        self._loads.clear()
        self._evictions.clear()
        return loads, evictions

    def state(self, digest: bytes) -> State:
        entry = self._entries.get(digest)
        if entry is None:
            return State.FAILED if digest in self._failures else State.ABSENT
        if entry.retired:
            return State.DRAINING
        return State.RESIDENT if entry.loaded else State.LOADING

    def occupants(self) -> tuple[Occupant, ...]:
        """Every adapter that is loading, resident, draining, waited for, or last failed."""
        sizes = dict.fromkeys(self._failures, 0) | {d: w.footprint.bytes for d, w in self._queue.items()}
        sizes |= {d: e.held.bytes for d, e in self._entries.items()}
        return tuple(Occupant(d, self.state(d), n, len(self._users(d))) for d, n in sizes.items())

    def check(self) -> None:
        """Assert every invariant."""
        held = sum(e.held.bytes for e in self._entries.values())
        assert self.used == held <= self.limit, "bytes resident and loading"
        assert all(e.owners for e in self._entries.values() if e.retired and e.loaded), "draining without owner"
        assert all(d in self._entries and not self._entries[d].loaded for d in self._loads), "load of a resident"
        assert len(set(self._loads)) == len(self._loads), "loaded twice"
        assert self._entries.keys() & self._evictions.keys() <= set(self._loads), "evicted but here"
        assert not any(e.pinned and e.retired for e in self._entries.values()), "pinned and retired"
        assert self._yielding <= self._entries.keys(), "yielding but absent"
        assert all(w.owners for w in self._queue.values()), "waiter without owner"
        for digest, waiter in self._queue.items():
            entry = self._entries.get(digest)
            assert entry is None or (not entry.owners & waiter.owners and not entry.retired), "owner waits and holds"
        assert self._queue or not self._yielding, "yielding to nobody"

    def check_line(self) -> None:
        """Assert that the first in line cannot be served, and will be. Holds after serve() until others that share
        the memory use it."""
        if self._queue:
            digest, waiter = next(iter(self._queue.items()))
            assert digest not in self._entries, "a waiter whose adapter is here"
            assert not self._fits(waiter.footprint), "a waiter that fits"
            assert self._room.fits(waiter.footprint, self._staying()), "a waiter nobody yields to"

    def _standing(self, digest: bytes, owner: str) -> Outcome:
        entry = self._entries.get(digest)
        if entry is None or owner not in entry.owners:
            return Outcome.WAIT
        return Outcome.HELD if entry.loaded else Outcome.LOADING

    def _leave_queue(self, digest: bytes, owner: str) -> None:
        waiter = self._queue.get(digest)
        if waiter is not None:
            waiter.owners.discard(owner)
            if not waiter.owners:
                del self._queue[digest]

    def _users(self, digest: bytes) -> set[str]:
        entry, waiter = self._entries.get(digest), self._queue.get(digest)
        return (entry.owners if entry else set()) | (waiter.owners if waiter else set())

    def _pinned(self, besides: bytes | None = None) -> list[bytes]:
        return [d for d, e in self._entries.items() if e.pinned and d != besides]

    def _staying(self) -> list[bytes]:
        """Those that are neither on their way out nor to give way to the first in line."""
        return [d for d, e in self._entries.items() if not e.retired and d not in self._yielding]

    def _idle(self) -> list[bytes]:
        return [d for d, e in self._entries.items() if e.loaded and not e.owners and not e.pinned]

    def _fits(self, footprint: Footprint) -> bool:
        """Whether it could be placed now, with nobody idle left."""
        busy = [d for d, e in self._entries.items() if e.owners or e.pinned or not e.loaded]
        return self._room.fits(footprint, busy)

    def _choose_yielding(self) -> None:
        if not self._queue:
            self._yielding.clear()
            self._room.reserve(None, ())
            return
        footprint = next(iter(self._queue.values())).footprint
        staying = self._staying()
        idle = self._idle()
        busy = [d for d, e in self._entries.items() if not e.pinned and not e.retired and d not in idle]
        for digest in (*idle, *busy):
            if self._room.fits(footprint, staying):
                break
            if digest not in self._yielding:
                self._yielding.add(digest)
                staying.remove(digest)
        self._room.reserve(footprint, staying)

    def _start(self, digest: bytes, footprint: Footprint) -> _Entry:
        left = self._evictions.get(digest)  # decided, but not yet handed out: it may be still there
        back = left is not None and self._room.restore(digest, left)
        if not back:
            while (leaver := self._room.make(footprint, self.idle())) is not None:
                self._evict(leaver)
            back = left is not None and self._room.restore(digest, left)
        held = left if back and left is not None else footprint
        entry = self._entries[digest] = _Entry(footprint, held, self._room.now)
        self.used += held.bytes
        if back:
            del self._evictions[digest]
            entry.loaded = True
        else:
            self._room.place(digest, footprint)
            self._loads.append(digest)
        return entry

    def _evict(self, digest: bytes) -> None:
        self._evictions[digest] = self._entries[digest].held
        self.evicted += 1
        self._forget(digest)

    def _forget(self, digest: bytes) -> None:
        self.used -= self._entries.pop(digest).held.bytes
        self._yielding.discard(digest)
        self._room.vacate(digest)

    def _loading(self, digest: bytes) -> _Entry:
        entry = self._entries.get(digest)
        if entry is None or entry.loaded or digest in self._loads:
            raise ResidencyError(f"no load of {digest.hex()} is under way")
        return entry
