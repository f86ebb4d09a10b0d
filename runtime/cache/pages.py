"""Which page is whose: free ids, and one exact class for every page.

Owns the free list and the fence of law 8: what is freed while a step is in flight becomes allocatable only when
that step has ended. It must not know tokens, requests or what a page holds.
"""

from enum import IntEnum


class PageClass(IntEnum):
    """FREE: allocatable. OWNED: written by one lease. TREE: sealed and shared. FENCED: freed under a step in flight.

    free -take-> owned -seal-> tree;  owned | tree -free-> free, or -> fenced -end_step-> free
    """

    FREE = 0
    OWNED = 1
    TREE = 2
    FENCED = 3


_FREE, _OWNED, _TREE, _FENCED = (int(c) for c in PageClass)


class PageAllocator:
    """Ids 0..pages-1. Every misuse (a page freed twice, sealed twice) is an AssertionError, never a silent repair."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._free = list(range(pages - 1, -1, -1))
        self._fenced: list[int] = []
        self._class = bytearray(pages)
        self._in_flight = False

    @property
    def free_count(self) -> int:
        return len(self._free)

    def class_of(self, page: int) -> PageClass:
        return PageClass(self._class[page])

    def take(self) -> int:
        """A free page, now owned. Raises IndexError when none is left: the caller looks at free_count first."""
        page = self._free.pop()
        self._class[page] = _OWNED
        return page

    def seal(self, page: int) -> None:
        """Hand an owned page over to the tree."""
        assert self._class[page] == _OWNED, f"page {page} sealed while {self.class_of(page).name}"
        self._class[page] = _TREE

    def free(self, page: int) -> None:
        """The one way back, for owned and tree pages alike."""
        assert self._class[page] in (_OWNED, _TREE), f"page {page} freed while {self.class_of(page).name}"
        if self._in_flight:
            self._class[page] = _FENCED
            self._fenced.append(page)
        else:
            self._class[page] = _FREE
            self._free.append(page)

    def begin_step(self) -> None:
        """From here until end_step a device may read or write any page that is in use now."""
        assert not self._in_flight, "a step began before the last one ended"
        self._in_flight = True

    def end_step(self) -> None:
        assert self._in_flight, "a step ended that never began"
        self._in_flight = False
        for page in self._fenced:
            self._class[page] = _FREE
        self._free += self._fenced
        self._fenced = []

    def members(self, kind: PageClass) -> set[int]:
        return {page for page, c in enumerate(self._class) if c == kind}

    def check(self) -> None:
        """Assert that both lists agree with the classes, page by page."""
        assert len(self._free) == len(set(self._free)), "a page is free twice"
        assert set(self._free) == self.members(PageClass.FREE), "free list and classes differ"
        assert set(self._fenced) == self.members(PageClass.FENCED), "fence and classes differ"
        assert self._in_flight or not self._fenced, "fenced pages without a step in flight"
