"""Leases: one sequence's hold on pages, from tentative match to release.

Owns the protocol between the prefix tree and the arena's blocks (after LMDeploy's block trie): match, then admit or
roll back; grow; seal what is committed; release. It must not know requests, adapters' bytes, steps' contents or text.
A preempted sequence is a released one: its sealed pages stay findable, the rest is computed again.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from tenantry.runtime.cache.arena import Arena, BlockClass
from tenantry.runtime.cache.kept import Kept
from tenantry.runtime.cache.names import Name, chain, tag_of
from tenantry.runtime.cache.nodes import TOKEN_BYTES, Node, encode
from tenantry.runtime.cache.radix import RadixTree
from tenantry.runtime.cache.sessions import Sessions
from tenantry.runtime.cache.shares import Shares
from tenantry.runtime.cache.tiers import Fetching, Tiers
from tenantry.runtime.config import CacheConfig
from tenantry.runtime.errors import InvalidNamespace
from tenantry.runtime.plan import NO_COPIES, Copied, Copies

KEPT_PER_STEP = 64  # pages copied down because they are worth keeping, beside those that are evicted


class Lease:
    """pages: the sequence's block table. Its first `sealed` pages are the tree's, the others this lease's own.

        |<------- pages in the tree ------->|<------- owned ------->|
        |<-- matched -->|<-- sealed here -->|<-- written -->| room  |
        0          matched                sealed*size    computed  len(pages)*size

    node: where the sealed pages end in the tree; locked, which pins the whole path. matched: tokens found there, and
    once admitted in lower tiers: from_host and from_disk of them. found: pages there that follow, until admitted.
    """

    __slots__ = ("found", "from_disk", "from_host", "matched", "node", "pages", "sealed")

    def __init__(self, pages: list[int], node: Node, matched: int) -> None:
        self.pages = pages
        self.node = node
        self.sealed = len(pages)
        self.matched = matched
        self.found: list[Kept] = []
        self.from_host = 0
        self.from_disk = 0


class Lender(Protocol):
    """Whoever else holds blocks of the same arena, and may give some up."""

    @property
    def lendable(self) -> int:
        """Blocks it could give up now."""

    def lend(self, staleness: int | None) -> bool:
        """Give up the cheapest of them, if that is cheaper than evicting a page of this staleness (None: there is
        none). False: nothing was given."""

    @property
    def start_limit(self) -> int:
        """Most pages in use beyond which no sequence may start, since someone has reserved them."""


class KvCache:
    """The books of KV pages. Nothing here touches KV itself: pages are ids.

    most: pages that KV may ever hold. sure: pages that it gets whatever else the arena holds; a request that needs
    no more always ends. By default both are the whole arena, and nobody shares it. block_bytes: of a page, for
    statistics.
    """

    def __init__(
        self,
        page_size: int,
        arena: Arena,
        lender: Lender | None = None,
        most: int | None = None,
        sure: int | None = None,
        block_bytes: int = 0,
    ) -> None:
        self.page_size = page_size
        self.arena = arena
        self.most = arena.blocks if most is None else most
        self.sure = arena.blocks if sure is None else sure
        self.tree = RadixTree(page_size, arena.free)
        self.block_bytes = block_bytes
        self.reuse = 0.25  # share of pages that their leases found, over about the last hundred
        self.tiers: Tiers | None = None
        self.page_seconds: Callable[[], float] = lambda: inf  # to compute one, as far as anybody knows
        self.sessions = Sessions(self.tree)
        self._worthy: deque[Node] = deque()  # pages that lower tiers are to have before they are evicted
        self._lender = lender
        self._leases: set[Lease] = set()
        self._named: tuple[tuple[bytes, bytes], list[Name]] | None = None
        arena.moved = self._moved

    @classmethod
    def alone(cls, config: CacheConfig, block_bytes: int = 0) -> "KvCache":
        """All pages are KV's own."""
        return cls(config.page_size, Arena(config.pages), block_bytes=block_bytes)

    def below(self, tiers: Tiers) -> None:
        """What the device lets go of is kept there."""
        self.tiers = self.sessions.tiers = tiers
        self.tree.leaving = self._leaving

    def share(self, least: int, most: int) -> None:
        """Floor and ceiling of a tenant's pages in the tree; 0 for none."""
        if least or most:
            self.tree.shares = Shares(self.arena.blocks, least, most)

    @property
    def shared(self) -> bool:
        """Whether adapters lie in the same memory."""
        return self._lender is not None

    @property
    def live(self) -> int:
        """Pages in use: no eviction gets them."""
        return self.arena.pages - self.tree.evictable

    @property
    def available(self) -> int:
        """Pages that extend could hand out now: free ones, unpinned ones of the tree, and what others would lend."""
        lendable = self._lender.lendable if self._lender is not None else 0
        return min(self.arena.free_count + self.tree.evictable + lendable, self.most - self.live)

    @property
    def startable(self) -> int:
        """Pages that may go to a sequence that has none yet."""
        if self._lender is None:
            return self.available
        return min(self.available, self._lender.start_limit - self.live)

    def begin_step(self) -> None:
        """A device may now touch what is in use; until end_step nothing that is freed is handed out."""
        self.arena.begin_step()
        self.tree.advance()

    def end_step(self) -> None:
        self.arena.end_step()
        if self.tiers is not None:
            self.tiers.end_step()

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def lease(self, namespace: bytes, tokens: Sequence[int], weights: bytes | None, tenant: str = "") -> Lease:
        """Pin the longest known prefix of `tokens`: tentative until the caller extends it, else roll it back.

        At least the last token is left to compute, since its logits are wanted. Raises InvalidNamespace when the
        namespace is alive with the KV of other weights.
        """
        match = self.tree.match(namespace, tokens[: len(tokens) - 1])
        node = match.node or self.tree.plant(namespace, weights, tag_of(tenant))
        if node.root.weights != weights:
            raise InvalidNamespace("namespace", "this namespace belongs to another adapter")
        self.tree.lock(node)
        lease = Lease(match.pages, node, len(match.pages) * self.page_size)
        self._leases.add(lease)
        if self.tiers is not None and self.tiers.knows(namespace, weights):
            names = self._names(namespace, tokens)[len(match.pages) :]
            lease.found = self.tiers.reach(namespace, weights, names)
        return lease

    def admit(self, lease: Lease, tokens: int) -> bool:
        """Make a tentative lease one that runs: room for all its tokens, and what lower tiers have of them is on its
        way. False: no room, nothing taken."""
        if not self.extend(lease, tokens):
            return False
        found, lease.found = lease.found, []
        for kept, page in zip(found, lease.pages[lease.sealed :], strict=False):
            assert self.tiers is not None
            if self.tiers.restore(kept, page):
                lease.from_disk += self.page_size
            else:
                lease.from_host += self.page_size
        lease.matched += len(found) * self.page_size
        return True

    def extend(self, lease: Lease, tokens: int) -> bool:
        """Make the block table cover positions 0..tokens-1, evicting if it must. False: no room, nothing taken."""
        missing = self.pages_for(tokens) - len(lease.pages)
        if missing <= 0:
            return True
        arena = self.arena
        if (missing > arena.free_count or arena.pages + missing > self.most) and not self._make_room(missing):
            return False
        lease.pages += [arena.take() for _ in range(missing)]
        return True

    def _make_room(self, missing: int) -> bool:
        """Evict pages, or what others lend, whichever is cheaper. False, and nothing done, if all is too little."""
        if missing > self.available:
            return False
        arena, tree = self.arena, self.tree
        tree.evict(arena.pages + missing - self.most)
        for _ in range(missing - arena.free_count):  # each turn gives a block at least, fenced or free
            if arena.free_count >= missing:
                break
            if self._lender is None or not self._lender.lend(tree.staleness()):
                tree.evict(1)
        return arena.free_count >= missing  # what was evicted under a step in flight is still fenced

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
                self.arena.seal(own)
            else:
                lease.pages[at] = lease.node.page
                self.arena.free(own)
            lease.sealed += 1

    def release(self, lease: Lease) -> None:
        """Let go of everything. What a step in flight may still touch stays fenced until it ends."""
        found = lease.matched / (self.page_size * max(len(lease.pages), 1))
        self.reuse += (found - self.reuse) / 64
        if self.tiers is not None:
            self._value(lease.node, lease.sealed - lease.matched // self.page_size)
        self._end(lease, used=True)

    def rollback(self, lease: Lease) -> None:
        """Undo a tentative lease: as if the match had not been made, the order of eviction included."""
        self._end(lease, used=False)

    def drop(self, weights: bytes) -> None:
        """Forget all KV computed under these weights; leased pages go with their lease."""
        self._drop(self.tree.namespaces(weights))
        if self.tiers is not None:
            self.tiers.drop(weights)

    def drop_namespace(self, namespace: bytes) -> None:
        """Forget all KV of a namespace, in every tier; leased pages go with their lease."""
        self._drop([namespace])
        if self.tiers is not None:
            self.tiers.drop_namespace(namespace)

    def drop_tenant(self, tenant: str) -> None:
        """Forget all KV of a tenant, in every tier."""
        self._drop(self.tree.tenants(tag_of(tenant)))
        if self.tiers is not None:
            self.tiers.drop_tenant(tag_of(tenant))

    def _drop(self, namespaces: Sequence[bytes]) -> None:
        self.sessions.leave(namespaces)
        for namespace in namespaces:
            self.tree.drop(namespace)

    # Sessions

    def keep(self, lease: Lease, session: bytes, now: float, keep_s: float, pin: bool) -> None:
        """A session's turn ends with this lease, which is released next: its pages are kept before others."""
        self.sessions.turned(session, lease.node, now, keep_s, pin)
        if self.tiers is not None:
            self._value(lease.node, 0)

    # Lower tiers

    def keep_in_host(self, wanted: bool) -> None:
        """Whether host memory keeps what the device lets go of; not while that memory is wanted elsewhere."""
        if self.tiers is not None and wanted:
            self.tiers.reopen_host()
        elif self.tiers is not None:
            self.tiers.close_host()

    def bring(self, namespace: bytes, tokens: Sequence[int], weights: bytes | None, now: float) -> Fetching:
        """Fetch what disk has of a text's beginning and the device has not. Close it when nobody waits any more."""
        if self.tiers is None or not self.tiers.knows(namespace, weights):
            return Fetching()
        self.tiers.compute_s = self.page_seconds()
        known = len(self.tree.match(namespace, tokens[: len(tokens) - 1]).pages)
        return self.tiers.bring(namespace, weights, self._names(namespace, tokens)[known:], now)

    def close(self, fetching: Fetching) -> None:
        if self.tiers is not None:
            self.tiers.close(fetching)

    @property
    def pending(self) -> bool:
        """Whether a plan is due for lower tiers' sake."""
        return self.tiers is not None and (bool(self._worthy) or self.tiers.pending)

    def take_copies(self, now: float) -> Copies:
        """What the plan being made carries between tiers. To be asked for before the arena's moves are taken."""
        self.sessions.advance(now)
        if self.tiers is None:
            return NO_COPIES
        for _ in range(min(len(self._worthy), KEPT_PER_STEP)):
            node = self._worthy.popleft()
            if node in self.tree:
                self._leaving(node)
        return self.tiers.take(now)

    def settle(self, copied: Copied, now: float) -> None:
        if self.tiers is not None:
            self.tiers.settle(copied, now)

    def _leaving(self, node: Node) -> None:
        """A copy of a page, from where it lies until the next plan's moves are made."""
        assert self.tiers is not None
        root = node.root
        owner = root.namespace, root.weights, root.tenant
        saved = self.tiers.save(self.arena.where(node.page), node.name, owner, node.keep, node.session)
        if saved and node.until:
            self.tiers.hold(node.name.key, node.until)

    def _value(self, node: Node, fresh: int) -> None:
        """A path was used; its pages but the last `fresh` not for the first time. Those are worth keeping."""
        at: Node | None = node
        while at is not None and at.parent is not None and not at.keep:
            if fresh <= 0:
                at.keep = True
                self._worthy.append(at)
            fresh -= 1
            at = at.parent

    def _names(self, namespace: bytes, tokens: Sequence[int]) -> list[Name]:
        """Of the whole pages before the last token; the last answer is remembered, for who asks every step."""
        key = namespace, encode(tokens[: len(tokens) - 1])
        if self._named is None or self._named[0] != key:
            self._named = key, list(chain(*key, self.page_size * TOKEN_BYTES))
        return self._named[1]

    def _moved(self, moves: dict[int, int]) -> None:
        """Pages have new ids; block tables are changed in place, since rows in the making refer to them."""
        for page, to in moves.items():
            self.tree.moved(page, to)
        if self.tiers is not None:
            self.tiers.moved(moves)
        for lease in self._leases:
            if not moves.keys().isdisjoint(lease.pages):
                lease.pages[:] = [moves.get(page, page) for page in lease.pages]

    def check_leases(self, held: Sequence[Lease]) -> None:
        """Assert that exactly these leases exist."""
        assert len(held) == len(self._leases), "leases and sequences differ in number"
        assert set(held) == self._leases, "a lease without a sequence"

    def _end(self, lease: Lease, used: bool) -> None:
        self._leases.remove(lease)
        if self.tiers is not None:
            self.tiers.let_go(lease.found)
        for page in lease.pages[lease.sealed :]:
            if self.tiers is not None:
                self.tiers.cancel(page)
            self.arena.free(page)
        self.tree.unlock(lease.node, used)

    def check(self) -> None:
        """Assert that the classes partition the pages: owned by exactly one lease, or in the tree exactly once."""
        self.arena.check()
        self.sessions.check()
        if self.tiers is not None:
            self.tiers.check()
        shared = self.tree.check(Counter(lease.node for lease in self._leases))
        owned = [page for lease in self._leases for page in lease.pages[lease.sealed :]]
        assert len(owned) == len(set(owned)), "a page has two owners"
        assert set(owned) == self.arena.members(BlockClass.OWNED), "owned pages and leases differ"
        assert shared == self.arena.members(BlockClass.TREE), "tree and classes differ"
        for lease in self._leases:
            path: list[int] = []
            node: Node | None = lease.node
            while node is not None and node.parent is not None:
                path.append(node.page)
                node = node.parent
            assert path[::-1] == lease.pages[: lease.sealed], "a lease's shared pages are not its path in the tree"
