"""One arena for adapters and KV pages: floors for each, and one price between them.

Owns who gives way to whom. Adapters never hold more than leaves `kv_min` blocks to KV, nor KV more than leaves
`adapter_min` to adapters, so each side keeps its own guarantees (the oldest sequence ends, the first adapter in line
is loaded) as if its floor were a pool of its own; what lies between goes to whatever is worth most. It must not know
requests, tensors, files or clocks: time is steps.

    price of a block = chance to be used again * seconds to get it back,   chance = 1 / (1 + steps unused)

Seconds: to compute a page's tokens again, or to load an adapter's share of bytes. A page's chance is also the share
of pages that were found again lately: prompts that never repeat keep no adapter out. Pages of an adapter that has
left are worth less (radix.py). Source of the idea: S-LoRA's unified paging; of the price: FASTLIBRA's joint cache.
"""

from collections.abc import Iterable, Sequence

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint, Idle
from tenantry.runtime.cache.arena import Arena
from tenantry.runtime.cache.extents import Extent, choose, gaps, shrunk
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import ArenaConfig, EngineConfig


class Memory:
    """Room of the residency and lender of the KV cache, which it makes: `cache` and `residency` go to a scheduler."""

    def __init__(self, config: ArenaConfig, page_size: int) -> None:
        self.config = config
        self.arena = Arena(config.blocks)
        most = config.blocks - config.adapter_min
        self.cache = KvCache(page_size, self.arena, self, most, config.kv_min, config.block_bytes)
        self.residency = Residency(self)
        self._most = config.blocks - config.kv_min
        self._places: dict[bytes, tuple[Extent, ...]] = {}
        self._blocks: dict[bytes, int] = {}
        self._vacated: dict[bytes, tuple[Extent, ...]] = {}  # since the last step
        self._vacated_at = 0
        self._reserved: int | None = None

    # Room of the residency

    @property
    def now(self) -> int:
        return self.cache.tree.now

    @property
    def limit(self) -> int:
        return self._most * self.config.block_bytes

    @property
    def busy(self) -> bool:
        return self.arena.in_flight

    def fits(self, footprint: Footprint, staying: Iterable[bytes], at_worst: bool = False) -> bool:
        staying = list(staying)
        held = sum(self._blocks[digest] for digest in staying)
        pages = self.cache.most if at_worst else self.cache.live
        room = min(self._most - held, self.config.blocks - held - pages)
        if -(-footprint.bytes // self.config.block_bytes) > room:
            return False
        extents = self._choose(footprint, staying)
        return extents is not None and _count(extents) <= room

    def make(self, footprint: Footprint, idle: Sequence[Idle]) -> bytes | None:
        extents = self._choose(footprint, self._places)
        if extents is None:
            return self._cheapest(idle).digest  # in too small pieces
        need = _count(extents)
        if self.arena.adapter_blocks + need > self._most:
            return self._cheapest(idle).digest
        while self.arena.free_count < need:
            leaver = self._cheaper(idle, self.cache.tree.staleness())
            if leaver is not None:
                return leaver.digest
            assert self.cache.tree.evict(1), "no place where one was found"
        return None

    def place(self, digest: bytes, footprint: Footprint) -> None:
        extents = self._choose(footprint, self._places)
        assert extents is not None, "no place where one was made"
        self._claim(digest, extents)

    def trim(self, digest: bytes, asked: Footprint, held: Footprint) -> None:
        before = self._places[digest]
        extents = shrunk(held.pieces, before, self.config.block_bytes, asked.pieces)
        kept = dict(extents)
        self.arena.unclaim((first + kept.get(first, 0), count - kept.get(first, 0)) for first, count in before)
        self._places[digest] = extents
        self._blocks[digest] = _count(extents)

    def vacate(self, digest: bytes) -> None:
        extents = self._places.pop(digest)
        del self._blocks[digest]
        self.arena.unclaim(extents)
        self.cache.tree.chill(digest)
        if self._vacated_at != self.now:
            self._vacated.clear()
            self._vacated_at = self.now
        self._vacated[digest] = extents

    def restore(self, digest: bytes, footprint: Footprint) -> bool:
        extents = self._vacated.get(digest) if self._vacated_at == self.now else None
        if extents is None or not self.arena.is_free(extents):
            return False
        if self.arena.adapter_blocks + _count(extents) > self._most:
            return False
        self._claim(digest, extents)
        return True

    def reserve(self, footprint: Footprint | None, staying: Iterable[bytes]) -> None:
        if footprint is None:
            self._reserved = None
            return
        held = sum(self._blocks[digest] for digest in staying)
        self._reserved = held - (-footprint.bytes // self.config.block_bytes)

    # Lender of the KV cache

    @property
    def lendable(self) -> int:
        if self._reserved is not None:  # the first in line has them, before any page
            return 0
        return sum(self._blocks[idle.digest] for idle in self.residency.idle())

    def lend(self, staleness: int | None) -> bool:
        leaver = self._cheaper(self.residency.idle(), staleness) if self._reserved is None else None
        if leaver is None:
            return False
        self.residency.leave(leaver.digest)
        return True

    @property
    def start_limit(self) -> int:
        return self.config.blocks - (self._reserved or 0)

    # Questions

    def extents(self, digest: bytes) -> tuple[Extent, ...]:
        """Where a loading or resident adapter lies."""
        return self._places[digest]

    def check(self) -> None:
        """Assert that every adapter's blocks are its own, and that floors hold."""
        blocks = [b for extents in self._places.values() for first, n in extents for b in range(first, first + n)]
        assert len(blocks) == len(set(blocks)) == self.arena.adapter_blocks, "a block of two adapters, or of none"
        assert self._blocks == {d: _count(e) for d, e in self._places.items()}, "blocks miscounted"
        assert self.arena.adapter_blocks <= self._most, "the floor of KV ignored"
        assert self.arena.pages <= self.cache.most, "the floor of adapters ignored"

    def _choose(self, footprint: Footprint, staying: Iterable[bytes]) -> tuple[Extent, ...] | None:
        """Among all blocks that those do not hold, be they free or not: what is in the way moves or leaves."""
        held = [extent for digest in staying for extent in self._places[digest]]
        return choose(footprint.pieces, gaps(held, self.config.blocks), self.config.block_bytes)

    def _claim(self, digest: bytes, extents: tuple[Extent, ...]) -> None:
        self.arena.claim(extents)
        self._places[digest] = extents
        self._blocks[digest] = _count(extents)
        self.cache.tree.thaw(digest)

    def _cheaper(self, idle: Sequence[Idle], staleness: int | None) -> Idle | None:
        """The adapter that is worth less than the page that goes next, if there is one."""
        if not idle:
            return None
        leaver = self._cheapest(idle)
        return leaver if staleness is None or self._price(leaver) <= self._page(staleness) else None

    def _cheapest(self, idle: Sequence[Idle]) -> Idle:
        return min(idle, key=self._price)

    def _price(self, adapter: Idle) -> float:
        return self.config.load_s / (1 + adapter.quiet)

    def _page(self, staleness: int) -> float:
        return self.config.compute_s * self.cache.reuse / staleness


def share(config: EngineConfig, block_bytes: int) -> tuple[KvCache, Residency]:
    """The books of KV and adapters, as a scheduler wants them: of one memory, or of one each.

    Raises InvalidRequest.
    """
    if config.memory == "split":
        return KvCache.alone(config.cache, block_bytes), Residency(Budget(config.adapter_bytes))
    memory = Memory(config.arena(block_bytes), config.cache.page_size)
    return memory.cache, memory.residency


def _count(extents: Iterable[Extent]) -> int:
    return sum(count for _, count in extents)
