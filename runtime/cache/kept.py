"""Pages below the device: what is known of each, and the slots of host memory that hold some of them.

Owns slots and the order in which they are given up. Pure: time is told. It must not know bytes, files, or why a page
is wanted.

    chance to be wanted * seconds to get it back decides who leaves: pages that nobody used for long first, those that
    disk has too sooner than those that would be computed again; pages of live sessions when nothing else is left.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from tenantry.runtime.cache.names import Name


class Place:
    """One namespace below the device. tenant: whose, opaque. kept: its pages by key."""

    __slots__ = ("kept", "namespace", "tenant", "weights")

    def __init__(self, namespace: bytes, weights: bytes | None, tenant: str) -> None:
        self.namespace = namespace
        self.weights = weights
        self.tenant = tenant
        self.kept: dict[bytes, Kept] = {}


class Kept:
    """One page. name: None while only its key is known, off a disk that a former engine filled. slot: in host memory,
    or -1. reading, writing: its transfer between disk and slot is under way. disk: disk has it. fresh: it came from
    disk and nobody has used it since. until: when the last session that keeps it lets go, which is looked after while
    ending. pins: who needs its slot.
    dead: it is in no book any more, and its slot goes with the last pin. session: tag of who kept it first; it is
    part of the file's name, for an engine that starts later."""

    __slots__ = (
        "dead", "disk", "ending", "fresh", "key", "name", "pins", "place", "queued", "reading", "serial",
        "session", "slot", "tick", "until", "writing",
    )  # fmt: skip

    def __init__(self, place: Place, key: bytes, name: Name | None, session: str = "") -> None:
        self.place = place
        self.session = session
        self.key = key
        self.name = name
        self.slot = -1
        self.reading = False
        self.writing = False
        self.queued = False
        self.disk = False
        self.fresh = False
        self.dead = False
        self.ending = False
        self.until = 0.0
        self.pins = 0
        self.tick = 0
        self.serial = 0

    @property
    def readable(self) -> bool:
        """Whether its slot holds it, from the next step's start on at the latest."""
        return self.slot >= 0 and not self.reading


_Entry = tuple[int, int, Kept]  # tick, serial
ONLY_HERE, ON_DISK, HELD = range(3)


