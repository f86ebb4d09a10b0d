"""The prefix tree and the arena against models too simple to be wrong, and the laws of leases."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenantry.runtime.cache.arena import Arena, BlockClass
from tenantry.runtime.cache.leases import KvCache, Lease
from tenantry.runtime.config import CacheConfig
from tenantry.runtime.errors import InvalidNamespace

SIZE = 2
NAMESPACES = [b"a" * 32, b"b" * 32]
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple)


class CacheAgainstADict(RuleBasedStateMachine):
    """The model: which (namespace, prefix) were sealed, and nothing else. A page, once found, must be one of those;
    what is leased must stay found; what was never sealed must never be."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = KvCache.alone(CacheConfig(page_size=SIZE, pages=12))
        self.sealed: dict[tuple[bytes, tuple[int, ...]], int] = {}
        self.leases: list[tuple[Lease, bytes, tuple[int, ...]]] = []

    @rule(namespace=st.sampled_from(NAMESPACES), tokens=prompts, seal=st.booleans())
    def run(self, namespace: bytes, tokens: tuple[int, ...], seal: bool) -> None:
        before = self.cache.available
        lease = self.cache.lease(namespace, tokens, None)
        assert lease.matched <= len(tokens) - 1
        for index, page in enumerate(lease.pages):
            assert self.sealed[namespace, tokens[: (index + 1) * SIZE]] == page
        longer = tokens[: lease.matched + SIZE]
        if len(longer) == lease.matched + SIZE < len(tokens):
            assert not self.pinned(namespace, longer), "a pinned prefix was not found"
        if not self.cache.extend(lease, len(tokens)):
            self.cache.rollback(lease)
            assert self.cache.available == before
            return
        self.leases.append((lease, namespace, tokens))
        if seal:
            self.cache.seal(lease, tokens, len(tokens))
            for index in range(len(tokens) // SIZE):
                self.sealed[namespace, tokens[: (index + 1) * SIZE]] = lease.pages[index]

    def pinned(self, namespace: bytes, prefix: tuple[int, ...]) -> bool:
        return any(n == namespace and t[: le.sealed * SIZE][: len(prefix)] == prefix for le, n, t in self.leases)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease, _, _ = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.cache.release(lease)

    @rule(count=st.integers(1, 4))
    def evict(self, count: int) -> None:
        evictable = self.cache.tree.evictable
        assert self.cache.tree.evict(count) == min(count, evictable)

    @rule(namespace=st.sampled_from(NAMESPACES))
    def drop(self, namespace: bytes) -> None:
        self.cache.tree.drop(namespace)
        assert self.cache.tree.match(namespace, (0, 0, 0)).node is None
        self.sealed = {key: page for key, page in self.sealed.items() if key[0] != namespace}
        self.leases = [(le, n if n != namespace else b"dropped", t) for le, n, t in self.leases]

    @rule(namespace=st.sampled_from(NAMESPACES), tokens=prompts)
    def tentative(self, namespace: bytes, tokens: tuple[int, ...]) -> None:
        """A rolled-back match leaves no trace, not even in the order of eviction."""
        before = self.order()
        self.cache.rollback(self.cache.lease(namespace, tokens, None))
        assert self.order() == before

    def order(self) -> list[tuple[int, int]]:
        return sorted((node.tick, node.page) for node in self.cache.tree)

    @invariant()
    def books_balance(self) -> None:
        self.cache.check()

    def teardown(self) -> None:
        for lease, _, _ in self.leases:
            self.cache.release(lease)
        self.cache.tree.evict(99)
        assert self.cache.arena.free_count == 12


CacheAgainstADict.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestCacheAgainstADict = CacheAgainstADict.TestCase


class PagesAgainstSets(RuleBasedStateMachine):
    """The model: four sets of ids."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = Arena(6)
        self.model: dict[BlockClass, set[int]] = {kind: set() for kind in BlockClass}
        self.model[BlockClass.FREE] = set(range(6))
        self.flying = False

    def move(self, page: int, old: BlockClass, new: BlockClass) -> None:
        self.model[old].remove(page)
        self.model[new].add(page)

    @precondition(lambda self: self.model[BlockClass.FREE])
    @rule()
    def take(self) -> None:
        self.move(self.pages.take(), BlockClass.FREE, BlockClass.OWNED)

    @rule(page=st.integers(0, 5))
    def seal(self, page: int) -> None:
        if page in self.model[BlockClass.OWNED]:
            self.pages.seal(page)
            self.move(page, BlockClass.OWNED, BlockClass.TREE)
        else:
            with pytest.raises(AssertionError):
                self.pages.seal(page)

    @rule(page=st.integers(0, 5))
    def free(self, page: int) -> None:
        old = self.pages.class_of(page)
        if old in (BlockClass.FREE, BlockClass.FENCED):
            with pytest.raises(AssertionError):
                self.pages.free(page)
        else:
            self.pages.free(page)
            self.move(page, old, BlockClass.FENCED if self.flying else BlockClass.FREE)

    @rule()
    def step(self) -> None:
        if self.flying:
            self.pages.end_step()
            self.model[BlockClass.FREE] |= self.model[BlockClass.FENCED]
            self.model[BlockClass.FENCED] = set()
        else:
            self.pages.begin_step()
        self.flying = not self.flying

    @invariant()
    def same(self) -> None:
        self.pages.check()
        assert self.model == {kind: self.pages.members(kind) for kind in BlockClass}
        assert self.pages.free_count == len(self.model[BlockClass.FREE])


PagesAgainstSets.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPagesAgainstSets = PagesAgainstSets.TestCase


def cache(pages: int = 16) -> KvCache:
    return KvCache.alone(CacheConfig(page_size=SIZE, pages=pages))


def fill(kv: KvCache, namespace: bytes, *tokens: int) -> None:
    """One whole life: lease, extend, seal, release."""
    lease = kv.lease(namespace, tokens, None)
    assert kv.extend(lease, len(tokens))
    kv.seal(lease, tokens, len(tokens))
    kv.release(lease)


def test_the_least_recently_used_leaf_goes_first_and_parents_after_children():
    kv = cache()
    fill(kv, NAMESPACES[0], 1, 1, 2, 2)
    fill(kv, NAMESPACES[0], 1, 1, 3, 3)
    fill(kv, NAMESPACES[0], 1, 1, 2, 2, 9)  # used again
    kv.tree.evict(1)
    assert len(kv.tree.match(NAMESPACES[0], (1, 1, 3, 3)).pages) == 1
    assert len(kv.tree.match(NAMESPACES[0], (1, 1, 2, 2)).pages) == 2
    kv.tree.evict(1)
    assert len(kv.tree.match(NAMESPACES[0], (1, 1, 2, 2)).pages) == 1


def test_of_two_equal_pages_the_older_stays_and_the_newcomer_reads_it():
    kv = cache()
    first, second = (kv.lease(NAMESPACES[0], (1, 1, 2), None) for _ in range(2))
    assert kv.extend(first, 3)
    assert kv.extend(second, 3)
    kept, freed = first.pages[0], second.pages[0]
    kv.seal(first, (1, 1, 2), 2)
    kv.seal(second, (1, 1, 2), 2)
    assert second.pages[0] == kept
    assert kv.arena.class_of(freed) is BlockClass.FREE
    kv.check()


def test_an_evicted_page_is_not_handed_out_under_the_step_that_may_read_it():
    kv = cache(pages=2)
    fill(kv, NAMESPACES[0], 1, 1, 2, 2)
    kv.arena.begin_step()
    lease = kv.lease(NAMESPACES[1], (1, 1), None)
    assert not kv.extend(lease, 2)
    kv.arena.end_step()
    assert kv.extend(lease, 2)
    kv.release(lease)
    kv.check()


def test_a_namespace_answers_for_one_adapter_only():
    kv = cache()
    lease = kv.lease(NAMESPACES[0], (1, 1, 2), b"x" * 32)
    with pytest.raises(InvalidNamespace):
        kv.lease(NAMESPACES[0], (1, 1, 2), b"y" * 32)
    kv.release(lease)
    kv.release(kv.lease(NAMESPACES[0], (1, 1, 2), b"y" * 32))
    kv.check()


def test_dropped_weights_are_not_found_again_and_leave_with_their_last_lease():
    kv = cache()
    lease = kv.lease(NAMESPACES[0], (1, 1, 2, 2, 3), b"x" * 32)
    assert kv.extend(lease, 5)
    kv.seal(lease, (1, 1, 2, 2, 3), 2)
    kv.drop(b"x" * 32)
    assert kv.tree.match(NAMESPACES[0], (1, 1, 2)).node is None
    kv.seal(lease, (1, 1, 2, 2, 3), 4)  # it goes on
    kv.check()
    assert kv.arena.free_count == 16 - 3
    kv.release(lease)
    kv.check()
    assert kv.arena.free_count == 16


def test_the_eviction_order_keeps_no_entry_for_ever():
    kv = cache()
    fill(kv, NAMESPACES[0], 1, 1)
    for _ in range(1000):
        kv.rollback(kv.lease(NAMESPACES[0], (1, 1, 2), None))
        kv.release(kv.lease(NAMESPACES[0], (1, 1, 2), None))
    assert sum(map(len, kv.tree._heaps)) < 100
    kv.check()
