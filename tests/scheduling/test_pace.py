"""Times: a step's target and what it leaves for prompts, refusals before it is too late, the wait for company."""

import pytest

from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.errors import InvalidRequest
from tests.scheduling.crowd import Crowd

MS = 1e-3


def decode(crowd: Crowd, rows: int = 4, tenant: str = "d") -> None:
    """So many rows decode for long, and steps were measured."""
    for _ in range(rows):
        crowd.submit(tenant, 8, 380)
    for _ in range(30):
        crowd.step()


def paced(target_ms: float, **config) -> Crowd:
    """4 ms a step, 1 ms a row, 0.25 ms a prompt token: of 20 ms, four rows leave 12 ms or 48 tokens."""
    config = {"max_running": 8, "token_budget": 128, "max_context": 400} | config
    return Crowd(pages=400, seconds=(4 * MS, 1 * MS, 0.25 * MS), itl_target_ms=target_ms, **config)


def test_prompts_get_what_the_target_leaves_beside_decoding_rows():
    crowd = paced(20)
    decode(crowd)
    for at in range(12):  # what prompts cost is learned from them
        crowd.submit("p", 21 + 8 * at, 1)
        crowd.step()
    for _ in range(200):
        crowd.step()
    before = len(crowd.steps)
    long = crowd.submit("p", 300, 1)
    while long not in crowd.first:
        crowd.step()
    chunks = [max(len(row.tokens) for row in rows) for rows in crowd.steps[before:]]
    assert len(chunks) > 4
    assert all(36 <= chunk <= 52 and chunk % 4 == 0 for chunk in chunks[:-1]), chunks
    assert all(sum(len(row.tokens) == 1 for row in rows) == 4 for rows in crowd.steps[before:-1]), "decoding goes on"


