"""Floors and ceilings of tenants' cached pages: a flood takes what is free and its own, never a neighbour's floor."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.shares import Shares
from tenantry.runtime.config import CacheConfig
from tenantry.runtime.errors import InvalidRequest

SIZE = 2


class Desk:
    def __init__(self, pages: int, least: int = 0, most: int = 0) -> None:
        self.cache = KvCache.alone(CacheConfig(page_size=SIZE, pages=pages))
        self.cache.share(least, most)

    def ask(self, tenant: str, tokens: list[int], session: bytes = b"") -> None:
        namespace = tenant.encode().ljust(32)
        self.cache.tree.advance()
        lease = self.cache.lease(namespace, tokens, None, tenant)
        assert self.cache.extend(lease, len(tokens)), "no room"
        self.cache.seal(lease, tokens, len(tokens))
        if session:
            self.cache.keep(lease, session, 0.0, 1e6, False)
        self.cache.release(lease)
        self.cache.check()

    def known(self, tenant: str, tokens: list[int]) -> int:
        return len(self.cache.tree.match(tenant.encode().ljust(32), tokens).pages)

    def flood(self, tenant: str, count: int, session: bytes = b"") -> None:
        rng = random.Random(count)
        for number in range(count):
            named = session and session + b"%d" % number
            self.ask(tenant, [10 + rng.randrange(10_000) for _ in range(4 * SIZE)], named)


TEXT = list(range(8 * SIZE))


def test_a_flood_leaves_a_neighbour_its_floor():
    without, with_floor = Desk(40), Desk(40, least=8)
    for desk in (without, with_floor):
        desk.ask("quiet", TEXT)
        desk.flood("loud", 50)
    assert without.known("quiet", TEXT) == 0
    assert with_floor.known("quiet", TEXT) == 8
    assert with_floor.cache.arena.free_count == 0, "what is nobody's floor is used"


def test_beyond_its_floor_a_tenant_loses_what_it_used_longest_ago():
    desk = Desk(40, least=8)
    desk.ask("quiet", TEXT)
    desk.ask("quiet", [100 + t for t in TEXT])
    desk.flood("loud", 50)
    assert desk.known("quiet", [100 + t for t in TEXT]) == 8, "the newest was taken"
    assert desk.known("quiet", TEXT) == 0


def test_above_its_ceiling_a_tenants_own_pages_go_first_held_or_not():
    for session in (b"", b"s"):
        desk = Desk(40, most=16)
        desk.flood("loud", 8, session)
        desk.ask("quiet", TEXT)
        desk.flood("loud", 20, session)
        assert desk.known("quiet", TEXT) == 8, "a ceiling that lets others pay"


def test_a_leaf_whose_tenant_went_over_its_ceiling_since_is_found_at_once():
    desk = Desk(10, most=1)
    desk.ask("loud", [1, 2])
    tree = desk.cache.tree
    lease = desk.cache.lease(b"loud".ljust(32), [3, 4], None, "loud")
    assert desk.cache.extend(lease, 2)
    desk.cache.seal(lease, [3, 4], 2)
    assert tree.evictable == 1
    assert tree.staleness() is not None, "one page may go, and nobody finds it"
    desk.cache.release(lease)


def test_an_empty_machine_is_anybodys():
    desk = Desk(40, least=4, most=8)
    desk.flood("loud", 10)
    assert desk.cache.tree.nodes == 40


def test_floors_shrink_with_the_number_of_tenants_and_nobody_starves():
    desk = Desk(16, least=8)
    for tenant in range(8):
        desk.ask(f"t{tenant}", TEXT[: 2 * SIZE])
    assert desk.cache.tree.shares.floor == 2
    desk.ask("late", [*range(50, 50 + 16 * SIZE)])
    assert desk.known("late", [*range(50, 50 + 16 * SIZE)]) == 16


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(1, 6)), max_size=40))
def test_counts_are_those_of_the_tree(asked):
    desk = Desk(20, least=3, most=9)
    for tenant, first, pages in asked:
        desk.ask(tenant, [first, *range(100, 100 + pages * SIZE)])
        counts: dict[str, int] = {}
        for node in desk.cache.tree:
            counts[node.root.tenant] = counts.get(node.root.tenant, 0) + 1
        assert counts == desk.cache.tree.shares.counts
        assert sum(min(n, desk.cache.tree.shares.floor) for n in counts.values()) <= 20


def test_a_floor_above_the_ceiling_is_refused():
    with pytest.raises(InvalidRequest):
        CacheConfig(tenant_min=5, tenant_max=4)


def test_a_floor_that_is_not_looked_at_is_seen(monkeypatch):
    monkeypatch.setattr(Shares, "guarded", lambda self, tenant: False)
    with pytest.raises(AssertionError):
        test_a_flood_leaves_a_neighbour_its_floor()
