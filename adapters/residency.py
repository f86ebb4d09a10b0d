"""Which adapters occupy the device: a pure state machine over bytes, driven by the scheduler.

    absent -> loading -> resident -> absent        draining: retired while in use, leaves with its last owner
                 \\-> failed -> loading (on the next acquire)

Owns who uses what, what must be evicted and what comes next. It must not know files, tensors, clocks or steps.
The fence: an adapter is evicted only when no request owns it, hence no step in flight reads it. Bytes count as
free from the moment an eviction is handed out, because the runner performs a plan's evictions before all else.

Fairness: the first waiter reserves. What it needs is taken from the least recently used adapters (unowned first);
those "yield": they take no new owners until it is loading. Every waiter is served in order of arrival, so neither
a big adapter behind small ones nor a new one behind busy ones waits longer than the yielding requests last.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from tenantry.adapters.errors import ResidencyError

_REMEMBERED_FAILURES = 256


class Outcome(StrEnum):
    """Answer to acquire. HELD, LOADING and WAIT register the owner, who must release; the others do not.

    HELD: resident, use it. LOADING: on its way. WAIT: queued, and started by itself once bytes are free.
    CANNOT_FIT: larger than all bytes that are not pinned. RETIRED: dropped, and still draining.
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
    bytes: int
    loaded: bool = False
    retired: bool = False
    pinned: bool = False
    owners: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Waiter:
    bytes: int
    owners: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Occupant:
    """One adapter's residency, for statistics. users counts owners, waiting ones included."""

    digest: bytes
    state: State
    bytes: int
    users: int


