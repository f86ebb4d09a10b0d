"""What a client may say about the cache: `prompt_cache_key` and `prompt_cache_options`, and what the engine is told.

Owns the fields and their translation into a lease: an opaque session key, made from the tenant, for how long, and
whether it gives way last. Must not know whether the engine has anything to keep it in.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.tenants.principal import Principal

Kind = Literal["key", "session"]
Ttl = Literal["30m", "12h"]
TTL_S: Final[dict[Ttl, int]] = {"30m": 1800, "12h": 43200}


class CacheOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ttl: how long the KV is kept. prewarm: compute the prompt's KV and say nothing. pin, of ours: it goes last."""

    ttl: Ttl | None = None
    mode: str | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None
    pin: bool | None = None

    def check(self) -> None:
        """Raises InvalidInput for what asks for something that there is not."""
        if self.mode not in (None, "implicit"):
            _refuse("mode", "Prefixes are found by themselves: there are no explicit breakpoints.")
        if self.comparison_response_id is not None:
            _refuse("comparison_response_id", "Cache diagnostics are not supported.")

    @property
    def keep_s(self) -> int | None:
        return TTL_S[self.ttl] if self.ttl is not None else None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the engine keeps after a request. session: 16 bytes, or none for nothing in particular."""

    session: bytes = b""
    keep_s: float = 0.0
    pin: bool = False


NOTHING: Final = Kept()


def session_key(isolation: bytes, kind: Kind, name: bytes) -> bytes:
    """The engine's name for a session of the tenant that `isolation` stands for. It says nothing, and nobody can ask
    for another tenant's."""
    whole = kind.encode() + b"\0" + name
    return blake2b(whole, digest_size=16, key=isolation, person=b"tenantry-session").digest()


def kept_for(principal: Principal, key: str | None, options: CacheOptions | None, keep_s: int) -> Kept:
    """For a request that belongs to no session of ours: its client names one by prompt_cache_key, or nothing is kept.

    keep_s: unless the client says otherwise.
    """
    if key is None:
        if options is not None and (options.ttl is not None or options.pin):
            _refuse_without_key()
        return NOTHING
    asked = options or CacheOptions()
    ttl = asked.keep_s
    return Kept(
        session_key(principal.isolation, "key", key.encode()), keep_s if ttl is None else ttl, bool(asked.pin)
    )


def _refuse(name: str, message: str) -> None:
    raise InvalidInput(message, code="unsupported_parameter", param=f"prompt_cache_options.{name}")


def _refuse_without_key() -> None:
    raise InvalidInput(
        "What shall be kept is named by prompt_cache_key.", code="missing_parameter", param="prompt_cache_key"
    )
