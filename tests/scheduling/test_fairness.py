"""Tenants' shares: the bound of VTC, returns from idleness, weights, keys, priorities, places, adapters."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.runtime.scheduler.fairness import KNOWN, MOST_TOLD, Prices, Shares
from tests.scheduling.crowd import TOKENS, Crowd

REQUEST = st.tuples(st.integers(1, 60), st.integers(1, 30))  # prompt and completion


def keep_waiting(
    crowd: Crowd, tenant: str, requests: list[tuple[int, int]], at: Counter[str], depth: int = 3, weight: float = 1.0
) -> None:
    """The tenant always has something that waits."""
    flow = crowd.core._ledger.tenants.flows.get(tenant)
    while flow is None or flow.waiting < depth:
        prompt, draws = requests[at[tenant] % len(requests)]
        at[tenant] += 1
        crowd.submit(tenant, prompt, draws, weight=weight)
        flow = crowd.flow(tenant)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(REQUEST, min_size=1, max_size=4), min_size=2, max_size=4),
    st.integers(1, 6),
    st.integers(24, 48),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
)
def test_of_two_who_always_wait_neither_gets_more_than_the_bound_beyond_the_other(
    tenants: list[list[tuple[int, int]]], running: int, pages: int, weights: list[int]
):
    """Theorem 4.4 of VTC between any two steps, with what this scheduler's running sequences can come to for U."""
    crowd, at = Crowd(pages=pages, max_running=running, token_budget=running + 16, max_context=100), Counter()
    slack = TOKENS.decode * min(4 * pages, running * 90) + running + 16
    history = []
    for _ in range(120):
        for name, requests in enumerate(tenants):
            keep_waiting(crowd, f"t{name}", requests, at, weight=weights[name])
        crowd.step()
        history.append([crowd.served[f"t{name}"] / weights[name] for name in range(len(tenants))])
    for a, b in combinations(range(len(tenants)), 2):
        gaps = [served[a] - served[b] for served in history]
        assert max(gaps) - min(gaps) <= 2 * slack / min(weights[a], weights[b]), (a, b)
    assert not crowd.core.stats().refused_early


def test_equal_tenants_get_equal_service_whatever_they_ask_for():
    """One asks for long answers to short questions, the other for short answers to long ones, a third floods."""
    crowd, at = Crowd(pages=128), Counter()
    for _ in range(1500):
        keep_waiting(crowd, "long", [(4, 60)], at)
        keep_waiting(crowd, "short", [(60, 4)], at)
        keep_waiting(crowd, "flood", [(10, 10)], at, depth=100)
        crowd.step()
    served = crowd.served
    assert max(served.values()) / min(served.values()) < 1.05, served


def test_weights_are_shares():
    crowd, at = Crowd(pages=128), Counter()
    for _ in range(1500):
        for tenant, weight in (("one", 1.0), ("three", 3.0)):
            flow = crowd.core._ledger.tenants.flows.get(tenant)
            while flow is None or flow.waiting < 4:
                at[tenant] += 1
                crowd.submit(tenant, 8, 8, weight=weight)
                flow = crowd.flow(tenant)
        crowd.step()
    assert crowd.served["three"] / crowd.served["one"] == pytest.approx(3.0, rel=0.05)


def test_who_was_idle_has_saved_nothing_up():
    crowd, at = Crowd(), Counter()
    _idle_beside(crowd, "busy", at)
    before = Counter(crowd.served)
    for _ in range(100):
        keep_waiting(crowd, "busy", [(8, 8)], at)
        keep_waiting(crowd, "idle", [(8, 8)], at)
        crowd.step()
    gained = crowd.served - before
    assert gained["idle"] == pytest.approx(gained["busy"], rel=0.15)


def _idle_beside(crowd: Crowd, busy: str, at: Counter[str]) -> None:
    """One that is known and waits for nothing, while the other does."""
    crowd.submit("idle")
    crowd.drain()
    for _ in range(300):
        keep_waiting(crowd, busy, [(8, 8)], at)
        crowd.step()


def test_who_comes_back_is_served_before_others_by_its_credit_and_no_more():
    crowd, at = Crowd(prices=replace(TOKENS, credit=300.0)), Counter()
    _idle_beside(crowd, "busy", at)
    for gained in (300, 0):
        before = Counter(crowd.served)
        for _ in range(150):
            keep_waiting(crowd, "busy", [(8, 8)], at)
            keep_waiting(crowd, "idle", [(8, 8)], at)
            crowd.step()
        served = crowd.served - before
        assert served["idle"] - served["busy"] == pytest.approx(gained, abs=2 * 4 * 24), "within what can be running"


