"""What lies below the device: whatever is copied where, and whatever the disk does, a page read back is the page that
was written, for its own tenant and weights alone."""

from collections import Counter
from dataclasses import replace

import pytest

from tenantry.runtime.cache.kept import Kept, Place, Slots
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.config import CacheConfig
from tenantry.runtime.plan import Copied
from tenantry.runtime.scheduler.scheduler import Scheduler
from tests.scheduling.planted_tiers import TIER_DEFECTS
from tests.scheduling.simulator import Simulator
from tests.scheduling.swarm import run
from tests.scheduling.world import Below, World, crowded

BLOCKS = 6
SEEDS_PER_BLOCK = 10
STEPS = 150
MUST_HAPPEN = (
    "host hit", "disk hit", "host eviction", "disk eviction", "erased", "bad", "missing", "failed", "refused",
    "restart", "unplaced", "drop", "shed", "grown", "shed page", "released",
)  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What has happened over all blocks: a fault that never fired proves nothing."""
    return Counter()


def tiered(seed: int) -> World:
    """A swarm's world, with tiers in any case."""
    return replace(World.swarm(seed), below=Below.swarm(seed))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_invariant_holds_with_tiers_below(block: int, seen: Counter[str]):
    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):
        seen.update(run(seed, STEPS, tiered(seed)))
    for seed in range(block * 4, block * 4 + 4):  # much that comes back, from a disk that does everything
        below = Below(8, 60, slow=2, bad=0.2, gone=0.1, refused=0.2, restart=1.0)
        world = replace(World.swarm(seed), tenants=1, adapter_sizes=(), max_context=400, nan=0.0, below=below)
        seen.update(run(seed, STEPS, world))


def test_every_fault_of_the_tiers_fired(seen: Counter[str]):
    if not seen:
        pytest.skip("runs after the blocks")
    assert not [what for what in MUST_HAPPEN if not seen[what]], seen


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_tiers_soak(block: int):
    for seed in range(3_000_000 + block * 50, 3_000_000 + (block + 1) * 50):
        run(seed, 1_000, tiered(seed))


@pytest.mark.parametrize("own_checks", [True, False], ids=["checked", "seen from outside"])
@pytest.mark.parametrize("name", TIER_DEFECTS)
def test_the_simulator_catches(name: str, own_checks: bool, monkeypatch: pytest.MonkeyPatch):
    if not own_checks:
        monkeypatch.setattr(Scheduler, "check", lambda self, *expected: None)
        monkeypatch.setattr(Tiers, "check", lambda self: None)
    TIER_DEFECTS[name](monkeypatch)
    below = Below(slots=6, disk=12, tenant=4, slow=2, bad=0.2, gone=0.1, restart=1.0)
    try:
        for seed in range(60):
            run(seed, STEPS, replace(crowded(seed), below=below))
            run(seed, STEPS, tiered(seed))
    except (AssertionError, KeyError):
        return
    pytest.fail(f"{name} was not seen")


# Directed


def simulate(below: Below, **world) -> Simulator:
    return Simulator(World(seed=1, adapter_sizes=(), below=below, **world))


LONG = tuple([2, 3, 4] * 4)


def ended(sim: Simulator, prompt: tuple[int, ...], tenant: int = 0):
    """A request's usage, run alone."""
    name = sim.submit(prompt, tenant, max_tokens=1)
    while name in sim.live:
        sim.step()
    return sim.clients[name].terminal.usage


def test_what_the_device_let_go_of_comes_back_from_host_memory():
    sim = simulate(Below(slots=30))
    ended(sim, LONG)
    sim.scheduler.cache.tree.evict(100)
    usage = ended(sim, LONG)
    assert (usage.cached, usage.cached_host, usage.cached_disk) == (10, 10, 0)
    assert ended(sim, LONG, tenant=1).cached == 0, "another tenant's"
    usage = ended(sim, LONG)
    assert (usage.cached, usage.cached_host) == (10, 0), "the device has it again"


def test_what_was_used_twice_comes_back_from_disk_after_a_restart():
    sim = simulate(Below(slots=30, disk=30))
    ended(sim, LONG)
    ended(sim, LONG)
    sim.drain()
    again = Simulator(sim.world, sim.lower.disk)
    usage = ended(again, LONG)
    assert (usage.cached, usage.cached_host, usage.cached_disk) == (10, 0, 10)
    assert ended(again, LONG, tenant=1).cached == 0
    once = simulate(Below(slots=30, disk=30))
    ended(once, LONG)
    once.drain()
    assert not once.lower.disk.files, "what nobody used twice is not worth a write"