class Residency:
    """limit: most bytes of loading and resident adapters together. Never a number of slots."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # least recently used first
        self._queue: OrderedDict[bytes, _Waiter] = OrderedDict()  # in order of arrival
        self._yielding: set[bytes] = set()
        self._failures: OrderedDict[bytes, None] = OrderedDict()
        self._loads: list[bytes] = []
        self._evictions: list[bytes] = []
        self.used = 0

    def acquire(self, digest: bytes, nbytes: int, owner: str) -> Outcome:
        """Ask for an adapter on behalf of a request. Repeating it is free and tells how things stand now.

        nbytes: AdapterManifest.bytes. Raises ResidencyError when nbytes is not what is known of that digest.
        """
        if nbytes < 1:
            raise ResidencyError("an adapter occupies at least one byte")
        entry = self._entries.get(digest)
        known = entry or self._queue.get(digest)
        if known is not None and known.bytes != nbytes:
            raise ResidencyError(f"adapter {digest.hex()} occupies {known.bytes} bytes, not {nbytes}")
        if entry is not None and owner in entry.owners:
            self._entries.move_to_end(digest)
            return Outcome.HELD if entry.loaded else Outcome.LOADING
        if entry is not None and entry.retired:
            return Outcome.RETIRED
        if entry is not None and digest not in self._yielding:
            entry.owners.add(owner)
            self._leave_queue(digest, owner)  # it may have waited while this adapter yielded to another waiter
            self._entries.move_to_end(digest)
            return Outcome.HELD if entry.loaded else Outcome.LOADING
        if nbytes > self.limit - self._pinned_bytes(besides=digest):
            return Outcome.CANNOT_FIT
        waiter = self._queue.setdefault(digest, _Waiter(nbytes))
        if owner in waiter.owners:
            return Outcome.WAIT
        waiter.owners.add(owner)
        self._serve()
        return self._standing(digest, owner)

    def warm(self, digest: bytes, nbytes: int) -> Outcome:
        """Load without an owner, if that harms nobody: WAIT means not now, and nothing is remembered of it."""
        entry = self._entries.get(digest)
        if entry is not None and entry.retired:
            return Outcome.RETIRED
        if entry is not None:
            return Outcome.HELD if entry.loaded else Outcome.LOADING
        if nbytes > self.limit - self._pinned_bytes():
            return Outcome.CANNOT_FIT
        if self._queue or not self._fits(nbytes):
            return Outcome.WAIT
        return Outcome.HELD if self._start(digest, nbytes).loaded else Outcome.LOADING

    def release(self, digest: bytes, owner: str) -> None:
        """The request needs the adapter no more, be it held, loading or waited for. Repeating it is a no-op."""
        self._leave_queue(digest, owner)
        entry = self._entries.get(digest)
        if entry is not None:
            entry.owners.discard(owner)
            if entry.retired and entry.loaded and not entry.owners:
                self._evict(digest)
        self._serve()

    def loaded(self, digest: bytes) -> None:
        """The runner finished a load. Raises ResidencyError when none was under way."""
        entry = self._loading(digest)
        entry.loaded = True
        self._failures.pop(digest, None)
        if entry.retired and not entry.owners:
            self._evict(digest)
        self._serve()

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
        self._serve()
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
        self._serve()
        return frozenset(waiter.owners if waiter else ())

    def pin(self, digest: bytes) -> bool:
        """Exempt a loading or resident adapter from eviction. False if it is neither, or a waiter needs its bytes."""
        entry = self._entries.get(digest)
        if entry is None or entry.retired:
            return False
        room = self.limit - self._pinned_bytes(besides=digest) - entry.bytes
        if any(w.bytes > room for d, w in self._queue.items() if d != digest):
            return False
        entry.pinned = True
        self._yielding.discard(digest)
        self._serve()
        return True

    def unpin(self, digest: bytes) -> None:
        entry = self._entries.get(digest)
        if entry is not None:
            entry.pinned = False
        self._serve()

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
        sizes = dict.fromkeys(self._failures, 0) | {d: w.bytes for d, w in self._queue.items()}
        sizes |= {d: e.bytes for d, e in self._entries.items()}
        return tuple(Occupant(d, self.state(d), n, len(self._users(d))) for d, n in sizes.items())

    def check(self) -> None:
        """Assert every invariant."""
        assert self.used == sum(e.bytes for e in self._entries.values()) <= self.limit, "bytes resident and loading"
        assert all(e.owners for e in self._entries.values() if e.retired and e.loaded), "draining without owner"
        assert all(d in self._entries and not self._entries[d].loaded for d in self._loads), "load of a resident"
        assert len(set(self._loads)) == len(self._loads), "loaded twice"
        assert not self._entries.keys() & set(self._evictions), "evicted but here"
        assert not any(e.pinned and e.retired for e in self._entries.values()), "pinned and retired"
        assert self._yielding <= self._entries.keys(), "yielding but absent"
        assert all(w.owners for w in self._queue.values()), "waiter without owner"
        for digest, waiter in self._queue.items():
            entry = self._entries.get(digest)
            assert entry is None or (not entry.owners & waiter.owners and not entry.retired), "owner waits and holds"
        if not self._queue:
            assert not self._yielding, "yielding to nobody"
            return
        digest, waiter = next(iter(self._queue.items()))
        assert digest not in self._entries, "a waiter whose adapter is here"
        assert not self._fits(waiter.bytes), "a waiter that fits"
        promised = sum(self._entries[d].bytes for d in self._yielding)
        leaving = sum(e.bytes for d, e in self._entries.items() if e.retired and d not in self._yielding)
        assert self.used - promised - leaving + waiter.bytes <= self.limit, "a waiter nobody yields to"

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

    def _pinned_bytes(self, besides: bytes | None = None) -> int:
        return sum(e.bytes for d, e in self._entries.items() if e.pinned and d != besides)

    def _idle(self) -> list[bytes]:
        return [d for d, e in self._entries.items() if e.loaded and not e.owners and not e.pinned]

    def _fits(self, nbytes: int) -> bool:
        return self.used - sum(self._entries[d].bytes for d in self._idle()) + nbytes <= self.limit

    def _serve(self) -> None:
        """Give to waiters, first come first served, whatever can be given now; then see who must yield."""
        while self._queue:
            digest, waiter = next(iter(self._queue.items()))
            entry = self._entries.get(digest)
            if entry is None and not self._fits(waiter.bytes):
                break
            del self._queue[digest]
            if entry is None:
                self._yielding.clear()
                entry = self._start(digest, waiter.bytes)
            entry.owners |= waiter.owners
            self._yielding.discard(digest)
            self._entries.move_to_end(digest)
        self._choose_yielding()

    def _choose_yielding(self) -> None:
        if not self._queue:
            self._yielding.clear()
            return
        missing = self.used + next(iter(self._queue.values())).bytes - self.limit
        missing -= sum(e.bytes for d, e in self._entries.items() if e.retired or d in self._yielding)
        idle = self._idle()
        busy = [d for d, e in self._entries.items() if not e.pinned and not e.retired and d not in idle]
        for digest in (*idle, *busy):
            if missing <= 0:
                return
            if digest not in self._yielding:
                self._yielding.add(digest)
                missing -= self._entries[digest].bytes

    def _start(self, digest: bytes, nbytes: int) -> _Entry:
        for idle in self._idle():
            if self.used + nbytes <= self.limit:
                break
            self._evict(idle)
        entry = self._entries[digest] = _Entry(nbytes)
        self.used += nbytes
        if digest in self._evictions:  # decided, but not yet handed out: it is still there
            self._evictions.remove(digest)
            entry.loaded = True
        else:
            self._loads.append(digest)
        return entry

    def _evict(self, digest: bytes) -> None:
        self._forget(digest)
        self._evictions.append(digest)

    def _forget(self, digest: bytes) -> None:
        self.used -= self._entries.pop(digest).bytes
        self._yielding.discard(digest)

    def _loading(self, digest: bytes) -> _Entry:
        entry = self._entries.get(digest)
        if entry is None or entry.loaded or digest in self._loads:
            raise ResidencyError(f"no load of {digest.hex()} is under way")
        return entry
