"""The API key as text: made, taken apart, checked. `tny_<env>_<id:16>_<secret:32><checksum:6>`, base62.

The checksum lets a mistyped or invented key be refused without a query. Only an HMAC-SHA256 under a versioned
pepper is stored. Knows no database.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from typing import Final

from tenantry.platform.core.secrets import Peppers

ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH: Final = 16
SECRET_LENGTH: Final = 32
_KEY: Final = re.compile(r"(tny_(live|test)_([0-9A-Za-z]{16})_[0-9A-Za-z]{32})([0-9A-Za-z]{6})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A well-formed key, not yet proven."""

    text: str = field(repr=False)
    env: str
    public_id: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """text is shown once and never stored; mac is what is."""

    text: str = field(repr=False)
    public_id: str
    pepper_id: int
    mac: bytes = field(repr=False)


def make(env: str, peppers: Peppers) -> NewKey:
    public_id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    head = f"tny_{env}_{public_id}_{secret}"
    text = head + checksum(head)
    return NewKey(text, public_id, peppers.current, digest(text, peppers.by_version[peppers.current]))


def parse(text: str) -> PresentedKey | None:
    """None unless the shape and the checksum are right."""
    match = _KEY.fullmatch(text)
    if match is None or not hmac.compare_digest(checksum(match[1]), match[4]):
        return None
    return PresentedKey(text, match[2], match[3])


def digest(text: str, pepper: bytes) -> bytes:
    """32 bytes; compare with hmac.compare_digest."""
    return hmac.digest(pepper, text.encode("ascii"), hashlib.sha256)


def checksum(head: str) -> str:
    """CRC-32 in six base62 digits: not a proof, only a filter for typing errors."""
    value, digits = zlib.crc32(head.encode("ascii")), []
    for _ in range(6):
        value, rest = divmod(value, len(ALPHABET))
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits))
