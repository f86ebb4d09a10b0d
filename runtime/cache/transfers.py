"""Copies between tiers: those that the next plan carries, and those of earlier plans that have not ended.

Owns what is to be saved, restored, fetched, stored and erased, handed out once each, and the transfers under way. It
must not know which pages are kept and for how long, nor what becomes of a page whose transfer failed.
"""

from collections import deque
from collections.abc import Mapping
from math import inf

from tenantry.runtime.cache.kept import Kept, Place, Slots
from tenantry.runtime.plan import NO_COPIES, Copies, DiskPage, Erase

MOST_WRITES = 32  # pages on their way to disk at once
SULK_S = 30.0  # without writes after the disk refused one


class Transfers:
    """slots: of host memory, pinned while something is on its way from or to them. saves: slot to page. restores:
    page to what it will hold. behind: pages to be written to disk, a few at a time."""

    def __init__(self, slots: Slots) -> None:
        self.saves: dict[int, int] = {}
        self.restores: dict[int, Kept] = {}
        self.erases: list[Erase] = []
        self.behind: deque[Kept] = deque()
        self._slots = slots
        self._fetches: list[DiskPage] = []
        self._restoring: list[Kept] = []  # in the step in flight
        self._ops: dict[int, Kept] = {}
        self._made = 0
        self._writes = 0
        self._sulks_until = -inf

    @property
    def due(self) -> bool:
        """Whether a plan has copies to carry, or to ask after."""
        listed = self.saves or self.restores or self._fetches or self.erases or self._slots.released
        return bool(self._ops or listed or self._may_write)

    @property
    def _may_write(self) -> bool:
        return bool(self.behind) and self._slots.now >= self._sulks_until

    def fetch(self, kept: Kept) -> None:
        """Into its slot."""
        kept.reading = kept.fresh = True
        self._slots.pin(kept)
        self._fetches.append(self._named(kept))

    def store(self, kept: Kept) -> None:
        """When it is its turn, if it is still there then."""
        if not (kept.disk or kept.queued or kept.writing):
            kept.queued = True
            self.behind.append(kept)

    def erase(self, kept: Kept) -> None:
        place = kept.place
        self.erases.append(Erase(place.tenant, place.namespace, place.weights, kept.key, kept.session))

    def erase_all(self, place: Place) -> None:
        self.erases.append(Erase(place.tenant, place.namespace, place.weights, None))

    def moved(self, moves: Mapping[int, int]) -> None:
        """Pages that are to be restored have new ids."""
        if not moves.keys().isdisjoint(self.restores):
            self.restores = {moves.get(page, page): kept for page, kept in self.restores.items()}

    def take(self) -> Copies:
        """For the plan being made."""
        stores = self._stores()
        released = self._slots.released
        if not (self.saves or self.restores or self._fetches or self.erases or stores or released):
            return NO_COPIES
        copies = Copies(
            tuple((page, slot) for slot, page in self.saves.items()),
            tuple((kept.slot, page) for page, kept in self.restores.items()),
            tuple(self._fetches),
            stores,
            tuple(self.erases),
            tuple(set(released)),
        )
        self._restoring += self.restores.values()
        self.saves, self.restores = {}, {}
        self._fetches, self.erases = [], []
        self._slots.released = []
        return copies

    def end_step(self) -> list[Kept]:
        """What was restored in it."""
        done, self._restoring = self._restoring, []
        return done

    def fetched(self, op: int) -> Kept:
        """A fetch has ended, somehow. Its pin is the caller's now."""
        kept = self._ops.pop(op)
        kept.reading = False
        return kept

    def stored(self, op: int) -> Kept:
        """As fetched()."""
        kept = self._ops.pop(op)
        self._writes -= 1
        kept.writing = False
        return kept

    def refused(self, now: float) -> None:
        """Disk takes no writes: it is left alone for a while, and what waits for its turn is not written."""
        self._sulks_until = now + SULK_S
        while self.behind:
            self.behind.popleft().queued = False

    def _stores(self) -> tuple[DiskPage, ...]:
        """The next pages to be written."""
        stores: list[DiskPage] = []
        while self._may_write and self._writes < MOST_WRITES:
            kept = self.behind.popleft()
            kept.queued = False
            if kept.dead or kept.disk or not kept.readable:
                continue
            kept.writing = True
            self._writes += 1
            self._slots.pin(kept)
            stores.append(self._named(kept))
        return tuple(stores)

    def _named(self, kept: Kept) -> DiskPage:
        self._made += 1
        self._ops[self._made] = kept
        place, name = kept.place, kept.name
        assert name is not None, "a transfer of a page without a name"
        owner = place.tenant, place.namespace, place.weights
        return DiskPage(self._made, kept.slot, *owner, name.key, name.parent, name.tokens, kept.session)
