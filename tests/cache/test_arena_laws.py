"""The arena: every block has one class, runs are packed well, pages move and are not lost, floors and prices hold."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tenantry.adapters.residency import Outcome
from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.arena import Arena, BlockClass
from tenantry.runtime.cache.extents import choose, gaps, lay_out, offsets
from tenantry.runtime.cache.leases import Lease
from tenantry.runtime.cache.memory import Memory
from tenantry.runtime.config import ArenaConfig
from tenantry.runtime.errors import InvalidRequest

SIZE = 2
piece_lists = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(tuple)
run_lists = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), max_size=8)


def runs_of(spaced: list[tuple[int, int]]) -> list[tuple[int, int]]:
    runs, at = [], 0
    for gap, count in spaced:
        runs.append((at + gap, count))
        at += gap + count
    return runs


@given(piece_lists, run_lists, st.integers(1, 16))
def test_pieces_lie_whole_and_apart_in_runs_that_were_free(pieces, spaced, block_bytes):
    runs = runs_of(spaced)
    extents = choose(pieces, runs, block_bytes)
    if extents is None:
        assert max((count for _, count in runs), default=0) * block_bytes < sum(pieces), "one run would have done"
        longest = sorted((count * block_bytes for _, count in runs), reverse=True)
        assert lay_out(pieces, longest) is None
        return
    for first, count in extents:
        assert any(start <= first and first + count <= start + n for start, n in runs)
    starts = offsets(pieces, extents, block_bytes)  # in what is left of the runs, everything fits again
    taken = sorted(zip(starts, pieces, strict=True))
    assert all(a + size <= b for (a, size), (b, _) in pairwise(taken)), "pieces overlap"
    for start, size in taken:
        inside = [e for e in extents if e[0] * block_bytes <= start and start + size <= (e[0] + e[1]) * block_bytes]
        assert len(inside) == 1, "a piece is torn"
    last = {start // block_bytes for start in starts} | {(s + n - 1) // block_bytes for s, n in taken}
    assert all(first in last and first + count - 1 in last for first, count in extents), "an end of a run is unused"


@given(piece_lists, st.integers(1, 16))
def test_one_run_that_holds_them_wastes_less_than_a_block(pieces, block_bytes):
    need = -(-sum(pieces) // block_bytes)
    assert choose(pieces, [(0, need)], block_bytes) == ((0, need),)
    assert choose(pieces, [(0, need - 1)], block_bytes) is None if need > 1 else True


def test_the_gaps_between_extents_are_what_they_leave():
    assert gaps([(2, 3), (9, 1)], 12) == [(0, 2), (5, 4), (10, 2)]
    assert gaps([(0, 12)], 12) == []


def test_sixty_four_adapters_waste_at_most_a_tenth():
    """Shape of the 0.5B model: 24 layers, rank 8, bf16; a block is an int8 page of 16 tokens."""
    hidden, inner, kv, block = 896, 4864, 128, 104448
    layer = [8 * 3 * hidden, 8 * hidden, 8 * kv, 8 * kv, 8 * hidden, 8 * hidden]
    layer += [8 * 2 * hidden, 8 * inner, 8 * inner, 8 * inner, 8 * hidden]
    footprint = Footprint(tuple(2 * size for size in layer * 24))
    memory = Memory(ArenaConfig(64 * 100, block, 64, 64 * 90), 16)
    for index in range(64):
        assert memory.residency.warm(bytes([index]) * 32, footprint) is Outcome.LOADING
    assert memory.arena.adapter_blocks * block <= 1.1 * 64 * footprint.bytes
    memory.check()


class ArenaAgainstCells(RuleBasedStateMachine):
    """The model is the memory itself: cells that say what they hold, changed only as a runner would change them."""

    BLOCKS = 16

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(self.BLOCKS)
        self.arena.moved = self.renamed
        self.cells: list[object] = [None] * self.BLOCKS
        self.pages: dict[object, int] = {}
        self.adapters: dict[object, tuple[tuple[int, int], ...]] = {}
        self.written: set[object] = set()
        self.names = 0

    def renamed(self, moves: dict[int, int]) -> None:
        self.pages = {name: moves.get(block, block) for name, block in self.pages.items()}

    def run(self) -> None:
        """The runner's side of a plan: copies, then whatever is written."""
        content = [(to, self.cells[source]) for source, to in self.arena.take_moves()]
        for to, what in content:
            self.cells[to] = what
        for name, block in self.pages.items():
            self.cells[block] = self.cells[block] if self.cells[block] == name else self.fresh(name, block)
        for name, extents in self.adapters.items():
            for first, count in extents:
                self.cells[first : first + count] = [name] * count

    def fresh(self, name: object, block: int) -> object:
        assert name not in self.written, f"{name} was written and is not in block {block}"
        self.written.add(name)
        return name

    @precondition(lambda self: self.arena.free_count)
    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        for _ in range(min(count, self.arena.free_count)):
            self.names += 1
            free = self.arena.members(BlockClass.FREE)
            self.pages[self.names] = self.arena.take()
            assert self.pages[self.names] == min(free), "pages from the low end"

    @precondition(lambda self: self.pages)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pages)))
        self.arena.free(self.pages.pop(name))
        self.written.discard(name)

    @precondition(lambda self: not self.arena.in_flight)
    @rule(pieces=st.lists(st.integers(1, 3), min_size=1, max_size=5))
    def claim(self, pieces: list[int]) -> None:
        held = [extent for extents in self.adapters.values() for extent in extents]
        extents = choose(pieces, gaps(held, self.BLOCKS), 1)
        if extents is None or sum(count for _, count in extents) > self.arena.free_count:
            return
        self.arena.claim(extents)
        self.names += 1
        self.adapters[self.names] = extents

    @precondition(lambda self: self.adapters)
    @rule(data=st.data())
    def unclaim(self, data: st.DataObject) -> None:
        extents = self.adapters.pop(data.draw(st.sampled_from(sorted(self.adapters))))
        self.arena.unclaim(extents)
        blocks = {block for first, count in extents for block in range(first, first + count)}
        if self.arena.in_flight:
            assert blocks <= self.arena.members(BlockClass.FENCED), "a step in flight may read it"
            with pytest.raises(AssertionError):
                self.arena.claim(extents)

    @rule()
    def step(self) -> None:
        if self.arena.in_flight:
            self.arena.end_step()
        else:
            self.arena.begin_step()
            self.run()

    @invariant()
    def partition(self) -> None:
        self.arena.check()
        pages = set(self.pages.values())
        assert len(pages) == len(self.pages), "two pages in one block"
        adapters = [b for e in self.adapters.values() for first, n in e for b in range(first, first + n)]
        assert len(adapters) == len(set(adapters)), "two adapters in one block"
        assert pages == self.arena.members(BlockClass.OWNED)
        assert set(adapters) == self.arena.members(BlockClass.ADAPTER)


