"""The fake host memory and disk below the fake device, with everything a disk may do.

Owns the oracle of the tiers from outside: a slot that changes under a transfer, a read of what has not come. Whether
what comes back was saved for it, the simulator's shadow of KV tells.
"""

from collections import Counter, deque
from random import Random

from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.plan import Copied, Copies, CopyEnd, DiskPage, Erase, StepPlan
from tests.scheduling.device import DeviceMemory
from tests.scheduling.world import Below, World

Content = tuple[object, ...]
Header = tuple[object, ...]


class Disk:
    """files: what would outlive the engine, by (tenant, namespace, weights, key)."""

    def __init__(self) -> None:
        self.files: dict[tuple, tuple[Header, Content]] = {}

    @staticmethod
    def place(page) -> tuple:
        return page.tenant, page.namespace, page.weights, page.key, page.session


class LowerMemory(DeviceMemory):
    """Device memory with slots below it. A transfer lasts some steps; until it ends its slot holds nothing to read,
    or must not change."""

    def __init__(self, world: World, footprints, below: Below, disk: Disk, seen: Counter[str]) -> None:
        super().__init__(world, footprints)
        self.below, self.disk, self.seen = below, disk, seen
        self.rng = Random(world.seed ^ 0xD15C)
        self.slots: list[Content | None] = [None] * below.slots
        self.reads: list[tuple[int, DiskPage]] = []
        self.writes: deque[tuple[int, DiskPage | Erase, Content]] = deque()  # one after the other, as on one thread
        self.now = 0

    def move(self, plan: StepPlan) -> None:
        size = self.world.page_size
        for slot in plan.copies.released:
            self.change(slot, None)
            self.seen["released"] += 1
        for page, slot in plan.copies.saves:
            self.change(slot, tuple(self.cells[page][:size]))
            self.seen["saved"] += 1
        super().move(plan)
        targets = [page for _, page in plan.copies.restores]
        assert len(set(targets)) == len(targets), "1: two slots are restored to one page"
        for slot, page in plan.copies.restores:
            content = self.slots[slot]
            assert content is not None, "3: restored from a slot that holds nothing"
            self.cells[page][:size] = content
            self.seen["restored"] += 1
        self.start(plan.copies)

    def change(self, slot: int, content: Content | None) -> None:
        writing = {page.slot for _, page, _ in self.writes if isinstance(page, DiskPage)}
        busy = {page.slot for _, page in self.reads} | writing
        assert slot not in busy, "5: a slot is written under a transfer"
        self.slots[slot] = content

    def start(self, copies: Copies) -> None:
        for page in copies.fetches:
            self.change(page.slot, None)
            self.reads.append((self.now + self.rng.randint(0, self.below.slow), page))
        self.writes += ((0, erase, ()) for erase in copies.erases)
        for page in copies.stores:
            content = self.slots[page.slot]
            assert content is not None, "3: stored from a slot that holds nothing"
            self.writes.append((self.now + self.rng.randint(0, self.below.slow), page, content))

    def settle(self) -> Copied:
        self.now += 1
        fetched: list[tuple[int, CopyEnd]] = []
        stored: list[tuple[int, CopyEnd]] = []
        for entry in [r for r in self.reads if r[0] < self.now]:
            self.reads.remove(entry)
            fetched.append((entry[1].op, self.read_file(entry[1])))
        while self.writes and self.writes[0][0] < self.now:
            _, page, content = self.writes.popleft()
            if isinstance(page, DiskPage):
                stored.append((page.op, self.write_file(page, content)))
            else:
                self.erase(page)
        return Copied(tuple(fetched), tuple(stored), 0.5 if fetched else 0.0)

    def erase(self, erase: Erase) -> None:
        for place in [p for p in self.disk.files if p[:3] == (erase.tenant, erase.namespace, erase.weights)]:
            if erase.key in (None, place[3]):
                del self.disk.files[place]
                self.seen["erased"] += 1

    def read_file(self, page: DiskPage) -> CopyEnd:
        if self.rng.random() < self.below.gone:
            self.disk.files.pop(Disk.place(page), None)
        file = self.disk.files.get(Disk.place(page))
        if file is None:
            self.seen["missing"] += 1
            return "missing"
        if self.rng.random() < self.below.bad or file[0] != _header(page):
            self.slots[page.slot] = tuple(("damaged",) * self.world.page_size)
            self.seen["bad"] += 1
            return "bad"
        if self.rng.random() < self.below.refused:
            self.seen["failed"] += 1
            return "failed"
        self.slots[page.slot] = file[1]
        self.seen["fetched"] += 1
        return "done"

    def write_file(self, page: DiskPage, content: Content) -> CopyEnd:
        assert self.slots[page.slot] == content, "5: a slot changed under a transfer"
        if self.rng.random() < self.below.refused:
            self.seen["refused"] += 1
            return "failed"
        self.disk.files[Disk.place(page)] = _header(page), content
        self.seen["stored"] += 1
        return "done"


def _header(page: DiskPage) -> Header:
    return page.namespace, page.weights, page.key, page.parent, page.tokens


def within_limits(lower: LowerMemory, tiers: Tiers, plan: StepPlan | None) -> None:
    """8: neither disk nor a tenant's part of it holds more than it may. plan: not run yet."""
    queued = [page for _, page, _ in lower.writes if isinstance(page, Erase)]
    coming = (*tiers._transfers.erases, *queued, *(plan.copies.erases if plan is not None else ()))
    if any(erase.key is None for erase in coming):
        return
    held = Counter(place[0] for place in lower.disk.files)
    most = lower.below.disk
    assert sum(held.values()) <= most + len(coming), "8: more on disk than it may hold"
    each = (lower.below.tenant or most) + len(coming)
    assert all(n <= each for n in held.values()), "8: a tenant has more of the disk than it may"


def nothing_under_way(lower: LowerMemory, tiers: Tiers) -> None:
    """9, 10: after the last transfer."""
    pins = [kept for kept in tiers._kept.values() if kept.pins]
    assert not pins, "9: slots pinned for nobody"
    if not tiers._slots.open:
        held = [slot for slot, content in enumerate(lower.slots) if content is not None]
        assert not held, "10: memory that was given up, and is still held"
    assert not lower.reads, "9: transfers lost"
    assert not lower.writes, "9: transfers lost"
