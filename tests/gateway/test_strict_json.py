"""Bodies that JSON libraries wave through, and that the gateway answers with a named 400."""

import contextlib
import time

import msgspec
import pytest

from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.gateway import strict_json

MALFORMED = [
    b"", b"null", b"[]", b"1", b'"x"', b'{"a":1', b'{"a":1}x', b'{"a":1}{"b":2}', b"\xef\xbb\xbf{}", b"{'a':1}",
    b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":"\xff"}', b'{"\xff":1}', b'{"a":"\\ud800"}', b'{"\\udfff":1}',
    b'{"a":"\n"}', b'{"a":01}', b'{"a":1,}', "{}".encode("utf-16"),
]  # fmt: skip


@pytest.mark.parametrize("raw", MALFORMED)
def test_malformed(raw):
    with pytest.raises(InvalidInput) as error:
        strict_json.parse(raw)
    assert error.value.code == "malformed_json"


@pytest.mark.parametrize(("raw", "key"), [(b'{"a":1,"a":1}', "a"), (b'{"x":[{"b":{"c":1,"\\u0063":2}}]}', "c")])
def test_duplicate_keys_at_any_depth(raw, key):
    with pytest.raises(InvalidInput) as error:
        strict_json.parse(raw)
    assert (error.value.code, error.value.param) == ("duplicate_key", key)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_depth_is_refused_before_parsing(opening):
    with pytest.raises(InvalidInput) as error:
        strict_json.parse(b'{"x":' + opening * 200_000)
    assert error.value.code == "too_deep"


def test_depth_counts_no_brackets_inside_strings():
    deep = b"[" * 63 + b"]" * 63
    assert strict_json.parse(b'{"a":"' + b"[{" * 1000 + b'\\"[","b":' + deep + b"}")["a"].startswith("[{")
    with pytest.raises(InvalidInput):
        strict_json.parse(b'{"b":[' + deep + b"]}")


def test_surrogate_pairs_are_text():
    assert strict_json.parse(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"' + b'\\"' * 500_000,  # unterminated, all escaped quotes
        b'{"a":"' + b"\\" * 999_999,
        b'"' * 1_000_000,
        b'{"a":' + b"[]," * 300_000 + b"1}",
        b'{"a":' + b"9" * 1_000_000 + b"}",
        b'{"a":1e' + b"9" * 1_000_000 + b"}",
        b'{"a":{' + b",".join(b'"%d":0' % i for i in range(80_000)) + b"}}",
    ],
)
def test_a_megabyte_of_anything_is_linear(raw):
    started = time.perf_counter()
    with contextlib.suppress(InvalidInput):
        strict_json.parse(raw)
    assert time.perf_counter() - started < 1.0


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    b: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    n: int
    inner: list[Inner] = []


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b'{"n":true}', "invalid_value", "n"),
        (b'{"n":"1"}', "invalid_value", "n"),
        (b'{"n":1.0}', "invalid_value", "n"),
        (b'{"n":' + b"9" * 4000 + b"}", "invalid_value", "n"),
        (b'{"n":1e999}', "invalid_value", "n"),
        (b'{"n":1,"x":1}', "unknown_parameter", "x"),
        (b'{"n":1,"inner":[{"b":1},{"c":1}]}', "unknown_parameter", "inner[1].c"),
        (b'{"n":1,"inner":[{"b":"x"}]}', "invalid_value", "inner[0].b"),
        (b"{}", "missing_parameter", "n"),
    ],
)
def test_the_field_is_named_and_nothing_is_coerced(raw, code, param):
    with pytest.raises(InvalidInput) as error:
        strict_json.decode(strict_json.parse(raw), Outer)
    assert (error.value.code, error.value.param) == (code, param)
