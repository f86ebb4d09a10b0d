"""Sessions: whose last turn's KV is to be kept, how long, and what goes when one is deleted.

Owns one record per living session: where its path ends, and the names of all pages it ever had. Pure: time is told,
keys are opaque. It holds no page: it marks paths in the tree and pages below, both of which may still let go of them
when nothing else is left (runtime.md: leases are breakable).
"""

from collections import Counter, deque
from collections.abc import Sequence, Set
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tenantry.runtime.cache.names import tag_of
from tenantry.runtime.cache.nodes import Node
from tenantry.runtime.cache.radix import RadixTree
from tenantry.runtime.cache.tiers import Tiers

MOST = 1 << 13  # sessions remembered, also when their time is over, so that deleting one finds what it left
BRANCHES = 8  # earlier turns that a session did not go on from, which it remembers so that deleting it finds them
FOREVER = 1e12  # seconds that a pin without a time lasts


class Branch(NamedTuple):
    """path: tokens of each page of a turn, under `namespace`. names: of those pages."""

    namespace: bytes
    path: tuple[bytes, ...] = ()
    names: tuple[bytes, ...] = ()


class Session:
    """last: its last turn. superseded: turns before that it did not follow from, oldest first."""

    __slots__ = ("last", "pinned", "superseded", "until")

    def __init__(self, namespace: bytes) -> None:
        self.last = Branch(namespace)
        self.superseded: deque[Branch] = deque()
        self.until = 0.0
        self.pinned = 0.0


class Sessions:
    """Above a tree, and tiers if there are any."""

    def __init__(self, tree: RadixTree) -> None:
        self.tiers: Tiers | None = None
        self._tree = tree
        self._sessions: dict[bytes, Session] = {}
        self._ends: list[tuple[float, bytes]] = []
        self._owners: Counter[bytes] = Counter()  # sessions whose last turn has the page

    def __len__(self) -> int:
        return len(self._sessions)

    def turned(self, key: bytes, end: Node, now: float, keep_s: float, pin: bool) -> None:
        """A turn of the session has ended with this page. What it had before and does not follow from is demoted."""
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = Session(end.root.namespace)
        nodes = _path(end)
        old = session.last
        new = Branch(end.root.namespace, tuple(node.key for node in nodes), tuple(node.name.key for node in nodes))
        self._disown(old.names)
        self._owners.update(new.names)
        session.last = new
        if (old.namespace, old.path) != (new.namespace, new.path[: len(old.path)]):
            shared = _common(old.path, new.path) if old.namespace == new.namespace else 0
            session.superseded.append(old)
            self._supersede(old, shared)
            if len(session.superseded) > BRANCHES:  # what nobody would find again goes now, not when it is deleted
                self._let_go(session.superseded.popleft(), {n for b in session.superseded for n in b.names})
        self._hold(key, session, now, keep_s, pin)

    def keep(self, key: bytes, now: float, keep_s: float, pin: bool) -> bool:
        """Keep what a session has from now on so long. False: it is not known (any more)."""
        session = self._sessions.get(key)
        if session is not None:
            self._hold(key, session, now, keep_s, pin)
        return session is not None

    def advance(self, now: float) -> None:
        """Pages whose time is over become like any others."""
        self._tree.advance_clock(now)

    def drop(self, key: bytes) -> None:
        """Its KV goes from every tier, as far as no other session's last turn has it; what a running request uses
        goes with that. A session that only an earlier engine knew: what it was the first to keep."""
        session = self._sessions.get(key)
        if session is None:
            if self.tiers is not None:
                self.tiers.forget_session(tag_of(key))
            return
        self._forget(key)
        for branch in (*session.superseded, session.last):
            self._let_go(branch)

    def leave(self, namespaces: Sequence[bytes]) -> None:
        """All KV of these namespaces is gone."""
        gone = set(namespaces)
        for key in [key for key, session in self._sessions.items() if session.last.namespace in gone]:
            self._forget(key)

    def _hold(self, key: bytes, session: Session, now: float, keep_s: float, pin: bool) -> None:
        session.until = now + (keep_s or (FOREVER if pin else 0.0))
        session.pinned = session.until if pin else 0.0
        heappush(self._ends, (session.until, key))
        if len(self._ends) > 2 * len(self._sessions) + 64:
            self._ends = [(session.until, key) for key, session in self._sessions.items()]
            heapify(self._ends)
        nodes = self._tree.find(session.last.namespace, session.last.path)
        if nodes:
            self._tree.hold(nodes[-1], session.until, session.pinned, tag_of(key))
        if self.tiers is not None:
            for name in reversed(session.last.names):
                self.tiers.hold(name, session.until)
        while len(self._sessions) > MOST:  # the one that ends first gives way
            until, first = heappop(self._ends)
            if first in self._sessions and self._sessions[first].until == until:
                self._forget(first)

    def _supersede(self, branch: Branch, shared: int) -> None:
        """Nobody is likely to go on from there, unless another session does."""
        alone = next((i for i in range(shared, len(branch.path)) if branch.names[i] not in self._owners), None)
        if alone is not None:
            self._tree.demote(self._tree.find(branch.namespace, branch.path)[alone:])

    def _let_go(self, branch: Branch, staying: Set[bytes] = frozenset()) -> None:
        """Its KV goes from every tier, but for what a session's last turn has, and what is to stay."""
        own = [name for name in branch.names if name not in self._owners and name not in staying]
        if own:
            self._tree.doom(self._tree.find(branch.namespace, branch.path)[branch.names.index(own[0]) :])
        if self.tiers is not None:
            self.tiers.forget(own)

    def _forget(self, key: bytes) -> None:
        self._disown(self._sessions.pop(key).last.names)

    def _disown(self, names: Sequence[bytes]) -> None:
        for name in names:
            self._owners[name] -= 1
            if not self._owners[name]:
                del self._owners[name]

    def check(self) -> None:
        """Assert that owners are counted right."""
        owners = Counter(name for session in self._sessions.values() for name in session.last.names)
        assert owners == self._owners, "owners of pages miscounted"


def _path(end: Node) -> list[Node]:
    nodes: list[Node] = []
    at = end
    while at.parent is not None:
        nodes.append(at)
        at = at.parent
    return nodes[::-1]


def _common(a: Sequence[bytes], b: Sequence[bytes]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
