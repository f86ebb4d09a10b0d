"""Request bytes in, a closed struct out; everything JSON leaves open is refused here.

Owns encoding, nesting depth, duplicate keys, out-of-range numbers and the naming of the field at fault. Linear in
the body. It must not know any route's fields.
"""

import json
import math
import re
from itertools import accumulate
from typing import Any, NoReturn, TypeVar

import msgspec

from tenantry.platform.core.errors import InvalidInput

T = TypeVar("T")

MAX_DEPTH = 64
_INTEGER_DIGITS = 20

# The string alternative also eats an unterminated string, so that no byte is ever scanned twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DELTA = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"`([^`]*)`$")


def parse(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidInput (malformed_json, too_deep, duplicate_key)."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput("The body is not valid UTF-8.", code="malformed_json") from None
    if _depth(raw) > MAX_DEPTH:
        raise InvalidInput(f"The body nests deeper than {MAX_DEPTH} levels.", code="too_deep")
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=float
        )
    except ValueError:
        raise InvalidInput("The body is not one valid JSON document.", code="malformed_json") from None
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object.", code="malformed_json")
    if "\\u" in text and _LONE_SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise InvalidInput("A string holds half of a surrogate pair.", code="malformed_json")
    return value


def decode(fields: dict[str, Any], kind: type[T]) -> T:
    """The object as `kind`, without any coercion. Raises InvalidInput naming the field."""
    try:
        return msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        refuse(error)


def refuse(error: msgspec.ValidationError) -> NoReturn:
    """Turn msgspec's sentence into our envelope: code by kind of fault, param by its path."""
    match = _AT.match(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    path = path.lstrip(".")
    if what.startswith("Object contains unknown field"):
        name = _join(path, what)
        raise InvalidInput(f"Unknown parameter: {name!r}.", code="unknown_parameter", param=name[:128]) from None
    if what.startswith("Object missing required field"):
        name = _join(path, what)
        raise InvalidInput(f"Missing required parameter: {name!r}.", code="missing_parameter", param=name) from None
    raise InvalidInput(f"{what}.", code="invalid_value", param=path or None) from None


def _join(path: str, what: str) -> str:
    found = _FIELD.search(what)
    name = found[1] if found else ""
    return f"{path}.{name}" if path else name


def _depth(raw: bytes) -> int:
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_DELTA.__getitem__, brackets)), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInput("An object holds the same key twice.", code="duplicate_key", param=key[:128])
            seen.add(key)
    return found


def _integer(digits: str) -> int | float:
    """Far beyond int64 becomes an infinity, which every bound refuses under its own field's name."""
    return int(digits) if len(digits) <= _INTEGER_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def _constant(name: str) -> NoReturn:
    raise ValueError(name)
