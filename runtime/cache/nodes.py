"""What the prefix tree is made of: a page under its parent, and the root of all that one namespace has computed.

Owns the fields of a node, its key's encoding and its name in lower tiers. It must not know who locks, evicts or
holds: that is the tree's (radix.py).
"""

from array import array
from collections.abc import Iterator, Sequence

from tenantry.runtime.cache.names import Name, name_of

TOKEN_BYTES = array("I").itemsize


def encode(tokens: Sequence[int]) -> bytes:
    """Token ids as the fixed-width bytes that node keys are cut from."""
    return array("I", tokens).tobytes()


class Node:
    """One sealed page under its parent, or a root (no parent, page -1)."""

    __slots__ = (
        "_name", "children", "doomed", "ending", "keep", "key", "page", "parent", "pinned", "ref", "root", "serial",
        "session", "tick", "until",
    )  # fmt: skip

    def __init__(self, root: "Root", parent: "Node | None", key: bytes, page: int) -> None:
        self.root = root
        self.parent = parent
        self.key = key
        self.page = page
        self.children: dict[bytes, Node] = {}
        self.ref = 0
        self.tick = 0  # last use
        self.serial = 0  # of its newest entry among the evictable leaves
        self.keep = False  # it was used again, or by a session: lower tiers are to have it
        self.until = 0.0  # a session holds it so long
        self.pinned = 0.0  # and has it pinned
        self.session = ""  # the tag of the first that did
        self.ending = False  # and somebody looks when that is over
        self.doomed = False  # it is to go as soon as nobody uses it
        self._name: bytes | None = None

    @property
    def name(self) -> Name:
        """What lower tiers know it by. Not for roots."""
        assert self.parent is not None, "a root is no page"
        return Name(self._chained(), self.parent._chained(), self.key)

    def _chained(self) -> bytes:
        """Worked out when it is first asked for: whoever has no lower tiers never pays for it."""
        unnamed: list[Node] = []
        at = self
        while at._name is None:
            if isinstance(at, Root):
                at._name = at.namespace
                break
            unnamed.append(at)
            assert at.parent is not None
            at = at.parent
        name = at._name
        for node in reversed(unnamed):
            name = node._name = name_of(name, node.key)
        return name


class Root(Node):
    """All that one namespace has computed. weights: the digest it was computed under, or None for the base.
    cold: whether those weights have left the device. tenant: whose it is, opaque."""

    __slots__ = ("cold", "dropped", "namespace", "tenant", "weights")

    def __init__(self, namespace: bytes, weights: bytes | None, tenant: str = "") -> None:
        super().__init__(self, None, b"", -1)
        self.namespace = namespace
        self.weights = weights
        self.tenant = tenant
        self.dropped = False
        self.cold = False


def evictable(node: Node) -> bool:
    """Whether it is a leaf of the tree that nobody has locked."""
    parent = node.parent
    return not node.children and node.ref == 0 and parent is not None and parent.children.get(node.key) is node


def below(root: Node) -> Iterator[Node]:
    """Every page under it, in no order. The tree must not change meanwhile."""
    stack = list(root.children.values())
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children.values())