def test_a_newcomer_has_no_credit():
    shares = Shares(100.0)
    old = shares.opened("old", False)
    shares.join(old)
    old.waiting, old.counter = 1, 500.0
    shares.turned(old)
    new = shares.opened("new", False)
    shares.join(new)
    assert new.counter == 500.0
    shares.turned(new)
    new.counter = 0.0
    shares.join(new)
    assert new.counter == 400.0


def test_those_who_come_back_by_turns_starve_nobody():
    """Thirty tenants, each with a credit, of whom always one has something to do."""
    crowd = Crowd(max_running=2, pages=64, prices=replace(TOKENS, credit=100.0))
    for at in range(30):
        crowd.submit(f"t{at}", 8, 8)
    crowd.drain()
    for _ in range(6):
        crowd.submit("old", 8, 8)
    crowd.step()
    for at in range(2400):
        if len(crowd.core._waiting) < 9:
            crowd.submit(f"t{at % 30}", 8, 8)
        crowd.step()
    assert sum(name.startswith("old#") for name in crowd.ended) == 6


def test_who_leaves_with_a_debt_returns_with_it(monkeypatch):
    """Going away for a moment does not make up for what was taken before."""
    monkeypatch.setattr("tenantry.runtime.scheduler.fairness.KNOWN", 1)
    shares = Shares()
    rich, poor = shares.opened("rich", False), shares.opened("poor", False)
    shares.join(poor)
    poor.waiting = 1
    rich.counter = 500.0
    shares.closed(rich)
    assert shares.opened("rich", False).counter == 500.0
    poor.counter = 700.0
    shares.turned(poor)
    shares.closed(shares.flows["rich"])
    assert "rich" not in shares.flows, "whoever could not notice is not remembered"


def test_an_endless_stream_of_newcomers_starves_nobody():
    crowd = Crowd(max_running=2, pages=64)
    for _ in range(6):
        crowd.submit("old", 8, 8)
    crowd.step()
    for _ in range(400):
        while len(crowd.core._waiting) < 9:
            crowd.submit(f"new{len(crowd.owner)}", 8, 8)
        crowd.step()
    assert sum(name.startswith("old#") for name in crowd.ended) == 6


def test_keys_share_what_their_tenant_gets():
    crowd, served = Crowd(pages=128), Counter()
    for _ in range(600):
        for key, depth in (("t/flood", 30), ("t/quiet", 3), ("u/only", 3)):
            tenant = crowd.core._ledger.tenants.flows.get(key[0])
            flow = tenant.inside.flows.get(key[2:]) if tenant is not None else None
            while flow is None or flow.waiting < depth:
                crowd.submit(key, 8, 8)
                flow = crowd.flow(key[0]).inside.flows[key[2:]]
        crowd.step()
    for name in crowd.first:
        served[name.partition("#")[0]] += 1
    assert served["t/flood"] == pytest.approx(served["t/quiet"], rel=0.1)
    assert served["u/only"] == pytest.approx(served["t/flood"] + served["t/quiet"], rel=0.1)


def test_priorities_count_inside_of_a_tenant_and_nowhere_else():
    crowd = Crowd(max_running=1)
    crowd.submit("a", priority=0)
    crowd.submit("a", priority=5)
    crowd.submit("b", priority=-5)
    crowd.submit("a", priority=1)
    crowd.drain()
    assert crowd.started == ["a#1", "b#2", "a#3", "a#0"]


def test_the_oldest_of_a_tenant_is_passed_over_so_often_and_no_more():
    crowd = Crowd(max_running=1)
    crowd.submit("a", priority=-1)
    for _ in range(60):
        crowd.submit("a", priority=1)
    crowd.drain()
    assert crowd.started.index("a#0") == 16


def test_the_best_known_prompt_of_a_key_goes_first_and_pays_for_what_is_computed_alone():
    crowd = Crowd(max_running=1, pages=64)
    crowd.submit("a", tuple(range(24)))
    crowd.drain()
    before = crowd.flow("a").counter
    crowd.submit("a", 24)
    crowd.submit("a", (*range(24), 50))
    crowd.drain()
    assert crowd.started[1:] == ["a#2", "a#1"]
    assert crowd.flow("a").counter - before == (24 + 8) + (1 + 8), "24 of the 25 tokens were there"


