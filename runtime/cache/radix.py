"""The prefix tree: which sealed page holds the KV of which tokens, under which namespace.

Owns lookup, sharing, pinning and leaf eviction, over ints and bytes alone. It must not know requests, tenants,
time or who allocates pages: what it lets go of goes through the `free` it was given.

A node is one page; its key under its parent is the page's token ids, so a lookup compares every token exactly and
namespaces are disjoint by construction (shape: TGI's radix.rs; keys: SGLang's RadixKey, with the namespace as root).
A node's `ref` counts the leases that end at it plus its children that are referenced: locking stops at the first
ancestor that is locked already, and the number of evictable pages is known without a walk.
Leaves go least recently used first; a root whose adapter has left the device is cold, and its leaves age faster.
Before them goes what a tenant has beyond its ceiling; after them its floor (shares.py), then what a session holds,
and what it has pinned last of all: nothing is beyond eviction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from struct import Struct

from tenantry.runtime.cache.nodes import TOKEN_BYTES, Node, Root, below, encode, evictable
from tenantry.runtime.cache.shares import Shares

_USES = 20  # bits of a tick that count uses within a step
_COLD = 4  # times as stale: to be used again, its adapter must first be loaded


@dataclass(frozen=True, slots=True)
class Match:
    """pages: those of the longest known prefix, in order. node: where it ends; None in a namespace not yet planted.

    Safe to use only once locked: until then an eviction may take it.
    """

    pages: list[int]
    node: Node | None


_Entry = tuple[int, int, Node]  # tick, serial
_OVER, _WARM, _COLD_HEAP, _GUARDED, _HELD, _PINNED = range(6)  # in the order in which they go


class RadixTree:
    """page_size: tokens per page. free: called once with every page that leaves the tree. leaving: told before a page
    is evicted, while it is still in the tree; not of what is dropped."""

    def __init__(self, page_size: int, free: Callable[[int], None]) -> None:
        self._width = page_size * TOKEN_BYTES
        self._cut = Struct(f"{self._width}s").iter_unpack
        self._page_size = page_size
        self._free = free
        self.leaving: Callable[[Node], None] | None = None
        self._roots: dict[bytes, Root] = {}
        self._dropped: set[Root] = set()  # no longer found, still pinned by leases
        self._pages: dict[int, Node] = {}
        # Evictable leaves by last use, a heap for each kind; outdated entries are skipped.
        self._heaps: tuple[list[_Entry], ...] = ([], [], [], [], [], [])
        self.shares: Shares | None = None
        self._guarded: dict[str, list[Node]] = {}  # leaves in that heap, by tenant, and some that have left it
        self._ends: list[tuple[float, int, Node]] = []  # when holds may be over
        self._clock = 0.0
        self._serial = 0
        self._tick = 0
        self.now = 0
        self.evicted = 0
        self.pinned = 0

    @property
    def nodes(self) -> int:
        return len(self._pages)

    @property
    def evictable(self) -> int:
        """Pages that eviction could free now."""
        return self.nodes - self.pinned

    def match(self, namespace: bytes, tokens: Sequence[int]) -> Match:
        """Longest known prefix of whole pages. Changes nothing."""
        pages: list[int] = []
        node: Node | None = self._roots.get(namespace)
        if node is None:
            return Match(pages, None)
        whole = len(tokens) - len(tokens) % self._page_size
        append = pages.append
        try:
            for (key,) in self._cut(encode(tokens[:whole])):  # cut in C, looked up without a call: half the time
                node = node.children[key]
                append(node.page)
        except KeyError:
            return Match(pages, node)
        return Match(pages, node)

    def plant(self, namespace: bytes, weights: bytes | None, tenant: str = "") -> Root:
        """The namespace's root, made if it is new. It goes with its last page and lock."""
        root = self._roots.get(namespace)
        if root is None:
            root = self._roots[namespace] = Root(namespace, weights, tenant)
        return root

    def __contains__(self, node: Node) -> bool:
        """Whether it is still a page of the tree."""
        return self._pages.get(node.page) is node

    def lock(self, node: Node) -> None:
        """Pin a path against eviction; every lock is undone by one unlock of the node it ended at."""
        at: Node | None = node
        while at is not None:
            at.ref += 1
            if at.ref > 1:
                return
            if at.parent is not None:
                self.pinned += 1
            at = at.parent

    def unlock(self, node: Node, used: bool = True) -> None:
        """used: whether the lease came to anything. A rolled-back match leaves the order of eviction as it was."""
        if used:
            self._tick += 1
        at: Node | None = node
        while at is not None:
            assert at.ref > 0, "unlocked more often than locked"
            at.ref -= 1
            if used:
                at.tick = self._tick
            if at.ref:
                return
            parent = at.parent
            if parent is not None:
                self.pinned -= 1
            if not at.children:
                self._leaf(at)
            at = parent

    def insert(self, node: Node, tokens: Sequence[int], page: int) -> Node:
        """Move a lock from `node` to its child for one page of tokens, making it of `page` if there is none.

        The caller looks at the answer's page: if it is another, that one holds the same KV and `page` stays the
        caller's to free. Precondition: the caller's lease ends at `node`.
        """
        assert len(tokens) == self._page_size, "only whole pages enter the tree"
        key = encode(tokens)
        child = node.children.get(key)
        if child is None:
            child = Node(node.root, node, key, page)
            node.children[key] = self._pages[page] = child
            if self.shares is not None and self.shares.grew(node.root.tenant):
                self._unguard(node.root.tenant)
        child.ref += 1
        if child.ref == 1:  # the parent loses a lease and gains a referenced child
            self.pinned += 1
        else:
            node.ref -= 1
        return child

    def advance(self) -> None:
        """A step has begun: what is used from now on is younger than all before."""
        self.now += 1
        self._tick = self.now << _USES

    def staleness(self) -> int | None:
        """How many steps ago the page that goes next was used, at least 1; times _COLD if its weights have left; 1
        for what is held.

        None when nothing can be evicted.
        """
        heap = self._next()
        if heap is None:
            return None
        return self._stale(heap) if heap < _GUARDED else 1

    def evict(self, count: int) -> int:
        """Free up to `count` unpinned leaves, the stalest first, parents after children. Returns how many."""
        for freed in range(count):
            heap = self._next()
            if heap is None:
                return freed
            node = heappop(self._heaps[heap])[2]
            self.evicted += 1
            if self.leaving is not None:
                self.leaving(node)
            self._remove(node)
        return count

    def hold(self, node: Node, until: float, pinned: float, session: str = "") -> None:
        """A session's path ends here: it is to stay until then, and so long before all that is not pinned."""
        at: Node | None = node
        while at is not None and at.parent is not None:
            at.until, at.pinned, at.doomed = max(at.until, until), max(at.pinned, pinned), False
            at.session = at.session or session
            self._look_after(at)
            at = at.parent

    def advance_clock(self, now: float) -> None:
        """What is held no longer becomes like any other page."""
        self._clock = max(self._clock, now)
        while self._ends and self._ends[0][0] <= self._clock:
            node = heappop(self._ends)[2]
            node.ending = False
            self._look_after(node)
            if evictable(node):
                self._queue(node)

    def find(self, namespace: bytes, keys: Sequence[bytes]) -> list[Node]:
        """The nodes of a path, page tokens by page tokens, as far as it is known."""
        node: Node | None = self._roots.get(namespace)
        found: list[Node] = []
        for key in keys:
            node = node.children.get(key) if node is not None else None
            if node is None:
                break
            found.append(node)
        return found

    def demote(self, path: Sequence[Node]) -> None:
        """Pages of a path's end that nobody is likely to want: evicted now, as far as nothing needs them."""
        for node in reversed(path):
            node.until = node.pinned = 0.0
            if evictable(node):
                if self.leaving is not None:
                    self.leaving(node)
                self._remove(node)

    def doom(self, path: Sequence[Node]) -> None:
        """Pages of a path's end that must not stay: gone now, or with their last lease; never told as leaving."""
        for node in reversed(path):
            node.until = node.pinned = 0.0
            node.keep, node.doomed = False, True
            if evictable(node):
                self._remove(node)

    def moved(self, page: int, to: int) -> None:
        """A page's content goes on under another id. Unknown pages are ignored: they are in no tree."""
        node = self._pages.pop(page, None)
        if node is not None:
            node.page = to
            self._pages[to] = node

    def chill(self, weights: bytes) -> None:
        """These weights have left the device: what was computed under them is worth less until they are back."""
        for namespace in self.namespaces(weights):
            root = self._roots[namespace]
            root.cold = True
            for node in [n for n in below(root) if not n.children and n.ref == 0]:
                self._queue(node)

    def thaw(self, weights: bytes) -> None:
        """These weights are back. Leaves that wait among the cold ones are put right when their turn comes."""
        for namespace in self.namespaces(weights):
            self._roots[namespace].cold = False

    def drop(self, namespace: bytes) -> None:
        """Forget a namespace: unpinned pages now, pinned ones with their last lease; no match finds them again."""
        root = self._roots.pop(namespace, None)
        if root is None:
            return
        root.dropped = True
        for node in [n for n in below(root) if not n.children and n.ref == 0]:
            self._leaf(node)
        if root.ref:
            self._dropped.add(root)

    def namespaces(self, weights: bytes) -> list[bytes]:
        """Live namespaces computed under these weights. Walks all roots: for retirement, not for every step."""
        return [r.namespace for r in self._roots.values() if r.weights == weights]

    def tenants(self, tenant: str) -> list[bytes]:
        """Live namespaces of a tenant; as namespaces()."""
        return [r.namespace for r in self._roots.values() if r.tenant == tenant]

    def _leaf(self, node: Node) -> None:
        """A node has become an unreferenced leaf: queue it for eviction, or let it go with its dropped root."""
        if isinstance(node, Root):
            if node.dropped:
                self._dropped.discard(node)
            else:
                del self._roots[node.namespace]
        elif node.root.dropped or node.doomed:
            while node.parent is not None and evictable(node) and (node.root.dropped or node.doomed):
                parent = node.parent
                self._detach(node)
                node = parent
            if not node.root.dropped and not node.children and node.ref == 0:
                self._leaf(node)
        else:
            self._queue(node)

    def _queue(self, node: Node) -> None:
        """Among the evictable leaves, by its last use; an older entry of it is outdated."""
        self._serial += 1
        node.serial = self._serial
        kind = self._kind(node)
        if kind == _GUARDED:
            self._guarded.setdefault(node.root.tenant, []).append(node)
        heap = self._heaps[kind]
        heappush(heap, (node.tick, self._serial, node))
        if len(heap) > 2 * self.evictable + 64:
            heap[:] = [entry for entry in heap if entry[1] == entry[2].serial and evictable(entry[2])]
            heapify(heap)

    def _unguard(self, tenant: str) -> None:
        """It has more than its floor: of all its leaves the stalest may go."""
        for node in self._guarded.pop(tenant, ()):
            if evictable(node):
                self._queue(node)

    def _kind(self, node: Node) -> int:
        if node.until > self._clock and (self.shares is None or not self.shares.over(node.root.tenant)):
            return _PINNED if node.pinned > self._clock else _HELD
        if self.shares is not None:
            if self.shares.over(node.root.tenant):
                return _OVER
            if self.shares.guarded(node.root.tenant):
                return _GUARDED
        return _COLD_HEAP if node.root.cold else _WARM

    def _next(self) -> int | None:
        """The heap whose first leaf goes next."""
        for kind in (_PINNED, _HELD, _GUARDED):  # in this order: what is none of these any more turns up among others
            self._stale(kind)
        if self._stale(_OVER) is not None:
            return _OVER
        cold, warm = self._stale(_COLD_HEAP), self._stale(_WARM)  # and a cold leaf may turn out to be warm again
        if warm is not None or cold is not None:
            return _COLD_HEAP if warm is None or (cold is not None and cold >= warm) else _WARM
        return next((kind for kind in (_OVER, _GUARDED, _HELD, _PINNED) if self._heaps[kind]), None)

    def _stale(self, kind: int) -> int | None:
        """The staleness of one heap's first leaf."""
        heap = self._heaps[kind]
        while heap:
            tick, serial, node = heap[0]
            current = serial == node.serial and evictable(node)
            if current and self._kind(node) == kind:
                return ((self._tick >> _USES) - (tick >> _USES) + 1) * (_COLD if kind in (_OVER, _COLD_HEAP) else 1)
            heappop(heap)
            if current:
                self._queue(node)  # its weights are back, or nobody holds it any more
        return None

    def _look_after(self, node: Node) -> None:
        """One entry a node, however often it is promised longer."""
        end = max(node.until, node.pinned)
        if not node.ending and end > self._clock:
            node.ending = True
            self._serial += 1
            heappush(self._ends, (end, self._serial, node))

    def _remove(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None
        self._detach(node)
        parent.tick = max(parent.tick, node.tick)
        if not parent.children and parent.ref == 0:
            self._leaf(parent)

    def _detach(self, node: Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.key]
        del self._pages[node.page]
        if self.shares is not None:
            self.shares.shrank(node.root.tenant)
        self._free(node.page)

    def __iter__(self) -> Iterator[Node]:
        """Every page node, those of dropped namespaces included: for checks."""
        for root in (*self._roots.values(), *self._dropped):
            yield from below(root)

    def check(self, leases: Mapping[Node, int]) -> set[int]:
        """Assert every invariant, given how many leases end at each node. Returns the pages."""
        pages: set[int] = set()
        pinned = 0
        queued = {serial: cold for cold, heap in enumerate(self._heaps) for _, serial, _ in heap}
        for namespace, root in self._roots.items():
            assert root.namespace == namespace, "a root under a foreign namespace"
        stack: list[Node] = [*self._roots.values(), *self._dropped]
        while stack:
            node = stack.pop()
            held = 0
            for key, child in node.children.items():
                assert child.parent is node, "a child of two parents"
                assert child.root is node.root, "a child under another root"
                assert child.page not in pages, f"page {child.page} is in the tree twice"
                assert len(key) == self._width, "an incomplete page in the tree"
                pages.add(child.page)
                held += child.ref > 0
                stack.append(child)
            assert node.ref == leases.get(node, 0) + held, "ref is not leases plus referenced children"
            if node.parent is not None:
                pinned += node.ref > 0
                assert node.ref or node.children or node.serial in queued, "a leaf that is never evicted"
                assert self._pages.get(node.page) is node, "a page that is not found by its id"
            else:
                assert node.ref or node.children, "an empty root was kept"
        assert pages == self._pages.keys(), "nodes and pages differ"
        assert pinned == self.pinned, "pinned nodes miscounted"
        return pages