ArenaAgainstCells.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestArenaAgainstCells = ArenaAgainstCells.TestCase


def memory(blocks: int = 20, kv_min: int = 4, adapter_min: int = 4, load_s: float = 1.0) -> Memory:
    return Memory(ArenaConfig(blocks, 1, kv_min, adapter_min, load_s), SIZE)


def step(arena: Memory, count: int = 1) -> None:
    for _ in range(count):
        arena.residency.take_actions()
        arena.arena.take_moves()
        arena.cache.begin_step()
        arena.cache.end_step()


def resident(arena: Memory, name: bytes, blocks: int) -> bytes:
    digest = name * 32
    assert arena.residency.warm(digest, Footprint((blocks,))) is Outcome.LOADING
    step(arena)
    arena.residency.loaded(digest)
    return digest


def cached(arena: Memory, tokens: tuple[int, ...], weights: bytes | None = None) -> bytes:
    """KV that nobody uses."""
    namespace = bytes([tokens[0] % 256]) * 32
    lease = arena.cache.lease(namespace, tokens, weights)
    assert arena.cache.extend(lease, len(tokens))
    arena.cache.seal(lease, tokens, len(tokens))
    arena.cache.release(lease)
    return namespace


def live(arena: Memory, pages: int) -> Lease:
    tokens = tuple(range(50, 50 + pages * SIZE))
    lease = arena.cache.lease(b"live" * 8, tokens, None)
    assert arena.cache.extend(lease, len(tokens))
    return lease