def test_nearly_every_step_keeps_the_target_though_none_takes_what_was_expected():
    crowd = paced(20, noise=0.1, max_context=1000)
    decode(crowd)
    for _ in range(40):
        crowd.submit("p", 100, 1)
    for _ in range(60):
        crowd.step()
    before = len(crowd.steps)
    while crowd.core._waiting:
        crowd.step()
        while crowd.flow("d").running < 4 and not crowd.flow("d").waiting:
            crowd.submit("d", 8, 150)
    busy = [
        took
        for rows, took in zip(crowd.steps[before:], crowd.took[before:], strict=True)
        if {len(row.tokens) > 1 for row in rows} == {True, False}
    ]
    assert len(busy) > 50
    assert sum(took > 0.02 for took in busy) <= 0.02 * len(busy), "about one of a hundred"
    assert sorted(busy)[len(busy) * 9 // 10] > 0.014, "and no more is given away than that takes"


def test_without_a_target_or_without_rows_that_decode_prompts_get_the_whole_budget():
    crowd = paced(0)
    decode(crowd)
    crowd.submit("d", 300, 1)
    crowd.step()
    assert max(len(row.tokens) for row in crowd.steps[-1]) == 124
    alone = paced(20)
    alone.submit("p", 300, 1)
    alone.step()
    assert len(alone.steps[0][0].tokens) == 128


def test_while_several_tenants_are_about_prompts_take_twice_what_the_rows_beside_them_take():
    """Four rows take 8 ms: 16 ms are 64 tokens. A tenant that comes back after a minute alone has the whole step."""
    crowd = paced(0)
    decode(crowd)
    for at in range(12):
        crowd.submit("p", 21 + 8 * at, 1)
        crowd.step()
    for _ in range(40):
        crowd.step()
    for wait, most in ((0.0, 64), (61.0, 124)):
        crowd.now += wait
        crowd.submit("d", 300, 1)
        crowd.step()
        assert max(len(row.tokens) for row in crowd.steps[-1]) == pytest.approx(most, abs=4)
        crowd.step()


def test_a_tenant_that_is_owed_a_place_begins_without_whoever_has_most():
    crowd = paced(0, max_running=7)
    decode(crowd)
    crowd.submit("other", 8, 100)
    crowd.step()
    crowd.step()
    crowd.submit("d", 40, 100)
    crowd.submit("guest", 40, 100)
    crowd.step()
    rows = crowd.steps[-1]
    assert sorted(len(row.tokens) for row in rows) == [1, 40], "its prompt, and all but the four of whoever has most"
    assert crowd.started[-1].startswith("guest")
    crowd.step()
    assert sum(len(row.tokens) == 1 for row in crowd.steps[-1]) == 6, "and then everyone goes on"


def test_guests_delay_nobody_whose_target_is_kept():
    crowd = paced(20, max_running=7)
    decode(crowd)
    crowd.submit("guest", 40, 100)
    for _ in range(3):
        crowd.step()
        assert sum(len(row.tokens) == 1 for row in crowd.steps[-1]) >= 4


def test_where_nobody_has_most_of_the_places_a_request_begins_beside_everybody():
    crowd = paced(0, max_running=8)
    decode(crowd)
    crowd.submit("guest", 40, 100)
    crowd.step()
    assert sorted(len(row.tokens) for row in crowd.steps[-1]) == [1, 1, 1, 1, 40]


def test_an_endless_stream_of_guests_holds_nobody_up():
    """They are served before those who have more, but not more than they are owed."""
    crowd = paced(0, token_budget=64, max_running=7)
    decode(crowd)
    before = crowd.served["d"]
    for at in range(300):
        crowd.submit(f"guest{at}", 40, 1)
        crowd.step()
    assert crowd.served["d"] - before >= 2 * 4 * 100, "steps with its rows in them"


def test_a_target_that_cannot_be_met_leaves_prompts_a_page():
    crowd = paced(1)
    decode(crowd)
    long = crowd.submit("p", 60, 1)
    before = len(crowd.steps)
    while long not in crowd.first:
        crowd.step()
    chunks = [max(len(row.tokens) for row in rows) for rows in crowd.steps[before:]]
    assert chunks == [4] * 15


def test_prefill_first_lets_decoding_wait():
    crowd = paced(0, policy="prefill-first")
    decode(crowd)
    crowd.submit("p", 300, 4)
    for _ in range(4):
        crowd.step()
    kinds = [{len(row.tokens) > 1 for row in rows} for rows in crowd.steps[-4:]]
    assert kinds == [{True}, {True}, {True}, {False}]


def test_what_a_step_takes_is_reported_with_its_error():
    crowd = paced(20)
    assert crowd.core.stats().step_times.measured == 0
    decode(crowd)
    for at in range(20):
        crowd.submit("p", 20 + 7 * at, 1)
        for _ in range(4):
            crowd.step()
    times = crowd.core.stats().step_times
    assert times.measured == len(crowd.steps)
    assert times.prompt_token == pytest.approx(0.25 * MS, rel=0.1)
    assert times.error < 0.15
    known = crowd.core.times.error
    crowd.seconds = (8 * MS, 4 * MS, 1 * MS)
    for _ in range(3):
        crowd.step()
    assert crowd.core.times.error > known, "a machine that became slower shows"


def slow(**config) -> Crowd:
    """A place for two, and 100 ms for each step."""
    return Crowd(pages=400, seconds=(0.1, 0.0, 0.0), **({"max_running": 2, "max_waiting": 99} | config))


def test_a_deadline_that_the_own_queue_cannot_meet_is_refused_at_once():
    crowd = slow()
    for _ in range(30):
        crowd.submit("a", 4, 10)
        crowd.step()
    assert crowd.flow("a").waiting > 15
    late = crowd.submit("a", 4, 10, deadline=5.0)  # some 20 wait, two places, a second each
    assert crowd.ended[late].code == "too_many_waiting"
    assert crowd.ended[late].param == "deadline"
    waits = (crowd.flow("a").waiting - 1) / 2
    assert (waits - 6) * 1000 <= crowd.ended[late].retry_ms <= 1.3 * waits * 1000
    assert crowd.core.stats().refused_early == 1
    patient = crowd.submit("a", 4, 10, deadline=60.0)
    quiet = crowd.submit("b", 4, 10, deadline=2.0)
    crowd.drain()
    assert patient in crowd.first
    assert quiet in crowd.first, "another tenant's queue is not in its way"


def test_nothing_is_refused_before_it_is_known_what_steps_take():
    crowd = slow()
    names = [crowd.submit("a", 4, 10, deadline=0.5) for _ in range(20)]
    assert not crowd.ended
    crowd.drain()
    assert [crowd.ended[name].code for name in names[2:]] == ["overloaded"] * 18, "late, when the time has come"


def test_many_tenants_together_can_be_too_many():
    crowd = slow()
    for at in range(30):
        crowd.submit(f"t{at % 6}", 4, 10)
        crowd.step()
    late = crowd.submit("t0", 4, 10, deadline=4.0)
    assert crowd.ended[late].code == "overloaded", "its own queue alone would do"
    assert crowd.ended[late].retry_ms >= 1000


def test_those_refused_together_do_not_return_together():
    crowd = slow(max_waiting=2)
    names = [crowd.submit("a") for _ in range(40)]
    assert len({crowd.ended[name].retry_ms for name in names[2:]}) > 20


def test_company_is_waited_for_while_nothing_runs_and_no_longer_than_said():
    crowd = Crowd(batch_delay_ms=5, max_running=2, seconds=(1 * MS, 0.0, 0.0))
    first = crowd.submit("a", 8, 20)
    assert crowd.step() is None
    assert crowd.core.has_work
    crowd.now += 4 * MS
    assert crowd.step() is None
    crowd.now += 1.5 * MS
    assert crowd.step() is not None
    assert first in crowd.first
    beside = crowd.submit("a", 8, 20)
    crowd.step()
    assert beside in crowd.first, "while something decodes, nobody waits"
    crowd.drain()
    crowd.submit("a")
    crowd.submit("b")
    assert crowd.step() is not None, "with every place asked for there is nobody to wait for"


@pytest.mark.parametrize(
    ("field", "value"), [("batch_delay_ms", 11), ("itl_target_ms", -1), ("max_waiting_tenant", 0)]
)
def test_numbers_out_of_bounds_are_refused_by_name(field: str, value: float):
    with pytest.raises(InvalidRequest) as error:
        ScheduleConfig(**{field: value})
    assert error.value.param == field
