"""Sessions keep what their last turn had, before others and never against them; what is deleted is gone."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.sessions import Sessions
from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.config import CacheConfig

SIZE = 2
NAMESPACE = b"n" * 32


class Desk:
    """A cache, and turns over it."""

    def __init__(self, pages: int = 16, slots: int = 0, disk: int = 0) -> None:
        self.cache = KvCache.alone(CacheConfig(page_size=SIZE, pages=pages))
        self.now = 0.0
        if slots:
            self.cache.below(Tiers(slots, disk))

    def turn(self, tokens, session: bytes = b"", keep_s: float = 0.0, pin: bool = False, namespace=NAMESPACE) -> int:
        """Returns how many tokens the device had."""
        lease = self.cache.lease(namespace, tokens, None)
        assert self.cache.extend(lease, len(tokens)), "no room"
        self.cache.seal(lease, tokens, len(tokens))
        if session:
            self.cache.keep(lease, session, self.now, keep_s, pin)
        matched = lease.matched
        self.cache.release(lease)
        self.cache.take_copies(self.now)
        self.cache.check()
        return matched

    def known(self, tokens, namespace=NAMESPACE) -> int:
        return len(self.cache.tree.match(namespace, tokens).pages) * SIZE

    def flood(self, pages: int, seed: int = 0) -> None:
        rng = random.Random(seed)
        for _ in range(pages):
            self.turn([100 + rng.randrange(1000) for _ in range(2 * SIZE)])


TALK = list(range(8))


def test_a_held_path_outlives_a_flood_until_its_time():
    desk = Desk()
    desk.turn(TALK, b"s", keep_s=60.0)
    desk.flood(40)
    assert desk.known(TALK) == 8
    desk.now = 61.0
    desk.flood(40, seed=1)
    assert desk.known(TALK) == 0, "it was kept for ever"


def test_deleting_a_session_whose_time_is_over_leaves_nothing_of_it_below():
    desk = Desk(slots=200, disk=16)
    desk.turn(TALK, b"s", keep_s=5.0)
    desk.now = 61.0
    desk.flood(40)
    assert len(desk.cache.tiers.reach(NAMESPACE, None, desk.cache._names(NAMESPACE, [*TALK, 0]))) == 4
    desk.cache.sessions.drop(b"s")
    assert not desk.cache.tiers.reach(NAMESPACE, None, desk.cache._names(NAMESPACE, [*TALK, 0]))


def test_only_so_many_sessions_are_remembered(monkeypatch):
    monkeypatch.setattr("tenantry.runtime.cache.sessions.MOST", 3)
    desk = Desk(pages=60)
    for n in range(6):
        desk.turn([50 * n + t for t in TALK], b"s%d" % n, keep_s=60.0 - n)
    assert sorted(desk.cache.sessions._sessions) == [b"s0", b"s1", b"s2"]
    desk.cache.sessions.check()


def test_nothing_held_keeps_others_from_running():
    desk = Desk(pages=8)
    for n in range(2):
        desk.turn([50 * n + t for t in TALK], b"s%d" % n, keep_s=60.0, pin=n == 0)
    other = list(range(300, 312))
    assert desk.turn(other) == 0
    assert desk.known(TALK) > 0, "what was pinned went before what was only held"
    assert desk.turn(list(range(400, 416))) == 0
    assert desk.known(TALK) == 0, "a pin may not starve"


def test_a_superseded_branch_leaves_the_device_at_once():
    desk = Desk(slots=16)
    desk.turn([*TALK, 20, 21, 22, 23], b"s", keep_s=60.0)
    desk.turn([*TALK, 30, 31], b"s", keep_s=60.0)
    assert desk.known([*TALK, 20, 21, 22, 23]) == 8, "only what both share is left"
    names = desk.cache._names(NAMESPACE, [*TALK, 20, 21, 22, 23, 0])
    assert len(desk.cache.tiers.reach(NAMESPACE, None, names)) == 6, "and host memory has the branch"


def test_a_session_that_turns_aside_for_ever_remembers_a_few_branches_and_the_rest_are_gone(monkeypatch):
    monkeypatch.setattr("tenantry.runtime.cache.sessions.BRANCHES", 2)
    desk = Desk(pages=60, slots=60, disk=60)
    branches = [[*TALK, 100 + 2 * n, 101 + 2 * n] for n in range(6)]
    for branch in branches:
        desk.turn(branch, b"s", keep_s=60.0)
    session = desk.cache.sessions._sessions[b"s"]
    assert len(session.superseded) == 2
    found = [len(desk.cache.tiers.reach(NAMESPACE, None, desk.cache._names(NAMESPACE, [*b, 0]))) for b in branches]
    assert found[:5] == [4, 4, 4, 5, 5], "what is forgotten must be gone, and what all share must not"
    assert desk.known(branches[5]) == 10


def test_a_branch_that_is_forgotten_stays_where_it_is_the_last_turn():
    desk = Desk(pages=200, slots=200)
    branches = [[*TALK, 100 + 2 * n, 101 + 2 * n] for n in range(20)]
    desk.turn(branches[0], b"fork", keep_s=60.0)
    for branch in branches:
        desk.turn(branch, b"s", keep_s=60.0)
    assert desk.known(branches[0]) == 10


def test_a_fork_keeps_what_the_other_left():
    desk = Desk()
    branch = [*TALK, 20, 21, 22, 23]
    desk.turn(branch, b"s", keep_s=60.0)
    desk.turn(branch, b"fork", keep_s=60.0)
    desk.turn([*TALK, 30, 31], b"s", keep_s=60.0)
    assert desk.known(branch) == 12


def test_a_dropped_session_is_gone_but_for_what_others_have():
    desk = Desk(slots=16, disk=16)
    desk.turn([*TALK, 20, 21, 22, 23], b"s", keep_s=60.0)
    desk.turn([*TALK, 30, 31], b"s", keep_s=60.0)
    desk.turn([*TALK[:4], 40, 41], b"t", keep_s=60.0)
    desk.cache.sessions.drop(b"s")
    desk.cache.check()
    assert desk.known([*TALK, 30, 31]) == 4
    for path in ([*TALK, 20, 21, 22, 23, 0], [*TALK, 30, 31, 0]):
        left = desk.cache.tiers.reach(NAMESPACE, None, desk.cache._names(NAMESPACE, path))
        assert len(left) == 2
        desk.cache.tiers.let_go(left)
    desk.cache.sessions.drop(b"s")
    desk.cache.sessions.drop(b"t")
    desk.cache.check()
    assert desk.cache.tree.nodes == 0
    assert not desk.cache.tiers._kept


def test_what_runs_keeps_its_pages_when_its_session_is_dropped():
    desk = Desk()
    desk.turn(TALK, b"s", keep_s=60.0)
    lease = desk.cache.lease(NAMESPACE, [*TALK, 9], None)
    desk.cache.sessions.drop(b"s")
    assert desk.known(TALK) == 8
    desk.cache.release(lease)
    desk.cache.check()
    assert desk.known(TALK) == 0, "it stayed"


def test_keeping_longer_counts_from_now_and_unknown_sessions_are_told():
    desk = Desk()
    desk.turn(TALK, b"s", keep_s=5.0)
    desk.now = 4.0
    assert desk.cache.sessions.keep(b"s", desk.now, 60.0, False)
    assert not desk.cache.sessions.keep(b"t", desk.now, 60.0, False)
    desk.now = 30.0
    desk.flood(40)
    assert desk.known(TALK) == 8


def test_a_tenant_s_pages_go_everywhere():
    desk = Desk(slots=16, disk=16)
    desk.turn(TALK, b"s", keep_s=60.0)
    desk.cache.drop_tenant("")
    desk.cache.check()
    assert (desk.cache.tree.nodes, len(desk.cache.sessions), len(desk.cache.tiers._kept)) == (0, 0, 0)


class SessionsAgainstLists(RuleBasedStateMachine):
    """Whatever turns, drops and time do: books agree, and an unforced session's last turn is found."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(pages=60, slots=12, disk=12)
        self.last: dict[bytes, tuple[tuple[int, ...], float]] = {}

    @rule(
        session=st.sampled_from([b"a", b"b", b"c"]),
        tokens=st.lists(st.integers(0, 1), min_size=3, max_size=9).map(tuple),
        keep_s=st.sampled_from([0.0, 5.0, 50.0]),
        pin=st.booleans(),
    )
    def turn(self, session, tokens, keep_s, pin) -> None:
        self.desk.turn(list(tokens), session, keep_s, pin)
        self.last[session] = tokens, self.desk.now + (keep_s or (1e9 if pin else 0.0))

    @rule(session=st.sampled_from([b"a", b"b", b"c"]))
    def drop(self, session) -> None:
        self.desk.cache.sessions.drop(session)
        self.last.pop(session, None)

    @rule(seconds=st.integers(1, 20), seed=st.integers(0, 99))
    def wait(self, seconds, seed) -> None:
        self.desk.now += seconds
        self.desk.flood(8, seed)

    @invariant()
    def held(self) -> None:
        self.desk.cache.check()
        for tokens, until in self.last.values():
            if until > self.desk.now:
                assert self.desk.known(tokens) == len(tokens) // SIZE * SIZE


TestSessionsAgainstLists = SessionsAgainstLists.TestCase
TestSessionsAgainstLists.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_defect_in_who_owns_a_page_is_seen(monkeypatch):
    monkeypatch.setattr(Sessions, "_disown", lambda self, names: None)
    with pytest.raises(AssertionError):
        test_a_dropped_session_is_gone_but_for_what_others_have()