def test_a_quiet_fleet_becomes_kv_and_the_reverse():
    arena = memory(blocks=20, kv_min=4, adapter_min=4)
    fleet = [resident(arena, bytes([i]), 4) for i in range(4)]
    assert arena.arena.adapter_blocks == 16
    lease = live(arena, 16)
    arena.check()
    assert arena.arena.pages == 16
    assert arena.residency.take_actions()[1] == tuple(fleet[:3])
    arena.cache.release(lease)
    for name in fleet:
        if arena.residency.state(name).value == "absent":
            assert arena.residency.warm(name, Footprint((4,))) is Outcome.LOADING
    arena.check()
    assert arena.arena.adapter_blocks == 16


def test_each_floor_is_kept_whatever_the_other_side_wants():
    arena = memory(blocks=20, kv_min=6, adapter_min=4)
    resident(arena, b"a", 4)
    live(arena, 16)
    lease = arena.cache.lease(b"more" * 8, (1, 2, 3), None)
    assert not arena.cache.extend(lease, 3), "KV took the adapters' floor"
    arena = memory(blocks=20, kv_min=6, adapter_min=4)
    for name in (b"a", b"b", b"c"):
        resident(arena, name, 4)
    assert arena.residency.acquire(b"d" * 32, Footprint((4,)), "r") is Outcome.LOADING
    assert arena.arena.adapter_blocks <= 14
    assert len(arena.residency.take_actions()[1]) == 1, "the adapters took KV's floor"


def test_the_cheaper_goes_first_by_age_and_by_what_it_costs_to_get_back():
    for load_s, adapter_stays in ((0.01, False), (100.0, True)):
        arena = memory(blocks=16, load_s=load_s)
        cached(arena, (1, 1, 2, 2, 3, 3, 4, 4))
        digest, _ = resident(arena, b"a", 4), resident(arena, b"b", 4)
        step(arena, 3)
        live(arena, 6)
        assert (arena.residency.state(digest).value == "resident") is adapter_stays
        assert (arena.cache.tree.nodes == 4) is not adapter_stays


def test_pages_that_are_never_found_again_keep_no_adapter_out():
    for repeating, adapter_stays in ((True, False), (False, True)):
        arena = memory(blocks=24, load_s=0.02)
        for turn in range(300):
            cached(arena, (1, 1, 1, 1, 1, 1, 2) if repeating else (turn, 1, 1, 2))
            arena.cache.tree.evict(0 if repeating else 9)
        digest, _ = resident(arena, b"a", 4), resident(arena, b"b", 4)
        for turn in range(2):
            cached(arena, (200 + turn, 3, 3, 3, 3, 3, 3, 3))
        live(arena, 10)
        assert (arena.residency.state(digest).value == "resident") is adapter_stays, arena.cache.reuse


def test_kv_of_an_adapter_that_has_left_goes_before_younger_and_older_kv_alike():
    arena = memory(blocks=20)
    digest = resident(arena, b"a", 4)
    step(arena, 10)
    old = cached(arena, (1, 1, 2, 2))
    step(arena)
    orphan = cached(arena, (3, 3, 4, 4), digest)
    arena.residency.leave(digest)
    arena.cache.tree.evict(2)
    assert orphan not in arena.cache.tree._roots
    assert len(arena.cache.tree.match(old, (1, 1, 2, 2)).pages) == 2
    step(arena)
    resident(arena, b"a", 4)
    arena.cache.tree.evict(9)
    assert arena.cache.tree.nodes == 0


def test_kv_of_an_adapter_that_is_back_is_worth_as_much_as_any():
    arena = memory(blocks=20)
    digest = resident(arena, b"a", 4)
    returning = cached(arena, (3, 3, 4, 4), digest)
    arena.residency.leave(digest)
    step(arena)
    resident(arena, b"a", 4)
    step(arena)
    arena.cache.release(arena.cache.lease(returning, (3, 3, 4, 4, 5), digest))
    cached(arena, (1, 1, 2, 2))
    assert arena.cache.tree.staleness() == 1