def test_a_retired_adapter_leaves_nothing_in_any_tier():
    sim = Simulator(World(seed=1, adapter_sizes=(3, 3), below=Below(slots=30, disk=30)))
    for adapter in (0, 0, 1, 1):
        name = sim.submit(LONG, adapter=adapter, max_tokens=1)
        while name in sim.live:
            sim.step()
    sim.drain()
    sim.drop(0)
    sim.drain()
    assert {place[2] for place in sim.lower.disk.files} == {sim.digests[1]}
    assert {kept.place.weights for kept in sim.tiers._kept.values()} == {sim.digests[1]}


def test_a_tenant_that_is_gone_leaves_nothing_in_any_tier():
    sim = simulate(Below(slots=30, disk=30))
    for tenant in (0, 0, 1, 1):
        ended(sim, LONG, tenant)
    sim.drain()
    sim.scheduler.cache.drop_tenant("tenant0")
    sim.drain()
    assert {place[1] for place in sim.lower.disk.files} == {sim.namespace(1, -1)}
    assert {kept.place.namespace for kept in sim.tiers._kept.values()} == {sim.namespace(1, -1)}


def test_a_disk_slower_than_computing_is_not_asked():
    sim = simulate(Below(slots=30, disk=30))
    for _ in range(2):
        ended(sim, LONG)
    sim.drain()
    again = Simulator(sim.world, sim.lower.disk)
    again.scheduler.cache.page_seconds = lambda: again.tiers.fetch_s / 2
    assert ended(again, LONG).cached == 0
    again.scheduler.cache.page_seconds = lambda: again.tiers.fetch_s * 2
    again.scheduler.cache.tree.evict(100)
    again.tiers.forget([name.key for name in again.scheduler.cache._names(again.namespace(0, -1), LONG)][:1])
    assert ended(again, LONG).cached == 0, "the first page is gone: what follows is of no use"


def test_a_full_disk_is_left_alone_for_a_while():
    sim = simulate(Below(slots=30, disk=30, refused=1.0))
    for _ in range(2):
        ended(sim, LONG)
    sim.drain()
    failures = sim.tiers.failures
    assert failures > 0
    for _ in range(3):
        ended(sim, (4, *LONG))
    assert sim.tiers.failures == failures, "writes go on"
    sim.now += 100.0
    sim.lower.below = Below(slots=30, disk=30)
    for _ in range(3):
        ended(sim, (3, 3, *LONG))
    sim.drain()
    assert sim.lower.disk.files, "the disk has room again, and nobody tries"


def test_what_left_the_disk_gives_up_its_slot_before_what_a_session_keeps():
    """Its entry lies among those of pages that disk has, and moves when somebody looks."""
    lost: list[Kept] = []
    slots = Slots(2, lambda kept, slot: lost.append(kept))
    place = Place(b"n" * 32, None, "t")
    gone, held, new = (Kept(place, key, None) for key in (b"gone", b"held", b"new"))
    gone.disk = True
    assert slots.give(gone)
    assert slots.give(held)
    slots.hold(held, 100.0)
    gone.disk = False
    assert slots.give(new)
    assert lost == [gone]


def test_pages_that_disk_has_too_leave_host_memory_first():
    cache = KvCache.alone(CacheConfig(page_size=1, pages=40))
    tiers = Tiers(4, 8)
    cache.below(tiers)
    owner = (b"n" * 32, None, "t")
    names = cache._names(owner[0], tuple(range(6)))
    for page, name in enumerate(names[:4]):
        tiers.save(page, name, owner, keep=page in (2, 3))
    copies = tiers.take(0.0)
    assert [s.key for s in copies.stores] == [names[2].key, names[3].key]
    tiers.settle(Copied(stored=tuple((s.op, "done") for s in copies.stores)), 0.0)
    tiers.save(9, names[4], owner, keep=False)
    assert tiers._kept[names[2].key].slot < 0, "the clean page went, though others were used longer ago"
    assert tiers._kept[names[0].key].slot >= 0
    tiers.check()
