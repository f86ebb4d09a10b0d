"""Which block is whose: free ids, and one exact class for every block, be it a page of KV or a part of an adapter.

Owns the free list and the fence of law 8: what is freed while a step is in flight becomes allocatable only when
that step has ended. It must not know tokens, requests, bytes or prices. Pages take single blocks from the low end;
adapters take runs, for which pages in the way are moved: no free block is ever in the wrong place.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from heapq import heappop, heappush

from tenantry.runtime.cache.extents import Extent


class BlockClass(IntEnum):
    """FREE: allocatable. OWNED: written by one lease. TREE: sealed and shared. FENCED: freed under a step in flight.
    ADAPTER: part of a loading or resident adapter.

    free -take-> owned -seal-> tree;  owned | tree -free-> free, or -> fenced -end_step-> free
    free -claim-> adapter -unclaim-> free, or -> fenced -end_step-> free
    """

    FREE = 0
    OWNED = 1
    TREE = 2
    FENCED = 3
    ADAPTER = 4


_FREE, _OWNED, _TREE, _FENCED, _ADAPTER = (int(c) for c in BlockClass)


class Arena:
    """Ids 0..blocks-1. Every misuse (a block freed twice, sealed twice) is an AssertionError, never a silent repair.

    pages, adapter_blocks: how many blocks are OWNED or TREE, and ADAPTER. moved: told which pages have new ids.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.pages = 0
        self.adapter_blocks = 0
        self.free_count = blocks
        self.in_flight = False
        self.moved: Callable[[dict[int, int]], None] = lambda moves: None
        self._class = bytearray(blocks)
        self._heap = list(range(blocks))  # free blocks, lowest first, and some that a claim has taken meanwhile
        self._heaped = bytearray(b"\1") * blocks
        self._fenced: list[int] = []
        self._moves: dict[int, int] = {}

    def class_of(self, block: int) -> BlockClass:
        return BlockClass(self._class[block])

    # Pages

    def take(self) -> int:
        """The lowest free block, now owned. Raises IndexError when none is left: look at free_count first."""
        block = self._pop()
        self._class[block] = _OWNED
        self.pages += 1
        return block

    def seal(self, page: int) -> None:
        """Hand an owned page over to the tree."""
        assert self._class[page] == _OWNED, f"page {page} sealed while {self.class_of(page).name}"
        self._class[page] = _TREE

    def free(self, page: int) -> None:
        """The one way back, for owned and tree pages alike."""
        assert self._class[page] in (_OWNED, _TREE), f"page {page} freed while {self.class_of(page).name}"
        self.pages -= 1
        self._let_go(page)

    # Adapters

    def claim(self, extents: Iterable[Extent]) -> None:
        """Give runs to an adapter. Pages in them move to the lowest free blocks outside: the runner copies them
        before anything else writes. Needs as many free blocks as the extents have, wherever they are."""
        assert not self.in_flight, "blocks claimed under a step in flight"
        wanted = [block for first, count in extents for block in range(first, first + count)]
        assert len(wanted) <= self.free_count, "fewer free blocks than an adapter claims"
        pages = []
        for block in wanted:
            kind = self._class[block]
            assert kind in (_FREE, _OWNED, _TREE), f"block {block} claimed while {self.class_of(block).name}"
            if kind == _FREE:
                self.free_count -= 1
                self._moves.pop(block, None)  # whoever was to move here has left again
            else:
                pages.append((block, kind))
            self._class[block] = _ADAPTER
        self.adapter_blocks += len(wanted)
        moves = {}
        for block, kind in pages:
            target = moves[block] = self._pop()
            self._class[target] = kind
            self._moves[target] = self._moves.pop(block, block)  # what has not been copied yet is where it was
        if moves:
            self.moved(moves)

    def unclaim(self, extents: Iterable[Extent]) -> None:
        """The adapter has left, or will have before these blocks are written again."""
        for first, count in extents:
            for block in range(first, first + count):
                assert self._class[block] == _ADAPTER, f"block {block} unclaimed while {self.class_of(block).name}"
                self.adapter_blocks -= 1
                self._let_go(block)

    def is_free(self, extents: Iterable[Extent]) -> bool:
        return not any(any(self._class[first : first + count]) for first, count in extents)

    # Steps

    def begin_step(self) -> None:
        """From here until end_step a device may read or write any block that is in use now."""
        assert not self.in_flight, "a step began before the last one ended"
        self.in_flight = True

    def end_step(self) -> None:
        assert self.in_flight, "a step ended that never began"
        self.in_flight = False
        fenced, self._fenced = self._fenced, []
        for block in fenced:
            self._let_go(block)

    @property
    def pending(self) -> tuple[tuple[int, int], ...]:
        """(from, to) of pages that take_moves will give."""
        return tuple((source, target) for target, source in self._moves.items())

    def where(self, page: int) -> int:
        """The block that holds a page's content until the moves to come are made."""
        return self._moves.get(page, page)

    def take_moves(self) -> tuple[tuple[int, int], ...]:
        """(from, to) of pages moved since the last call, each handed out once; all are read before any is written."""
        moves = self.pending
        self._moves.clear()
        return moves

    # Checks

    def members(self, kind: BlockClass) -> set[int]:
        return {block for block, c in enumerate(self._class) if c == kind}

    def check(self) -> None:
        """Assert that lists and counters agree with the classes, block by block."""
        free = self.members(BlockClass.FREE)
        assert len(self._heap) == len(set(self._heap)), "a block is free twice"
        assert free <= set(self._heap), "free list and classes differ"
        heaped = {block for block, flag in enumerate(self._heaped) if flag}
        assert set(self._heap) == heaped, "heap and flags differ"
        assert self.free_count == len(free), "free blocks miscounted"
        assert set(self._fenced) == self.members(BlockClass.FENCED), "fence and classes differ"
        assert self.in_flight or not self._fenced, "fenced blocks without a step in flight"
        pages = len(self.members(BlockClass.OWNED)) + len(self.members(BlockClass.TREE))
        assert self.pages == pages, "pages miscounted"
        assert self.adapter_blocks == len(self.members(BlockClass.ADAPTER)), "blocks of adapters miscounted"

    def _pop(self) -> int:
        while True:
            block = heappop(self._heap)
            self._heaped[block] = 0
            if self._class[block] == _FREE:
                self.free_count -= 1
                return block

    def _let_go(self, block: int) -> None:
        if self.in_flight:
            self._class[block] = _FENCED
            self._fenced.append(block)
            return
        self._class[block] = _FREE
        self.free_count += 1
        if not self._heaped[block]:
            self._heaped[block] = 1
            heappush(self._heap, block)