class Slots:
    """slots: of host memory. forgotten: told of pages that have left it, and of their slots. refetch: what
    getting a page from disk costs beside computing it again."""

    def __init__(self, slots: int, forgotten: Callable[[Kept, int], None]) -> None:
        self.slots = slots
        self.evictions = 0
        self.shed = 0
        self.released: list[int] = []  # slots that nothing is to come into for a while
        self.open = True
        self.refetch = 0.25
        self.now = 0.0
        self._forgotten = forgotten
        self._free = list(range(slots - 1, -1, -1))
        self._heaps: tuple[list[_Entry], ...] = ([], [], [])
        self._ends: list[tuple[float, int, Kept]] = []
        self._tick = 0
        self._serial = 0

    @property
    def used(self) -> int:
        return self.slots - len(self._free)

    def advance(self, now: float) -> None:
        """Pages whose sessions have let go meanwhile become like any other."""
        self.now = max(self.now, now)
        while self._ends and self._ends[0][0] <= self.now:
            kept = heappop(self._ends)[2]
            kept.ending = False
            self._look_after(kept)
            self._queue(kept)

    def close(self) -> None:
        """Nothing comes in any more, and every page goes as soon as nobody needs its slot."""
        if not self.open:
            return
        self.open = False
        self.released = list(self._free)
        while (victim := self._victim()) is not None:
            self._shed(victim)

    def reopen(self) -> None:
        self.open = True

    def give(self, kept: Kept) -> bool:
        """A slot for it, and it counts as used. False: everything is pinned, or closed."""
        if not self.open:
            return False
        if not self._free:
            victim = self._victim()
            if victim is None:
                return False
            self.evictions += 1
            self._evict(victim)
        kept.slot = self._free.pop()
        self.touch(kept)
        return True

    def vacate(self, kept: Kept) -> None:
        assert kept.slot >= 0, "no slot to give back"
        assert not kept.pins, "a slot given back while somebody needs it"
        self._free.append(kept.slot)
        if not self.open:
            self.released.append(kept.slot)
        kept.slot = -1

    def _evict(self, kept: Kept) -> None:
        slot = kept.slot
        self.vacate(kept)
        self._forgotten(kept, slot)

    def _shed(self, kept: Kept) -> None:
        self.shed += 1
        self._evict(kept)

    def touch(self, kept: Kept) -> None:
        """Used now. Of a path, the last page first: so that it goes first."""
        self._tick += 1
        kept.tick = self._tick
        self._queue(kept)

    def hold(self, kept: Kept, until: float) -> None:
        """A session keeps it so long; earlier promises are kept too."""
        if until > kept.until:
            kept.until = until
            self._look_after(kept)
            self._queue(kept)

    def _look_after(self, kept: Kept) -> None:
        """One entry a page, however often it is promised longer."""
        if not kept.ending and kept.until > self.now and not kept.dead:
            kept.ending = True
            self._serial += 1
            heappush(self._ends, (kept.until, self._serial, kept))

    def pin(self, kept: Kept) -> None:
        kept.pins += 1

    def unpin(self, kept: Kept) -> None:
        assert kept.pins > 0, "unpinned more often than pinned"
        kept.pins -= 1
        if kept.pins:
            return
        if kept.dead:
            if kept.slot >= 0:
                self.vacate(kept)
        elif self.open:
            self._queue(kept)
        elif kept.slot >= 0:
            self._shed(kept)

    def _kind(self, kept: Kept) -> int:
        return HELD if kept.until > self.now else ON_DISK if kept.disk else ONLY_HERE

    def _queue(self, kept: Kept) -> None:
        if kept.slot < 0 or kept.pins or kept.dead:
            return
        self._serial += 1
        kept.serial = self._serial
        heap = self._heaps[self._kind(kept)]
        heappush(heap, (kept.tick, self._serial, kept))
        if len(heap) > 2 * self.used + 64:
            heap[:] = [entry for entry in heap if _current(entry)]
            heapify(heap)

    def _victim(self) -> Kept | None:
        on_disk, only = self._head(ON_DISK), self._head(ONLY_HERE)  # in this order: who left the disk turns up here
        if only is None or on_disk is None:
            return only or on_disk or self._head(HELD)
        stale, stale_on_disk = self._tick - only.tick + 1, self._tick - on_disk.tick + 1
        return only if stale >= stale_on_disk / max(self.refetch, 1e-6) else on_disk

    def _head(self, kind: int) -> Kept | None:
        heap = self._heaps[kind]
        while heap:
            entry = heap[0]
            if _current(entry) and self._kind(entry[2]) == kind:
                return entry[2]
            heappop(heap)
            if _current(entry):
                self._queue(entry[2])  # of another kind by now
        return None

    def check(self, kept: list[Kept], dying: int) -> None:
        """Assert that slots are partitioned, given every page known and how many dead ones are still pinned."""
        held = [k.slot for k in kept if k.slot >= 0]
        assert len(set(held)) == len(held), "a slot holds two pages"
        assert len(set(self._free)) == len(self._free), "a slot is free twice"
        assert set(held).isdisjoint(self._free), "a slot is free and held"
        assert len(held) + len(self._free) + dying == self.slots, "slots lost"
        queued = {id(e[2]) for heap in self._heaps for e in heap if _current(e)}
        for k in kept:
            assert k.slot < 0 or k.pins or id(k) in queued, "a page that host memory never gives up"
            assert self.open or k.slot < 0 or k.pins, "a page in memory that was given up"


def _current(entry: _Entry) -> bool:
    kept = entry[2]
    return entry[1] == kept.serial and kept.slot >= 0 and not kept.pins and not kept.dead