def test_an_adapter_that_was_to_leave_stays_where_it_is_if_nobody_took_its_place():
    arena = memory()
    digest = resident(arena, b"a", 4)
    place = arena.extents(digest)
    arena.residency.leave(digest)
    assert arena.residency.acquire(digest, Footprint((4,)), "r") is Outcome.HELD
    assert arena.extents(digest) == place
    assert arena.residency.take_actions() == ((), ())
    arena.residency.release(digest, "r")
    arena.residency.leave(digest)
    other = b"b" * 32
    assert arena.residency.warm(other, Footprint((4,))) is Outcome.LOADING
    assert arena.extents(other) == place
    assert arena.residency.acquire(digest, Footprint((4,)), "r") is Outcome.LOADING
    assert arena.residency.take_actions() == ((other, digest), (digest,)), "leaves, and comes back elsewhere"


def test_pages_in_the_way_move_with_everything_that_names_them():
    arena = memory(blocks=20)
    first = live(arena, 8)
    shared = cached(arena, (1, 1, 2, 2, 3, 3))
    lease = arena.cache.lease(shared, (1, 1, 2, 2, 3), None)
    resident(arena, b"a", 4)
    resident(arena, b"b", 4)
    arena.cache.release(first)  # a hole below the cached pages
    assert arena.residency.warm(b"c" * 32, Footprint((4,))) is Outcome.LOADING
    assert arena.extents(b"c" * 32) == ((8, 4),)
    assert arena.arena.take_moves() == ((8, 0), (9, 1), (10, 2))
    assert arena.cache.tree.match(shared, (1, 1, 2, 2, 3, 3)).pages == [0, 1, 2]
    assert lease.pages == [0, 1]
    arena.cache.check()
    arena.check()


def test_the_first_in_line_gets_what_is_freed_before_any_sequence_starts_on_it():
    arena = memory(blocks=20, kv_min=4, adapter_min=10)
    digest = resident(arena, b"a", 8)
    assert arena.residency.acquire(digest, Footprint((8,)), "r") is Outcome.HELD
    lease = live(arena, 6)
    assert arena.residency.acquire(b"b" * 32, Footprint((10,)), "s") is Outcome.WAIT
    assert arena.cache.startable == 4, "a waits to go, and its place is promised"
    assert arena.cache.available == 4
    arena.residency.release(digest, "r")
    assert arena.residency.state(b"b" * 32).value == "loading"
    arena.cache.release(lease)
    arena.check()


@pytest.mark.parametrize("wrong", [{"kv_min": 15}, {"adapter_min": 0}, {"blocks": 5}, {"block_bytes": 0}])
def test_floors_that_leave_nothing_are_refused(wrong: dict[str, int]):
    with pytest.raises(InvalidRequest):
        ArenaConfig(**({"blocks": 10, "block_bytes": 1, "kv_min": 4, "adapter_min": 4} | wrong))


def test_random_arrivals_on_both_sides_keep_every_adapter_whole_and_every_floor():
    rng, arena = Random(3), memory(blocks=200, kv_min=40, adapter_min=60)
    pieces = [tuple(rng.randint(1, 9) for _ in range(rng.randint(1, 9))) for _ in range(20)]
    sizes = {bytes([i]) * 32: Footprint(p) for i, p in enumerate(pieces) if sum(p) <= 60}
    owners: dict[str, bytes] = {}
    leases: list[Lease] = []
    for turn in range(3000):
        digest = rng.choice(sorted(sizes))
        arena.residency.serve()
        if arena.residency.acquire(digest, sizes[digest], str(turn)) is not Outcome.CANNOT_FIT:
            owners[str(turn)] = digest
        if len(owners) > 6:
            name = rng.choice(sorted(owners))
            arena.residency.release(owners.pop(name), name)
        lease = arena.cache.lease(bytes([rng.randrange(9)]) * 32, range(rng.randint(1, 60)), None)
        tokens = range(rng.randint(1, 60))
        if lease.matched < len(tokens) and arena.cache.extend(lease, len(tokens)):
            arena.cache.seal(lease, tokens, len(tokens))
            leases.append(lease)
        else:
            arena.cache.rollback(lease)
        if len(leases) > 4:
            arena.cache.release(leases.pop(rng.randrange(5)))
        loads, _ = arena.residency.take_actions()
        arena.arena.take_moves()
        arena.cache.begin_step()
        arena.cache.end_step()
        for load in loads:
            arena.residency.loaded(load)
        if turn % 10 == 0:
            arena.cache.check()
            arena.residency.check()
            arena.check()
