"""JSON from a stranger: UTF-8, no duplicate keys, no NaN, bounded depth; anything else is a typed refusal.

Owns only the grammar. It must not know what the document means.
"""

import json
from typing import Any

from tenantry.adapters.errors import AdapterError

MAX_DEPTH = 64


class InvalidJson(AdapterError):
    """The text is not acceptable JSON; the message says why, without quoting it."""


def parse_object(raw: bytes) -> dict[str, Any]:
    """Raises InvalidJson. The caller bounds the size first."""
    if raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise InvalidJson("starts with a byte order mark")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidJson("is not UTF-8") from None
    _check_depth(raw)
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidJson("holds half of a surrogate pair") from None
    except (ValueError, RecursionError):
        raise InvalidJson("is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidJson("is not a JSON object")
    return value


def _check_depth(raw: bytes) -> None:
    depth, in_string, escaped = 0, False, False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidJson(f"is nested deeper than {MAX_DEPTH} levels")
        elif byte in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise InvalidJson("has a duplicate key")
    return made


def _no_constant(_: str) -> Any:
    raise InvalidJson("holds NaN or Infinity")
