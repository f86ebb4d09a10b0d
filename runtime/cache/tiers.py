"""The tiers below the device: what host memory and disk keep of what the device let go, and the way back.

Owns the books of both: what is known of each page, and where it is. Pure: no tensors, files or clocks. It must not
know how copies are carried (transfers.py). A page comes here when the device evicts it (to host memory alone), and
sooner when it was used twice or a session keeps it (to disk as well). Disk is never trusted: what a fetch brings may
be nothing, and then the page is computed.

    device --evicted, kept--> host slot --write-behind--> disk;   disk --fetch--> host slot --restore--> device
"""

from collections.abc import Iterable, Sequence
from math import inf

from tenantry.runtime.cache.kept import Kept, Place, Slots
from tenantry.runtime.cache.names import Name
from tenantry.runtime.cache.shelves import Shelves
from tenantry.runtime.cache.transfers import Transfers
from tenantry.runtime.counts import TierCounts
from tenantry.runtime.plan import Copied, Copies

PATIENCE_S = 0.25  # that a request waits for disk beyond what its fetches should take
FETCH_S = 1e-3  # of a page, before one was measured


class Fetching:
    """Pages that a waiting request wants in host memory. They stay there until it is closed."""

    __slots__ = ("kept", "until")

    def __init__(self, kept: Sequence[Kept] = (), until: float = 0.0) -> None:
        self.kept = kept
        self.until = until

    def over(self, now: float) -> bool:
        """Whether there is nothing to wait for: all are here, failed, or took too long."""
        return now >= self.until or not any(kept.reading for kept in self.kept)


