"""The small rules, each at its edges: bounds, endings, turns, claims."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.errors import InvalidRequest, QueueFull
from tenantry.runtime.messages import ChoiceFinished, Finished, Refused, Sampling, Submit, Tokens
from tenantry.runtime.plan import Load, RowResult, StepResult
from tenantry.runtime.scheduler.fairness import Ledger
from tenantry.runtime.scheduler.finish import Ending, Hit, ending
from tenantry.runtime.scheduler.request import Request
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.scheduler.waiting import WaitingQueue

VOCAB = 100
NAMESPACE = b"n" * 32


def scheduler(**config) -> Scheduler:
    schedule = {"token_budget": 32, "max_running": 4, "max_context": 64} | config
    cache = KvCache.alone(CacheConfig(4, 16))
    return Scheduler(ScheduleConfig(**schedule), cache, Residency(Budget(100)), (1,), VOCAB)


def submit(name: str = "r", prompt: tuple[int, ...] = (5, 6), key: str = "t", **sampling) -> Submit:
    return Submit(name, prompt, Sampling(**{"max_tokens": 4} | sampling), NAMESPACE, None, key)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("max_tokens", [1, 62], [0, -1, 63, 2**31]),
        ("min_tokens", [0, 4], [-1, 5]),
        ("n", [1, 8], [0, -1, 9, 10**6]),
        ("temperature", [0.0, -0.0, 2.0], [-1.0, 2.1, math.inf, math.nan]),
        ("top_p", [1e-9, 1.0], [0.0, -0.1, 1.0001, math.nan]),
        ("top_k", [0, VOCAB], [-1, -2, VOCAB + 1]),
        ("min_p", [0.0, 1.0], [-0.1, 1.1, math.nan]),
        ("presence_penalty", [-2.0, 2.0], [-2.0001, 2.0001, math.nan]),
        ("frequency_penalty", [-2.0, 2.0], [-2.0001, 2.0001, -math.inf]),
        ("repetition_penalty", [0.01, 10.0], [0.0, -1.0, 10.1, math.nan]),
        ("seed", [-(2**63), 2**63 - 1], [2**63, -(2**63) - 1]),
        ("logprobs", [None, 0, 20], [-1, 21, 10**9]),
        ("logit_bias", [((0, -100.0), (VOCAB - 1, 100.0))], [((-1, 1.0),), ((VOCAB, 1.0),), ((1, 101.0),)]),
        ("logit_bias", [()], [((1, math.nan),), tuple((i % VOCAB, 1.0) for i in range(2000))]),
        ("stop", [("x",)], [("",), ("x",) * 65]),
        ("stop_token_ids", [(0, VOCAB - 1)], [(VOCAB,), (-1,), (1,) * 65]),
    ],
)
def test_every_field_is_bounded_by_the_engine_itself(field: str, good: list, bad: list):
    for value in good:
        assert scheduler().add(submit(**{field: value}), NONE, 0.0) is None, (field, value)
    for value in bad:
        refused = scheduler().add(submit(**{field: value}), NONE, 0.0)
        assert isinstance(refused, Refused), (field, value)
        assert refused.param == field


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ()}, "prompt", "invalid_request"),
        ({"prompt": (VOCAB,)}, "prompt", "invalid_request"),
        ({"prompt": (-1,)}, "prompt", "invalid_request"),
        ({"prompt": (5,) * 61}, "max_tokens", "context_length_exceeded"),
        ({"namespace": b"short"}, "namespace", "invalid_namespace"),
        ({"adapter": b"short"}, "adapter", "invalid_request"),
        ({"adapter": b"d" * 32}, "adapter", "invalid_request"),  # of no bytes
        ({"request_id": ""}, "request_id", "invalid_request"),
        ({"deadline": math.nan}, "deadline", "invalid_request"),
        ({"deadline": -1.0}, "deadline", "invalid_request"),
    ],
)
def test_what_surrounds_the_sampling_is_bounded_too(fields: dict, param: str, code: str):
    import msgspec

    refused = scheduler().add(msgspec.structs.replace(submit(), **fields), NONE, 0.0)
    assert isinstance(refused, Refused)
    assert (refused.param, refused.code) == (param, code)


def test_a_request_that_could_never_fit_the_pool_is_refused_and_one_that_just_fits_runs():
    tight = scheduler(max_context=1000)
    assert isinstance(tight.add(submit("long", prompt=(5,) * 60, max_tokens=6), NONE, 0.0), Refused)
    assert tight.add(submit("fits", prompt=(5,) * 60, max_tokens=5, ignore_eos=True), NONE, 0.0) is None
    finished = [e for e in drain(tight, 7) if isinstance(e, Finished)]
    assert finished[0].usage.completion == 5


def test_an_id_that_runs_is_refused_and_free_again_afterwards():
    core = scheduler()
    assert core.add(submit("a"), NONE, 0.0) is None
    assert core.add(submit("a"), NONE, 0.0).param == "request_id"
    drain(core, 7)
    assert core.add(submit("a"), NONE, 0.0) is None


def test_a_budget_that_could_starve_prefill_is_refused():
    with pytest.raises(InvalidRequest):
        scheduler(token_budget=7)


def drain(core: Scheduler, token: int) -> list:
    events = []
    while core.has_work:
        plan = core.plan(0.0)
        assert plan is not None
        rows = tuple(RowResult((token,) if row.draw else ()) for row in plan.rows)
        events += core.commit(plan, StepResult(rows, loaded=tuple(load.digest for load in plan.load)), 0.0)
    return events


def test_events_of_one_choice_come_in_order_and_the_terminal_one_last():
    core = scheduler()
    core.add(submit(max_tokens=2, n=2), NONE, 0.0)
    events = drain(core, 7)
    assert isinstance(events[-1], Finished)
    for choice in (0, 1):
        mine = [e for e in events[:-1] if e.choice == choice]
        assert [type(e) for e in mine] == [Tokens, Tokens, ChoiceFinished]
    assert events[-1].usage.prompt == 2
    assert events[-1].usage.completion == 4


def test_an_end_token_has_no_match_and_a_stop_id_has():
    sampling = Sampling(max_tokens=9, stop_token_ids=(3,))
    assert ending(sampling, frozenset({1, 3}), 0, (1,)) == Ending(1, "stop", None)
    assert ending(sampling, frozenset({1, 3}), 0, (3,)) == Ending(1, "stop", 3)


@given(st.integers(1, 6), st.integers(0, 6), st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 5))
def test_several_tokens_end_where_one_by_one_they_would(most: int, least: int, drawn: list[int], before: int):
    sampling = Sampling(max_tokens=before + most, min_tokens=least, stop_token_ids=(3,))
    stops, one_by_one = frozenset({1, 3}), None
    for count, token in enumerate(drawn):
        end = ending(sampling, stops, before + count, (token,))
        if end is not None:
            one_by_one = Ending(count + 1, end.reason, end.matched)
            break
    assert ending(sampling, stops, before, drawn) == one_by_one


def test_a_full_queue_refuses_and_deadlines_pass_on_their_own():
    ledger = Ledger()
    waiting = WaitingQueue(1, 1, ledger)
    request = Request(
        Submit("a", (5,), Sampling(max_tokens=1), NAMESPACE, None, "t", deadline=5.0), NONE, 0, 10.0, frozenset()
    )
    ledger.opened(request)
    waiting.refuse_full(request.tenant)
    waiting.push(request)
    with pytest.raises(QueueFull):
        waiting.refuse_full(None)
    assert waiting.expire(14.9) == []
    assert waiting.expire(15.0) == [request]
    assert not waiting


def test_choices_find_the_prompt_of_the_first_and_the_adapter_stays_until_the_last():
    residency = Residency(Budget(100))
    core = Scheduler(ScheduleConfig(32, 4, 8, 64), KvCache.alone(CacheConfig(4, 16)), residency, (1,), VOCAB)
    digest = b"d" * 32
    request = Submit("r", (5,) * 9, Sampling(max_tokens=3, n=3), NAMESPACE, digest, "t")
    assert core.add(request, Footprint((10,)), 0.0) is None
    starts = []
    while core.has_work:
        plan = core.plan(0.0)
        starts += [row.start for row in plan.rows if len(row.tokens) > 1 or row.start == 8]
        rows = tuple(RowResult((7,) if row.draw else ()) for row in plan.rows)
        core.commit(plan, StepResult(rows, loaded=tuple(load.digest for load in plan.load)), 0.0)
        users = {o.digest: o.users for o in residency.occupants()}
        assert users[digest] == bool(core.usage("r"))
    assert starts == [0, 8, 8]


def test_a_failed_load_refuses_those_who_waited_for_it_and_nobody_else():
    core = scheduler()
    core.add(Submit("lora", (5, 6), Sampling(max_tokens=2), NAMESPACE, b"d" * 32, "t"), Footprint((10,)), 0.0)
    core.add(Submit("base", (5, 6), Sampling(max_tokens=2), b"m" * 32, None, "t"), NONE, 0.0)
    plan = core.plan(0.0)
    assert plan.load == (Load(b"d" * 32),)
    rows = tuple(RowResult((7,)) for _ in plan.rows)
    events = core.commit(plan, StepResult(rows, failed=((b"d" * 32, "checksum"),)), 0.0)
    refused = [e for e in events if isinstance(e, Refused)]
    assert [(e.request_id, e.code) for e in refused] == [("lora", "adapter_unavailable")]
    assert any(isinstance(e, Finished) and e.request_id == "base" for e in drain(core, 7))


def test_adapters_of_those_who_start_next_are_brought_in_while_others_run():
    residency = Residency(Budget(30))
    core = Scheduler(ScheduleConfig(32, 1, 8, 64), KvCache.alone(CacheConfig(4, 16)), residency, (1,), VOCAB)
    digests = {name: name.encode() * 32 for name in "abcd"}
    loads, started = {}, {}
    for step in range(99):
        for name in {0: "a", 2: "bcd"}.get(step, ""):  # the others come when the first one runs
            request = Submit(name, (5, 6), Sampling(max_tokens=2, ignore_eos=True), NAMESPACE, digests[name], name)
            assert core.add(request, Footprint((10,)), 0.0) is None
        plan = core.plan(0.0)
        if plan is None:
            break
        loads |= {load.digest: plan.step for load in plan.load}
        started |= {row.adapter: plan.step for row in plan.rows if row.start == 0}
        rows = tuple(RowResult((7,) if row.draw else ()) for row in plan.rows)
        core.commit(plan, StepResult(rows, loaded=tuple(load.digest for load in plan.load)), 0.0)
        core.check()
    first = started[digests["a"]]
    assert [loads[digests[name]] - first for name in "bcd"] == [1, 1, 2], (
        "d would drive out one that is wanted sooner"
    )
    assert [started[digests[name]] - first for name in "bcd"] == [2, 4, 6], "no step in which nothing runs"


def test_a_prefetched_adapter_is_let_go_with_its_request():
    residency = Residency(Budget(30))
    core = Scheduler(ScheduleConfig(32, 1, 8, 64), KvCache.alone(CacheConfig(4, 16)), residency, (1,), VOCAB)
    for name in "ab":
        request = Submit(name, (5, 6), Sampling(max_tokens=9), NAMESPACE, name.encode() * 32, name)
        core.add(request, Footprint((10,)), 0.0)
        plan = core.plan(0.0)
        assert plan.load == (Load(name.encode() * 32),), "a runs when b comes"
        rows = tuple(RowResult((7,)) for _ in plan.rows)
        core.commit(plan, StepResult(rows, loaded=(name.encode() * 32,)), 0.0)
        core.commit(plan := core.plan(0.0), StepResult(tuple(RowResult((7,)) for _ in plan.rows)), 0.0)
    core.abort("b", 0.0)
    assert {o.digest: o.users for o in residency.occupants()} == {b"a" * 32: 1, b"b" * 32: 0}
    core.check()


def test_a_fault_ends_one_request_with_an_error():
    core = scheduler()
    core.add(submit("bad"), NONE, 0.0)
    core.add(submit("good", prompt=(8, 9)), NONE, 0.0)
    plan = core.plan(0.0)
    result = StepResult((RowResult(fault="non-finite logits"), RowResult((7,))))
    events = core.commit(plan, result, 0.0)
    assert [(e.request_id, e.reason) for e in events if isinstance(e, Finished)] == [("bad", "error")]
    assert [e.reason for e in drain(core, 7) if isinstance(e, Finished)] == ["length"]


def test_abort_of_an_unknown_request_is_ignored_and_of_a_waiting_one_is_answered():
    core = scheduler()
    core.abort("nobody", 0.0)
    assert not core.has_work
    core.add(submit("a"), NONE, 0.0)
    core.abort("a", 0.0)
    assert core.has_work
    assert [e.reason for e in drain(core, 7)] == ["abort"]


def test_a_stop_string_ends_its_choice_inside_of_a_step():
    """What the model drew beyond it is neither told nor counted, and a choice that ended is asked about no more."""
    core, asked = scheduler(), []

    def watch(request_id, choice, tokens):
        asked.append((request_id, choice, tuple(tokens)))
        return Hit(2, "END") if len(tokens) > 1 else None

    core.add(submit(max_tokens=9), NONE, 0.0)
    plan = core.plan(0.0)
    assert [type(e) for e in core.commit(plan, StepResult((RowResult((7,)),)), 0.0, watch)] == [Tokens]
    plan = core.plan(0.0)
    told, ended, finished = core.commit(plan, StepResult((RowResult((7, 8, 9)),)), 0.0, watch)
    assert told.tokens == (7, 8)
    assert (ended.reason, ended.matched) == ("stop", "END")
    assert finished.usage.completion == 3
    assert asked == [("r", 0, (7,)), ("r", 0, (7, 8, 9))]
    assert not core.has_work


def test_a_stop_string_wins_over_the_length_that_ends_with_it():
    core = scheduler()
    core.add(submit(max_tokens=2), NONE, 0.0)
    result = StepResult((RowResult((7, 8, 9)),))
    told, ended, _ = core.commit(core.plan(0.0), result, 0.0, lambda *asked: Hit(len(asked[2]), "END"))
    assert told.tokens == (7, 8), "the watch is asked about what counts, and about nothing beyond"
    assert (ended.reason, ended.matched) == ("stop", "END")


def test_usage_grows_with_the_prompt_and_with_every_token():
    core = scheduler(token_budget=8)
    core.add(submit(prompt=(5,) * 10, max_tokens=3), NONE, 0.0)
    seen = []
    while core.has_work:
        plan = core.plan(0.0)
        rows = tuple(RowResult((7,) if row.draw else ()) for row in plan.rows)
        events = core.commit(plan, StepResult(rows), 0.0)
        usage = core.usage("r") or events[-1].usage
        seen.append((usage.prompt, usage.completion))
    assert seen == [(8, 0), (10, 1), (10, 2), (10, 3)]
