"""The comparison of ways back, at a small count: it compares something, and nothing differs."""

import pytest

from benchmarks.equality import WAYS, asks_of, compare
from tenantry.runtime.cache.host import HostPages
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.model.pages import PageBytes


def test_no_token_differs_whichever_way_the_kv_came_back():
    said: list[str] = []
    assert compare(10, said.append) == dict.fromkeys(WAYS, 0), said


def test_a_copy_that_is_off_by_a_page_is_seen(monkeypatch):
    restore, write = HostPages.restore, PageBytes.write
    monkeypatch.setattr(
        HostPages, "restore", lambda self, copies: restore(self, [(slot ^ 1, page) for slot, page in copies])
    )
    monkeypatch.setattr(PageBytes, "write", lambda self, pages, source: write(self, pages[::-1], source))
    differing = compare(10, lambda line: None)
    assert differing["host memory"] > 0
    assert differing["hand-off"] > 0


def test_a_way_that_is_never_taken_is_a_failure(monkeypatch):
    monkeypatch.setattr(Exchange, "take", lambda self, request_id, hand_off: self.compute(request_id))
    with pytest.raises(RuntimeError, match="nothing came from hand-off"):
        compare(6, lambda line: None)


def test_prompts_mix_the_base_and_adapters_and_ways_to_draw():
    asks = asks_of(60, 1000, [b"a" * 32, b"b" * 32])
    assert {ask.adapter for ask in asks} == {None, b"a" * 32, b"b" * 32}
    assert {tuple(sorted(ask.drawn)) for ask in asks} == {
        ("temperature",), ("seed", "temperature"), ("seed", "temperature", "top_p"),
    }  # fmt: skip