class Tiers:
    """slots: pages that host memory holds. disk_pages: that disk holds, tenant_pages of them one tenant's at most (0:
    no such limit). page_bytes: of one, for statistics. compute_s: seconds to compute a page's tokens, if known."""

    def __init__(self, slots: int, disk_pages: int = 0, tenant_pages: int = 0, page_bytes: int = 0) -> None:
        self.page_bytes = page_bytes
        self.compute_s = inf
        self.fetch_s = FETCH_S
        self.hits = [0, 0]  # pages restored: that host memory kept, and that came from disk for it
        self.bad = 0
        self.failures = 0
        self.unplaced = 0
        self.pinned = False  # host memory cannot be given back, so that giving pages up would be for nothing
        self._slots = Slots(slots, self._forgotten)
        self._disk = Shelves(disk_pages, tenant_pages)
        self._places: dict[bytes, Place] = {}
        self._kept: dict[bytes, Kept] = {}
        self._dying: set[Kept] = set()
        self._transfers = Transfers(self._slots)

    # Down

    def save(
        self, page: int, name: Name, owner: tuple[bytes, bytes | None, str], keep: bool, session: str = ""
    ) -> bool:
        """Take in what a page of the device holds now; keep: on disk as well. owner: namespace, weights and tenant.
        session: whose it is, as a tag. False: there is no room."""
        kept = self._kept.get(name.key)
        if kept is None:
            kept = self._know(*owner, name.key, name, session)
        kept.name = name
        if kept.slot < 0:
            if not self._slots.give(kept):
                self.unplaced += 1
                if not kept.disk:
                    self._bury(kept)
                return False
            self._transfers.saves[kept.slot] = page
        self._touch(kept)
        if keep and self._disk.most:
            self._transfers.store(kept)
        return True

    def hold(self, key: bytes, until: float) -> None:
        """A session keeps this page so long, if it is here."""
        kept = self._kept.get(key)
        if kept is not None:
            self._slots.hold(kept, until)

    # Up

    def reach(self, namespace: bytes, weights: bytes | None, names: Iterable[Name]) -> list[Kept]:
        """Those of the pages named, one after the other, that host memory has: pinned until restored or let go."""
        found: list[Kept] = []
        if not self.knows(namespace, weights):
            return found
        for name in names:
            kept = self._kept.get(name.key)
            if kept is None or not kept.readable or kept.name != name:
                break
            found.append(kept)
        for kept in reversed(found):
            self._slots.pin(kept)
        return found

    def knows(self, namespace: bytes, weights: bytes | None) -> bool:
        place = self._places.get(namespace)
        return place is not None and place.weights == weights

    def let_go(self, found: Iterable[Kept]) -> None:
        for kept in found:
            self._unpin(kept)

    def restore(self, kept: Kept, page: int) -> bool:
        """A page of the device, not written yet, will hold it when the next step's rows run. The pin of `reach` goes
        with it. Returns whether it has come from disk for this."""
        self._transfers.restores[page] = kept
        self._touch(kept)
        fresh, kept.fresh = kept.fresh, False
        self.hits[fresh] += 1
        return fresh

    def cancel(self, page: int) -> None:
        """The page is wanted no more, if it was to be restored."""
        kept = self._transfers.restores.pop(page, None)
        if kept is not None:
            self._unpin(kept)

    def moved(self, moves: dict[int, int]) -> None:
        """Pages that are to be restored have new ids."""
        self._transfers.moved(moves)

    def bring(self, namespace: bytes, weights: bytes | None, names: Sequence[Name], now: float) -> Fetching:
        """Fetch what disk has of the pages named, one after the other, if that is faster than computing them."""
        if not self._disk.count or not self.knows(namespace, weights):
            return Fetching()
        found: list[Kept] = []
        absent = 0
        for name in names:
            kept = self._kept.get(name.key)
            if kept is None or (kept.name is not None and kept.name != name) or (kept.slot < 0 and not kept.disk):
                break
            absent += kept.slot < 0
            found.append(kept)
        if not absent and not any(kept.reading for kept in found):
            return Fetching()
        if absent and self.fetch_s >= self.compute_s:
            found = found[: next(i for i, kept in enumerate(found) if kept.slot < 0)]
        for kept in found:
            if kept.slot >= 0:
                self._slots.pin(kept)
        coming: list[Kept] = []
        for name, kept in zip(names, found, strict=False):
            if kept.slot < 0:
                if not self._slots.give(kept):
                    break
                kept.name = name
                self._transfers.fetch(kept)
                self._slots.pin(kept)  # for who waits
            coming.append(kept)
        self.let_go(kept for kept in found[len(coming) :] if kept.slot >= 0)
        for kept in reversed(coming):
            self._touch(kept)
        return Fetching(coming, now + PATIENCE_S + 4 * self.fetch_s * absent)

    def close(self, fetching: Fetching) -> None:
        """Nobody waits for these pages any more."""
        self.let_go(fetching.kept)
        fetching.kept = ()

    # Less memory

    def close_host(self) -> None:
        """Host memory is wanted elsewhere: it keeps nothing from now on. What disk has too is found there."""
        if not self.pinned:
            self._slots.close()

    def reopen_host(self) -> None:
        self._slots.reopen()

    # Steps

    @property
    def pending(self) -> bool:
        """Whether a plan is due: copies to be made, or to ask after."""
        return self._transfers.due

    def take(self, now: float) -> Copies:
        """What the next plan carries; handed out once."""
        self._slots.advance(now)
        return self._transfers.take()

    def end_step(self) -> None:
        """The copies inside of the step are made."""
        self.let_go(self._transfers.end_step())

    def settle(self, copied: Copied, now: float) -> None:
        """Take in transfers that ended."""
        self._slots.advance(now)
        if copied.fetch_s:
            self.fetch_s += (copied.fetch_s - self.fetch_s) / 8
            self._slots.refetch = min(1.0, self.fetch_s / self.compute_s) if self.compute_s < inf else 0.25
        for op, end in copied.fetched:
            kept = self._transfers.fetched(op)
            if end != "done":
                self.bad += end == "bad"
                self.failures += end == "failed"
                self._lose(kept, erase=end != "missing")
            self._unpin(kept)
        for op, end in copied.stored:
            kept = self._transfers.stored(op)
            if end == "done" and not kept.dead:
                self._make_room(kept.place.tenant)
                self._disk.add(kept)
            elif end != "done":
                self.failures += 1
                self._transfers.refused(now)
            self._unpin(kept)

    # Forgetting

    def drop(self, weights: bytes) -> None:
        """Forget all that was computed under these weights."""
        for place in [p for p in self._places.values() if p.weights == weights]:
            self._drop(place)

    def drop_namespace(self, namespace: bytes) -> None:
        place = self._places.get(namespace)
        if place is not None:
            self._drop(place)

    def drop_tenant(self, tenant: str) -> None:
        for place in [p for p in self._places.values() if p.tenant == tenant]:
            self._drop(place)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Forget single pages, wherever they are."""
        for key in keys:
            kept = self._kept.get(key)
            if kept is not None:
                self._lose(kept, erase=True)

    def forget_session(self, session: str) -> None:
        """Forget the pages that this session was the first to keep, for who knows of it no more than its tag."""
        self.forget([kept.key for kept in self._kept.values() if kept.session == session])

    def adopt(self, found: Iterable[tuple[str, bytes, bytes | None, bytes, str]]) -> None:
        """Pages that disk had before this engine began: (tenant, namespace, weights, key, session). Believed when
        read."""
        for tenant, namespace, weights, key, session in found:
            if key not in self._kept and (namespace not in self._places or self.knows(namespace, weights)):
                kept = self._know(namespace, weights, tenant, key, None, session)
                self._make_room(tenant)
                self._disk.add(kept)

    # Questions

    def counts(self) -> tuple[TierCounts, TierCounts]:
        """Of host memory and of disk."""
        host, disk, size = self._slots, self._disk, self.page_bytes
        faults = self.bad, self.failures
        return (
            TierCounts("host", host.used, host.slots, host.used * size, self.hits[0], host.evictions, shed=host.shed),
            TierCounts("disk", disk.count, disk.most, disk.count * size, self.hits[1], disk.evictions, *faults),
        )

    def check(self) -> None:
        """Assert every invariant that the books alone can tell."""
        assert all(kept.slot >= 0 for kept in self._dying), "a dead page is remembered"
        assert all(kept.dead and kept.pins for kept in self._dying), "a dead page keeps its slot"
        self._slots.check(list(self._kept.values()), len(self._dying))
        self._disk.check()
        places = [kept for place in self._places.values() for kept in place.kept.values()]
        assert {k.key: k for k in places} == self._kept, "a page in two places, or in none"
        assert all(place.kept for place in self._places.values()), "an empty place was kept"
        for kept in self._kept.values():
            assert kept.slot >= 0 or kept.disk, "a page that is nowhere is remembered"
            assert not kept.dead, "a dead page is found"
            assert not kept.queued or kept in self._transfers.behind, "said to be about to be written, and it is not"
        restored, saved = self._transfers.restores, self._transfers.saves
        assert all(kept.pins for kept in restored.values()), "to be restored from a slot that may go"
        assert set(saved) <= {k.slot for k in (*self._kept.values(), *self._dying)}, "saved for nobody"

    # Within

    def _know(
        self, namespace: bytes, weights: bytes | None, tenant: str, key: bytes, name: Name | None, session: str
    ) -> Kept:
        place = self._places.get(namespace)
        if place is None:
            place = self._places[namespace] = Place(namespace, weights, tenant)
        kept = self._kept[key] = place.kept[key] = Kept(place, key, name, session)
        return kept

    def _touch(self, kept: Kept) -> None:
        self._slots.touch(kept)
        if kept.disk:
            self._disk.touch(kept)

    def _unpin(self, kept: Kept) -> None:
        self._slots.unpin(kept)
        if kept.dead and kept.slot < 0:
            self._dying.discard(kept)

    def _forgotten(self, kept: Kept, slot: int) -> None:
        """It has left host memory: known only as long as disk has it."""
        self._transfers.saves.pop(slot, None)
        if not kept.disk:
            self._bury(kept)

    def _lose(self, kept: Kept, erase: bool) -> None:
        """It is not, or must not be, anywhere any more."""
        if kept.dead:
            return
        if erase and (kept.disk or kept.writing):
            self._transfers.erase(kept)
        if kept.disk:
            self._disk.remove(kept)
        self._bury(kept)

    def _bury(self, kept: Kept) -> None:
        kept.dead = True
        del self._kept[kept.key]
        place = kept.place
        del place.kept[kept.key]
        if not place.kept:
            del self._places[place.namespace]
        if kept.slot >= 0:
            if kept.pins:
                self._dying.add(kept)
            else:
                self._transfers.saves.pop(kept.slot, None)
                self._slots.vacate(kept)

    def _drop(self, place: Place) -> None:
        kept = list(place.kept.values())
        if any(k.disk or k.writing for k in kept):
            self._transfers.erase_all(place)
        for k in kept:
            self._lose(k, erase=False)

    def _make_room(self, tenant: str) -> None:
        """On disk, for one page more."""
        for kept in self._disk.crowding(tenant):
            self._disk.evictions += 1
            self._transfers.erase(kept)
            self._disk.remove(kept)
            if kept.slot < 0:
                self._bury(kept)