def test_a_quiet_tenants_request_finds_a_place_where_a_flood_has_taken_all():
    crowd = Crowd(max_running=4, pages=128)
    flood = [crowd.submit("flood", 8, 100) for _ in range(8)]
    for _ in range(5):
        crowd.step()
    quiet = crowd.submit("quiet", 8, 4)
    crowd.step()
    assert crowd.started[-1] == quiet, "in the very next step"
    assert crowd.core.stats().yielded == 1
    for _ in range(3):
        crowd.submit("quiet", 8, 100)
    for _ in range(10):
        crowd.step()
    yielded = crowd.core.stats().yielded
    for _ in range(20):
        crowd.step()
        assert (crowd.flow("flood").running, crowd.flow("quiet").running) == (2, 2), "half each, and there it stays"
    assert crowd.core.stats().yielded == yielded
    crowd.drain()
    assert all(crowd.ended[name].usage.completion == 100 for name in flood), "who gave way goes on to its end"


def test_when_pages_run_out_the_tenant_that_was_served_most_gives_way():
    crowd = Crowd(pages=16, max_running=2)
    crowd.submit("much", 40, 20)
    for _ in range(3):
        crowd.step()
    little = crowd.submit("little", 4, 20)
    while not crowd.core.stats().preemptions:
        crowd.step()
    assert [s.request.id for s in crowd.core._sequences.running] == [little], "though it came last"
    crowd.drain()


def test_who_asks_for_an_adapter_first_pays_for_its_load():
    prices = Prices(pool_s=0.0, adapter_byte=3.0, credit=0.0)
    crowd = Crowd(prices=prices)
    crowd.submit("a", 4, 4, adapter=b"a" * 32)
    crowd.drain()
    assert crowd.flow("a").counter == 3.0 * 10 + 4 + 2 * 4
    crowd.submit("b", 4, 4, adapter=b"a" * 32)
    level = crowd.core._ledger.tenants.level
    crowd.drain()
    assert crowd.flow("b").counter == level + 4 + 2 * 4


def test_pages_cost_by_the_second():
    crowd = Crowd(pages=10, prices=Prices(prompt=0.0, decode=0.0, pool_s=100.0), seconds=(0.5, 0.0, 0.0))
    crowd.submit("a", 8, 4)
    crowd.step()
    crowd.step()
    assert crowd.flow("a").counter == pytest.approx(2 * 0.5 * 100 / 10), "two pages for half a second"


def test_what_is_computed_again_costs_nobody():
    """Preemption is the engine's doing: a tenant pays for its prompt once."""
    crowd = Crowd(pages=12, max_running=4, token_budget=12)
    for tenant in "abcd":
        crowd.submit(tenant, 6, 20)
    crowd.drain()
    assert crowd.core.stats().preemptions
    total = sum(flow.counter for flow in crowd.core._ledger.tenants.flows.values())
    assert crowd.served.total() == 4 * (6 + 2 * 20)
    assert total <= crowd.served.total() + 4 * 46, "levels, and nothing computed twice"


def test_a_tenant_fills_its_own_part_of_the_queue_and_no_more():
    crowd = Crowd(max_running=1, max_waiting=6, max_waiting_tenant=4)
    flood = [crowd.submit("flood") for _ in range(5)]
    assert crowd.ended[flood[4]].code == "too_many_waiting"
    assert crowd.ended[flood[4]].retry_ms >= 1000
    others = [crowd.submit(name) for name in ("a", "b", "c")]
    assert [name in crowd.ended for name in others] == [False, False, True]
    assert crowd.ended[others[2]].code == "overloaded"
    crowd.drain()


def test_people_are_told_who_waits_and_who_was_served_also_when_it_is_long_gone():
    crowd, at = Crowd(pages=128), Counter()
    crowd.submit("once", 40, 10)
    for _ in range(60):
        crowd.step()
    for _ in range(200):
        keep_waiting(crowd, "flood", [(10, 10)], at, depth=5)
        crowd.step()
    flood, once = (
        next(one for one in crowd.core.stats().tenants if one.tenant == name) for name in ("flood", "once")
    )
    assert (flood.waiting, flood.running > 0) == (crowd.flow("flood").waiting, True)
    assert (once.waiting, once.running) == (0, 0)
    assert once.work == crowd.served["once"]
    assert flood.work == pytest.approx(crowd.served["flood"])


def test_few_are_told_and_few_are_remembered_and_whoever_was_served_most_is_among_them():
    crowd = Crowd(pages=128)
    crowd.submit("much", 40, 10)
    crowd.drain()
    for i in range(3 * KNOWN):
        crowd.submit(f"t{i}", 4, 1)
        crowd.step()
    told = crowd.core.stats().tenants
    assert len(told) == MOST_TOLD
    assert [one.work for one in told if one.tenant == "much"] == [crowd.served["much"]]
    assert len(crowd.core._ledger.tenants.flows) <= KNOWN + 1
