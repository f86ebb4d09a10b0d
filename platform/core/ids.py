"""Identifiers: uuid version 7 inside, prefixed text at the API's edge.

Owns their making and their two spellings. Time-ordered ids keep indexes dense and make keyset lists follow time.
"""

import os
import re
import threading
import time
from typing import Final, Literal
from uuid import UUID

from tenantry.platform.core.errors import NotFound

Kind = Literal[
    "tenant", "key", "adapter", "version", "request", "base", "price", "event",
    "session", "conversation", "response", "item",
]  # fmt: skip
PREFIXES: Final[dict[Kind, str]] = {
    "tenant": "ten_",
    "key": "key_",
    "adapter": "adp_",
    "version": "ver_",
    "request": "req_",
    "base": "base_",
    "price": "prc_",
    "event": "evt_",
    "session": "sess_",
    "conversation": "conv_",
    "response": "resp_",
    "item": "msg_",
}
_HEX: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """A version 7 uuid (RFC 9562 §5.7, method 3: 12 extra bits of the clock), strictly increasing in this process."""
    global _last
    with _lock:
        ticks = time.time_ns() * 4096 // 1_000_000  # milliseconds with 12 fractional bits
        _last = ticks = max(ticks, _last + 1)
    tail = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    return UUID(int=(ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | tail)


def to_text(kind: Kind, value: UUID) -> str:
    """`adp_` and 32 hex digits."""
    return PREFIXES[kind] + value.hex


def from_text(kind: Kind, text: str) -> UUID:
    """Reads what to_text wrote. Anything else cannot name an object, so it is the same 404 as an absent one."""
    prefix = PREFIXES[kind]
    if text.startswith(prefix) and _HEX.fullmatch(text, len(prefix)):
        return UUID(hex=text[len(prefix) :])
    raise NotFound(f"No such {kind}.", code=f"{kind}_not_found", param="id")
