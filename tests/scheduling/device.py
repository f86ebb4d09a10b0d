"""The fake device's memory: cells that remember what was written, whoever owns the block by now.

Owns the oracle of the arena from outside: where adapters' pieces lie, what overwrites what. Numbers in assertions
refer to the simulator's invariants.
"""

from collections.abc import Collection

from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.arena import Arena, BlockClass
from tenantry.runtime.cache.extents import offsets
from tenantry.runtime.plan import NOTHING_COPIED, Copied, Load, StepPlan
from tests.scheduling.world import World


class DeviceMemory:
    """cells[block]: page cells and adapter bytes alike. adapters: what is resident or arriving, and where. held: what
    each needs once it is read, every second one less than its footprint."""

    def __init__(self, world: World, footprints: dict[bytes, Footprint]) -> None:
        self.world = world
        self.footprints = footprints
        self.held = {d: Footprint(_halved(f.pieces) if d[0] % 2 else f.pieces) for d, f in footprints.items()}
        self.cells: list[list[object]] = [
            [0] * max(world.page_size, world.block_bytes if world.arena else 0) for _ in range(world.pages)
        ]
        self.adapters: dict[bytes, dict[int, tuple[int, int]]] = {}
        self.moved = 0

    def evict(self, digest: bytes) -> None:
        del self.adapters[digest]

    def move(self, plan: StepPlan) -> None:
        """All are read before any is written."""
        targets = [target for _, target in plan.moves]
        assert len(set(targets)) == len(targets), "1: two pages move to one block"
        for target, content in [(target, list(self.cells[source])) for source, target in plan.moves]:
            self.cells[target] = content
            self.moved += 1

    def settle(self) -> Copied:
        """Transfers that ended: there is nothing below."""
        return NOTHING_COPIED

    def place(self, load: Load) -> None:
        """Where every byte goes; and nothing but a whole piece in a run, in nobody else's blocks."""
        size, pieces = self.world.block_bytes, self.held[load.digest].pieces
        bytes_of: dict[int, tuple[int, int]] = {}
        if self.world.arena:
            assert load.extents, "7: an adapter without a place"
            starts = offsets(pieces, load.extents, size, self.footprints[load.digest].pieces)
            for index, (start, length) in enumerate(zip(starts, pieces, strict=True)):
                inside = [e for e in load.extents if e[0] * size <= start and start + length <= sum(e) * size]
                assert len(inside) == 1, "7: a piece is torn"
                for byte in range(start, start + length):
                    assert byte not in bytes_of, "7: two pieces overlap"
                    bytes_of[byte] = (index, byte - start)
            blocks = {byte // size for byte in bytes_of}
            for digest, other in self.adapters.items():
                assert blocks.isdisjoint(byte // size for byte in other), f"7: in the blocks of {digest.hex()}"
        self.adapters[load.digest] = bytes_of
        self.write(load.digest)
        world, used = self.world, {b // size for held in self.adapters.values() for b in held}
        assert not world.arena or len(used) <= world.pages - world.kv_min, "7: the floor of KV ignored"

    def write(self, digest: bytes) -> None:
        """What the loader's thread does at any time between the load's start and its end."""
        for byte, what in self.adapters[digest].items():
            self.cells[byte // self.world.block_bytes][byte % self.world.block_bytes] = (digest, *what)

    def read(self, digest: bytes) -> None:
        for byte, what in self.adapters[digest].items():
            found = self.cells[byte // self.world.block_bytes][byte % self.world.block_bytes]
            assert found == (digest, *what), "7: an adapter's bytes were overwritten"

    def fenced(self, plan: StepPlan | None, arena: Arena) -> None:
        """Whatever ends meanwhile, what a step in flight reads is not to be had."""
        for digest in {row.adapter for row in plan.rows if row.adapter} if plan is not None else ():
            for block in {byte // self.world.block_bytes for byte in self.adapters.get(digest, ())}:
                kind = arena.class_of(block)
                assert kind in (BlockClass.ADAPTER, BlockClass.FENCED), "5: an adapter in use is to be had"

    def pages_within_floor(self, pages: Collection[int]) -> None:
        world = self.world
        most = world.pages - world.adapter_min
        assert not world.arena or len(pages) <= most, "7: the floor of adapters ignored"


def _halved(pieces: tuple[int, ...]) -> tuple[int, ...]:
    """Some of them, as a site may keep its precision."""
    return tuple(size if i % 3 == 2 else -(-size // 2) for i, size in enumerate(pieces))
