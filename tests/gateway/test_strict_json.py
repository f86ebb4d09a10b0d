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


def parsing(raw):
    """CPU seconds, the least of three: what else the machine does is not counted."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(InvalidInput):
            strict_json.parse(raw)
        taken.append(time.process_time() - started)
    return min(taken)


@pytest.mark.parametrize(
    "build",
    [
        lambda n: b'{"a":"' + b'\\"' * (n // 2),  # unterminated, all escaped quotes
        lambda n: b'{"a":"' + b"\\" * (n - 1),
        lambda n: b'"' * n,
        lambda n: b'{"a":' + b"[]," * (n // 3) + b"1}",
        lambda n: b'{"a":' + b"9" * n + b"}",
        lambda n: b'{"a":1e' + b"9" * n + b"}",
        lambda n: b'{"a":{' + b",".join(b'"%d":0' % i for i in range(n // 12)) + b"}}",
    ],
)
def test_a_megabyte_of_anything_is_linear(build):
    small, large = parsing(build(62_500)), parsing(build(1_000_000))
    assert large < 64 * small + 0.05  # 16 times as long; squared would be 256


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
