"""The fake host memory and disk below the fake device, with everything a disk may do, and the simulator over them.

Owns the oracle of the tiers from outside: a slot that changes under a transfer, a read of what has not come. Whether
what comes back was saved for it, the simulator's shadow of KV tells. Replay one seed with
`PYTHONPATH=.src:. python -m tests.scheduling.lower SEED STEPS`.
"""

import sys
from collections import Counter, deque
from dataclasses import dataclass, replace
from random import Random

from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.plan import Copied, Copies, CopyEnd, DiskPage, Erase, StepPlan
from tests.scheduling.device import DeviceMemory
from tests.scheduling.simulator import Simulator
from tests.scheduling.swarm import Swarm
from tests.scheduling.world import World

Content = tuple[object, ...]
Header = tuple[object, ...]


@dataclass(frozen=True)
class Below:
    """What one seed has below the device. Probabilities are per transfer."""

    slots: int = 8
    disk: int = 0
    tenant: int = 0
    slow: int = 0
    bad: float = 0.0
    gone: float = 0.0
    refused: float = 0.0
    restart: float = 0.0
    least: int = 0
    most: int = 0

    @classmethod
    def swarm(cls, seed: int) -> "Below":
        rng = Random(seed ^ 0xB10)

        def some(*values: float) -> float:
            return rng.choice(values) if rng.random() < 0.5 else 0.0

        disk = rng.choice((0, 6, 20, 60))
        return cls(
            slots=rng.choice((1, 2, 4, 8, 30)),
            disk=disk,
            tenant=rng.choice((0, 3, 9)) if disk else 0,
            slow=rng.choice((0, 0, 1, 4)),
            bad=some(0.1, 0.5),
            gone=some(0.1, 0.5),
            refused=some(0.02, 0.2),
            restart=some(1.0),
            least=rng.choice((0, 0, 2)),
            most=rng.choice((0, 0, 6)),
        )


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


class TieredSimulator(Simulator):
    """disk: of an earlier life, if there was one."""

    def __init__(self, world: World, below: Below, disk: Disk | None = None) -> None:
        super().__init__(world)
        self.below, self.disk = below, disk or Disk()
        self.lower = self.runner.memory = LowerMemory(world, self.footprints, below, self.disk, self.seen)
        self.runner.kv, run = self.lower.cells, self.runner.run
        self.runner.run = lambda *plan: replace(run(*plan), copied=self.lower.settle())
        self.tiers = Tiers(below.slots, below.disk, below.tenant, 1)
        if below.disk:
            self.tiers.adopt(sorted(self.disk.files, key=repr))
        self.scheduler.cache.below(self.tiers)
        self.scheduler.cache.share(below.least, below.most)

    def check(self) -> None:
        super().check()
        queued = [page for _, page, _ in self.lower.writes if isinstance(page, Erase)]
        coming = (*self.tiers._erases, *queued, *(self.plan.copies.erases if self.plan is not None else ()))
        if any(erase.key is None for erase in coming):
            return
        held = Counter(place[0] for place in self.disk.files)
        limits = self.below.tenant or self.below.disk, self.below.disk
        slack = len(coming)
        assert sum(held.values()) <= limits[1] + slack, "8: more on disk than it may hold"
        assert all(n <= limits[0] + slack for n in held.values()), "8: a tenant has more of the disk than it may"

    def drain(self) -> None:
        super().drain()
        for _ in range(300 + 3 * len(self.tiers._behind)):  # what the last eviction left to be copied
            if not self.scheduler.has_work:
                break
            self.step()
        assert not self.scheduler.has_work, "11: copies that never end"
        pins = [kept for kept in self.tiers._kept.values() if kept.pins]
        assert not pins, "9: slots pinned for nobody"
        if not self.tiers._slots.open:
            held = [slot for slot, content in enumerate(self.lower.slots) if content is not None]
            assert not held, "10: memory that was given up, and is still held"
        assert not self.lower.reads, "9: transfers lost"
        assert not self.lower.writes, "9: transfers lost"


class TieredSwarm(Swarm):
    """The swarm's days, with tiers, and now and then another engine over the same disk."""

    def __init__(self, seed: int, world: World | None = None, below: Below | None = None) -> None:
        super().__init__(seed, world)
        self.below = below or Below.swarm(seed)
        self.pressing = seed % 3 == 0
        self.sim: TieredSimulator = TieredSimulator(self.world, self.below)

    def once(self) -> None:
        """Now and then host memory is wanted elsewhere, and after a while no more."""
        if self.pressing and self.rng.random() < 0.05:
            tiers = self.sim.tiers
            self.sim.scheduler.cache.keep_in_host(not tiers._slots.open)
            self.sim.seen["grown" if tiers._slots.open else "shed"] += 1
        super().once()

    def restart(self) -> None:
        old, self.sim = self.sim, TieredSimulator(self.world, self.below, self.sim.disk)
        self.sim.seen.update(old.seen)
        self.sim.seen["restart"] += 1


def run(seed: int, steps: int, world: World | None = None, below: Below | None = None) -> Counter[str]:
    """Steps of one seed, drained every hundred. Returns what has happened."""
    swarm = TieredSwarm(seed, world, below)
    done = 0
    hits = Counter[str]()
    try:
        while done < steps:
            before = swarm.sim.steps
            for _ in range(min(100, steps - done)):
                swarm.once()
            swarm.sim.drain()
            done += swarm.sim.steps - before
            if swarm.rng.random() < swarm.below.restart:
                _count(swarm.sim, hits)
                swarm.restart()
    except BaseException as error:
        error.add_note(f"replay: PYTHONPATH=.src python -m tests.scheduling.lower {seed} {steps}")
        error.add_note(f"in {swarm.world} above {swarm.below}")
        raise
    _count(swarm.sim, hits)
    return swarm.sim.seen + hits


def _count(sim: TieredSimulator, hits: Counter[str]) -> None:
    host, disk = sim.tiers.counts()
    hits.update({"host hit": host.hits, "disk hit": disk.hits, "host eviction": host.evictions})
    hits["shed page"] += host.shed
    hits.update({"disk eviction": disk.evictions, "steps": sim.steps, "unplaced": sim.tiers.unplaced})


if __name__ == "__main__":
    print(run(int(sys.argv[1]), int(sys.argv[2])))
