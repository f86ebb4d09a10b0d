"""The root of every cache key: who may share a prefix with whom.

Owns the one encoding of (tenant scope, adapter digest) that the radix tree and every later tier use. It must
not know what a tenant is: the scope is opaque bytes that the platform takes from the authenticated principal,
never from request text.
"""

from dataclasses import dataclass
from hashlib import blake2b

from tenantry.runtime.errors import InvalidNamespace

DIGEST_BYTES = 32
_PERSON = b"tenantry-ns-v1"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A tenant scope and the digest of the weights (adapter, or base model) whose KV is being shared.

    scope: opaque non-empty bytes naming the isolation domain (the tenant's 16 id bytes).
    weights: 32-byte AdapterDigest, or the base model's digest for requests without an adapter.
    """

    scope: bytes
    weights: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.scope) <= 255:
            raise InvalidNamespace("scope", f"must hold 1 to 255 bytes, got {len(self.scope)}")
        if len(self.weights) != DIGEST_BYTES:
            raise InvalidNamespace("weights", f"must be a {DIGEST_BYTES}-byte digest, got {len(self.weights)}")

    @property
    def key(self) -> bytes:
        """32 bytes. Each field is preceded by its length, so no two different pairs share an encoding."""
        h = blake2b(digest_size=32, person=_PERSON)
        for field in (self.scope, self.weights):
            h.update(len(field).to_bytes(4, "big"))
            h.update(field)
        return h.digest()
