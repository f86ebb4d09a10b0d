"""What a page of KV is called between engines: a chain of digests from its namespace on.

Owns the one encoding. Equal names mean the same namespace (so the same tenant and weights) and the same tokens up to
the page's end, hence the same KV: the reader computes the names of its own request and takes nothing else.
"""

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b

CHECKSUM_BYTES = 16
_PERSON = b"tenantry-pd-v1"


def names(namespace: bytes, tokens: Sequence[int], page_size: int) -> Iterator[bytes]:
    """Of the whole pages of a text, in order; 32 bytes each, as the namespace has."""
    data, last = array("I", tokens).tobytes(), namespace
    width = page_size * array("I").itemsize
    for at in range(0, len(data) - width + 1, width):
        last = blake2b(last + data[at : at + width], digest_size=32, person=_PERSON).digest()
        yield last


def checksum(page: memoryview | bytes) -> bytes:
    """Of a page's bytes: against damage, not against malice; whoever can write there owns both engines."""
    return blake2b(page, digest_size=CHECKSUM_BYTES, person=_PERSON).digest()
