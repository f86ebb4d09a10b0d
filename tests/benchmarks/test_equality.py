"""The comparison of ways back, at a small count: it compares something, and nothing differs."""

from benchmarks.equality import DEMO, WAYS, compare
from tenantry.runtime.cache.host import HostPages


def test_no_token_differs_whichever_way_the_kv_came_back():
    said: list[str] = []
    assert compare(DEMO, 10, said.append) == dict.fromkeys(WAYS, 0), said


def test_a_copy_that_is_off_by_a_page_is_seen(monkeypatch):
    right = HostPages.restore
    monkeypatch.setattr(
        HostPages, "restore", lambda self, copies: right(self, [(slot ^ 1, page) for slot, page in copies])
    )
    assert compare(DEMO, 6, lambda line: None)["host memory"] > 0
