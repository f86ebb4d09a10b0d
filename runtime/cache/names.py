"""What a page of KV is called in every tier below the device: a chain of digests from its namespace on.

Owns the one encoding. A name stands for the namespace and all tokens up to the page's last, so equal names mean equal
KV; whoever finds a page by its name compares its tokens as well. It must not know who keeps what.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

KEY_BYTES = 32
_PERSON = b"tenantry-kv-v1"


class Name(NamedTuple):
    """key: of the page. parent: the key of the page before it, or the namespace. tokens: its own, as fixed-width
    bytes (nodes.encode)."""

    key: bytes
    parent: bytes
    tokens: bytes


def name_of(parent: bytes, tokens: bytes) -> bytes:
    """32 bytes; parent has as many, so no two different pairs share an encoding."""
    return blake2b(parent + tokens, digest_size=KEY_BYTES, person=_PERSON).digest()


def tag_of(who: str | bytes) -> str:
    """16 hex digits that stand for a tenant or a session: fit for a file's name."""
    named = who.encode() if isinstance(who, str) else who
    return blake2b(named, digest_size=8, person=_PERSON).hexdigest()


def chain(namespace: bytes, tokens: bytes, width: int) -> Iterator[Name]:
    """The names of whole pages of a text, in order. width: bytes of one page's tokens."""
    parent = namespace
    for at in range(0, len(tokens) - width + 1, width):
        page = tokens[at : at + width]
        key = name_of(parent, page)
        yield Name(key, parent, page)
        parent = key
