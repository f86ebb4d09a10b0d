"""Known defects of the arena, planted like those of planted.py: each must be caught by the simulator."""

from tenantry.adapters.residency import Residency
from tenantry.runtime.cache import extents, memory
from tenantry.runtime.cache.arena import Arena, BlockClass
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.memory import Memory
from tests.scheduling.planted import Plant

MEMORY_DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    MEMORY_DEFECTS[plant.__name__] = plant
    return plant


@defect
def a_piece_torn(patch):
    """Runs are filled to their last byte, though what follows lies elsewhere."""

    def lay_out(pieces, capacities):
        places, run, used = [], 0, 0
        for piece in pieces:
            while run < len(capacities) and used >= capacities[run]:
                run, used = run + 1, 0
            if run == len(capacities):
                return None
            places.append((run, used))
            used += piece
        return places

    patch.setattr(extents, "lay_out", lay_out)


@defect
def a_block_in_two_extents(patch):
    """An adapter's last block is still to be had."""
    original = Arena.claim

    def claim(self, wanted):
        original(self, wanted)
        first, count = wanted[-1]
        self._class[first + count - 1] = BlockClass.FREE
        self.free_count += 1
        if not self._heaped[first + count - 1]:
            self._heaped[first + count - 1] = 1
            self._heap.insert(0, first + count - 1)

    patch.setattr(Arena, "claim", claim)


@defect
def runs_over_a_neighbour(patch):
    """One adapter in place is overlooked when the next one's place is chosen."""
    original = extents.gaps
    patch.setattr(memory, "gaps", lambda held, blocks: original(list(held)[1:], blocks))


@defect
def adapters_freed_under_flight(patch):
    """[34] A step in flight reads an adapter whose blocks are handed out already."""
    original = Arena.unclaim

    def unclaim(self, wanted):
        in_flight, self.in_flight = self.in_flight, False
        original(self, wanted)
        self.in_flight = in_flight

    patch.setattr(Arena, "unclaim", unclaim)


@defect
def the_floor_of_kv_ignored(patch):
    """Adapters take all there is."""
    original = Memory.__init__

    def init(self, config, page_size):
        original(self, config, page_size)
        self._most = config.blocks

    patch.setattr(Memory, "__init__", init)


@defect
def the_floor_of_adapters_ignored(patch):
    """KV takes all there is."""
    original = Memory.__init__

    def init(self, config, page_size):
        original(self, config, page_size)
        self.cache.most = config.blocks

    patch.setattr(Memory, "__init__", init)


@defect
def the_first_in_line_starved(patch):
    """[60] Nobody yields to a waiting adapter, and nothing is reserved for it."""
    patch.setattr(Residency, "_choose_yielding", lambda self: None)


@defect
def moved_but_not_in_the_block_table(patch):
    """A running sequence goes on reading where its page was."""
    patch.setattr(
        KvCache, "_moved", lambda self, moves: [self.tree.moved(page, to) for page, to in moves.items()] and None
    )


@defect
def moved_but_not_in_the_tree(patch):
    """The next hit reads where the page was."""

    def moved(self, moves):
        for lease in self._leases:
            lease.pages[:] = [moves.get(page, page) for page in lease.pages]

    patch.setattr(KvCache, "_moved", moved)


@defect
def moved_in_name_only(patch):
    """The runner is not told to copy."""
    original = Arena.take_moves
    patch.setattr(Arena, "take_moves", lambda self: original(self) and ())


@defect
def lent_while_in_use(patch):
    """[23] Pages are won from an adapter that a request holds."""

    def idle(self):
        return [memory.Idle(d, 0) for d, e in self._entries.items() if e.loaded]

    patch.setattr(Residency, "idle", idle)
    patch.setattr(Residency, "leave", lambda self, digest: self._evict(digest))


@defect
def restored_where_others_write(patch):
    """An evicted adapter is taken to be still there, though pages were written to its place."""
    patch.setattr(Arena, "is_free", lambda self, wanted: True)
