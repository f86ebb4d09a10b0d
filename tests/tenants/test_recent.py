"""Numbers for people who watch: right within their windows, forgotten beyond them, and one tenant's own."""

from uuid import uuid4

import pytest

from tenantry.platform.core.recent import TENANTS, Recent, percentile


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_minute_of_requests_and_tokens_is_a_rate(clock):
    recent, who = Recent(clock), uuid4()
    clock.now += 3600
    for _ in range(30):
        recent.began(who)
        recent.tokens(who, 20)
        recent.ended(who)
        clock.now += 1
    pace = recent.pace(who)
    assert pace.requests_per_second == pytest.approx(30 / 60)
    assert pace.tokens_per_second == pytest.approx(600 / 60)
    assert pace.running == 0
    assert pace.settled == 30
    clock.now += 60
    assert recent.pace(who).tokens_per_second == 0


def test_a_young_process_divides_by_its_age(clock):
    recent, who = Recent(clock), uuid4()
    clock.now += 4
    recent.tokens(who, 40)
    assert recent.pace(who).tokens_per_second == pytest.approx(10)


def test_first_tokens_are_told_by_adapter_and_forgotten_after_a_quarter_hour(clock):
    recent, who, adapter = Recent(clock), uuid4(), uuid4()
    for i in range(100):
        recent.first_token(who, adapter, (i + 1) / 100)
    recent.first_token(who, None, 9.0)
    assert recent.slowness(who) == {adapter: 0.95, None: 9.0}
    assert recent.pace(who).first_token_p50 == pytest.approx(0.51, abs=0.01)
    clock.now += 901
    assert recent.pace(who).first_token_p95 is None


def test_nobody_sees_anothers_pace(clock):
    recent, mine, theirs = Recent(clock), uuid4(), uuid4()
    recent.began(theirs)
    recent.tokens(theirs, 5)
    assert recent.pace(mine).running == 0
    assert recent.pace(mine).tokens_per_second == 0
    assert recent.slowness(mine) == {}
    assert recent.pace_of_all().running == 1


def test_memory_is_bounded_in_tenants(clock):
    recent = Recent(clock)
    first = uuid4()
    recent.began(first)
    for _ in range(TENANTS):
        recent.began(uuid4())
    assert recent.pace_of_all().running == TENANTS
    recent.ended(first)
    assert recent.pace(first).running == 0


@pytest.mark.parametrize(("values", "share", "answer"), [([1.0], 0.95, 1.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0)])
def test_a_percentile_is_a_value_that_was_seen(values, share, answer):
    assert percentile(values, share) == answer
