"""Leases: one sequence's hold on pages, from tentative match to release.

Owns the protocol between the prefix tree and the page allocator (after LMDeploy's block trie): match, then admit or
roll back; grow; seal what is committed; release. It must not know requests, adapters' bytes, steps' contents or text.
A preempted sequence is a released one: its sealed pages stay findable, the rest is computed again.
"""

from collections import Counter
from collections.abc import Sequence

from tenantry.runtime.cache.pages import PageAllocator, PageClass
from tenantry.runtime.cache.radix import Node, RadixTree
from tenantry.runtime.config import CacheConfig
from tenantry.runtime.errors import InvalidNamespace


class Lease:
    """pages: the sequence's block table. Its first `sealed` pages are the tree's, the others this lease's own.

        |<------- pages in the tree ------->|<------- owned ------->|
        |<-- matched -->|<-- sealed here -->|<-- written -->| room  |
        0          matched                sealed*size    computed  len(pages)*size

    node: where the sealed pages end in the tree; locked, which pins the whole path. matched: tokens found there.
    """

    __slots__ = ("matched", "node", "pages", "sealed")

    def __init__(self, pages: list[int], node: Node, matched: int) -> None:
        self.pages = pages
        self.node = node
        self.sealed = len(pages)
        self.matched = matched


class KvCache:
    """The page pool's books. Nothing here touches KV itself: pages are ids."""

    def __init__(self, config: CacheConfig) -> None:
        self.page_size = config.page_size
        self.allocator = PageAllocator(config.pages)
        self.tree = RadixTree(config.page_size, self.allocator.free)
        self._leases: set[Lease] = set()

    @property
    def available(self) -> int:
        """Pages that extend could hand out now: free ones, and unpinned ones of the tree."""
        return self.allocator.free_count + self.tree.evictable

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def lease(self, namespace: bytes, tokens: Sequence[int], weights: bytes | None) -> Lease:
        """Pin the longest known prefix of `tokens`: tentative until the caller extends it, else roll it back.

        At least the last token is left to compute, since its logits are wanted. Raises InvalidNamespace when the
        namespace is alive with the KV of other weights.
        """
        match = self.tree.match(namespace, tokens[: len(tokens) - 1])
        node = match.node or self.tree.plant(namespace, weights)
        if node.root.weights != weights:
            raise InvalidNamespace("namespace", "this namespace belongs to another adapter")
        self.tree.lock(node)
        lease = Lease(match.pages, node, len(match.pages) * self.page_size)
        self._leases.add(lease)
        return lease

    def extend(self, lease: Lease, tokens: int) -> bool:
        """Make the block table cover positions 0..tokens-1, evicting if it must. False: no room, nothing taken."""
        missing = self.pages_for(tokens) - len(lease.pages)
        if missing <= 0:
            return True
        short = missing - self.allocator.free_count
        if short > self.tree.evictable:
            return False
        if short > 0:
            self.tree.evict(short)
        if self.allocator.free_count < missing:  # what was evicted under a step in flight is still fenced
            return False
        lease.pages += [self.allocator.take() for _ in range(missing)]
        return True

    def seal(self, lease: Lease, tokens: Sequence[int], computed: int) -> None:
        """Hand every whole page of the first `computed` tokens to the tree.

        Call only for tokens that are committed and whose KV is known to be finite. Where the tree has the same page
        already, the lease goes on with that one and its own is freed.
        """
        size = self.page_size
        while (lease.sealed + 1) * size <= computed:
            at = lease.sealed
            own = lease.pages[at]
            lease.node = self.tree.insert(lease.node, tokens[at * size : (at + 1) * size], own)
            if lease.node.page == own:
                self.allocator.seal(own)
            else:
                lease.pages[at] = lease.node.page
                self.allocator.free(own)
            lease.sealed += 1

    def release(self, lease: Lease) -> None:
        """Let go of everything. What a step in flight may still touch stays fenced until it ends."""
        self._end(lease, used=True)

    def rollback(self, lease: Lease) -> None:
        """Undo a tentative lease: as if the match had not been made, the order of eviction included."""
        self._end(lease, used=False)

    def drop(self, weights: bytes) -> None:
        """Forget all KV computed under these weights; leased pages go with their lease."""
        for namespace in self.tree.namespaces(weights):
            self.tree.drop(namespace)

    def check_leases(self, held: Sequence[Lease]) -> None:
        """Assert that exactly these leases exist."""
        assert len(held) == len(self._leases), "leases and sequences differ in number"
        assert set(held) == self._leases, "a lease without a sequence"

    def _end(self, lease: Lease, used: bool) -> None:
        self._leases.remove(lease)
        for page in lease.pages[lease.sealed :]:
            self.allocator.free(page)
        self.tree.unlock(lease.node, used)

    def check(self) -> None:
        """Assert that the classes partition the pages: owned by exactly one lease, or in the tree exactly once."""
        self.allocator.check()
        shared = self.tree.check(Counter(lease.node for lease in self._leases))
        owned = [page for lease in self._leases for page in lease.pages[lease.sealed :]]
        assert len(owned) == len(set(owned)), "a page has two owners"
        assert set(owned) == self.allocator.members(PageClass.OWNED), "owned pages and leases differ"
        assert shared == self.allocator.members(PageClass.TREE), "tree and classes differ"
        for lease in self._leases:
            path: list[int] = []
            node: Node | None = lease.node
            while node is not None and node.parent is not None:
                path.append(node.page)
                node = node.parent
            assert path[::-1] == lease.pages[: lease.sealed], "a lease's shared pages are not its path in the tree"
