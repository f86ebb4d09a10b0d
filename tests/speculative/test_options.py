"""The words of `--speculate`."""

from pathlib import Path

import pytest

from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.speculative.options import Speculation, parse


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("off", Speculation()),
        ("ngram", Speculation(ngram=True)),
        ("auto", Speculation(ngram=True)),
        ("draft:./small", Speculation(model="draft", directory=Path("small"))),
        ("eagle:/heads", Speculation(model="eagle", directory=Path("/heads"))),
        ("medusa:heads", Speculation(model="medusa", directory=Path("heads"))),
        ("clover:a:b", Speculation(model="clover", directory=Path("a:b"))),
        ("self", Speculation(model="self")),
        ("self:3", Speculation(model="self", skipped=3)),
        ("auto:self:2", Speculation(True, "self", skipped=2)),
        ("auto:./small", Speculation(True, "draft", Path("small"))),
        ("auto:clover:heads", Speculation(True, "clover", Path("heads"))),
    ],
)
def test_what_an_option_means(option, meant):
    assert parse(option) == meant
    assert parse(option, 5).depth == 5
    assert meant.on == (option != "off")


@pytest.mark.parametrize(
    "option",
    [
        "",
        "on",
        "draft",
        "eagle:",
        "lookahead:x",
        "off:",
        "ngram:x",
        "auto:",
        "auto:eagle:",
        "self:",
        "self:x",
        "self:0",
    ],
)
def test_other_words_are_refused(option):
    with pytest.raises(InvalidRequest, match="is not off, ngram, auto, KIND:DIRECTORY") as refused:
        parse(option)
    assert refused.value.param == "speculate"


@pytest.mark.parametrize("depth", [-1, 33])
def test_a_depth_out_of_bounds_is_refused(depth):
    with pytest.raises(InvalidRequest, match="0 to 32"):
        parse("ngram", depth)
