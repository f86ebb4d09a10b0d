"""Laws of two engines that share a request: one text, one owner, one journal, and nothing left behind by faults."""

from pathlib import Path

import msgspec
import pytest

from tenantry.runtime.journal import Closed, Counted, Opened
from tenantry.runtime.messages import ChoiceFinished, Finished, HandedOver, Refused, Usage

LONG = "a prompt that is long enough to be worth a walk to another engine, " * 2


@pytest.mark.parametrize(
    "options",
    [
        {}, {"temperature": 1.0, "seed": 5}, {"n": 3, "temperature": 0.7, "seed": 1}, {"logprobs": 2},
        {"stop": ("e",)}, {"min_tokens": 6, "stop": ("a", "b", "c")}, {"max_tokens": 1},
        {"ignore_eos": True, "max_tokens": 60},
    ],
    ids=["greedy", "seeded", "three", "logprobs", "stop", "min", "one", "long"],
)  # fmt: skip
def test_a_handed_over_request_says_what_one_engine_says(pair, make, alone, options):
    submit = make("r", LONG, **options)
    pair.submit(submit)
    pair.run()
    tokens, events = alone(submit)
    assert pair.tokens("r") == tokens
    ends = [e for e in pair.told["r"] if isinstance(e, ChoiceFinished | Finished)]
    assert ends == [e for e in events if isinstance(e, ChoiceFinished | Finished)], "reasons and counts as well"
    assert pair.d.engine.stats().hand_offs.taken == pair.p.engine.stats().hand_offs.sent == 1
    pair.p.idle()
    pair.d.idle()
    assert pair.p.left() == []


def test_the_owner_alone_journals_and_the_counts_of_the_prompt_are_the_others(pair, make):
    for n in range(2):
        pair.submit(make(f"r{n}", LONG))
        pair.run()
    assert pair.p.journal.kept == []
    kept = pair.d.journal.kept
    assert [type(r) for r in kept if not isinstance(r, Counted)] == [Opened, Closed, Opened, Closed]
    first, second = (r.usage for r in kept if isinstance(r, Closed))
    assert first == Usage(len(LONG), 0, 12), "nothing was cached: it was computed for this very request"
    assert second.cached == (len(LONG) - 1) // 4 * 4
    usages = [r.usage["r0"] for r in kept if isinstance(r, Counted) and "r0" in r.usage]
    assert usages == sorted(usages, key=lambda u: u.completion)


def test_the_adapter_is_loading_and_pages_are_reserved_before_the_prompt_is_there(pair, make):
    digest = bytes([5]) * 32
    pair.submit(make("r", LONG, adapter=digest, namespace=digest))
    pair.d.engine.step(0.0)
    pair.d.engine.step(0.0)
    assert [a.state for a in pair.d.engine.stats().adapters] in (["loading"], ["resident"])
    assert pair.d.exchange.intake.reserved == (len(LONG) - 1) // 4
    pair.run()
    assert pair.d.engine.stats().hand_offs.taken == 1
    pair.d.idle()


def test_a_damaged_hand_over_is_computed_again_to_the_same_tokens(pair, make, alone):
    submit = make("r", LONG)
    pair.carries = False
    pair.submit(submit)
    while "r" not in pair.handed:
        pair.turn()
    hand_off = pair.handed["r"].hand_off
    file = pair.folder / hand_off.segment
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    pair.d.engine.take("r", hand_off)
    pair.run()
    assert pair.tokens("r") == alone(submit)[0]
    assert pair.d.engine.stats().hand_offs.damaged == 1
    assert pair.d.journal.kept[-1].usage == Usage(len(LONG), 0, 12), "owed once, by who computed it in the end"
    pair.d.idle()


def test_an_engine_that_dies_in_the_middle_is_done_without(pair, make, alone):
    """Fault 30: the prompt is computed again where it is decoded; the dead one's segments go with its next life."""
    submit = make("r", LONG)
    pair.carries = False
    pair.submit(submit)
    while "r" not in pair.handed:
        pair.turn()
    assert len(pair.p.left()) == 1
    pair.prefill_restarts()
    assert pair.p.left() == []
    pair.d.engine.take("r", pair.handed["r"].hand_off)  # of a stale epoch
    pair.run()
    assert pair.tokens("r") == alone(submit)[0]
    assert pair.d.engine.stats().hand_offs.damaged == 1


def test_word_that_never_comes_is_waited_for_ten_seconds(pair, make, alone):
    submit = make("r", LONG)
    pair.carries = False
    pair.submit(submit)
    for _ in range(30):
        pair.turn()
    assert "r" not in pair.told
    pair.now += 10
    pair.run()
    assert pair.tokens("r") == alone(submit)[0]
    assert pair.d.engine.stats().hand_offs.late == 1
    assert pair.p.left() == []


def test_a_deadline_counts_from_when_a_request_came_not_from_when_its_prompt_did(pair, make):
    pair.carries = False
    for name, deadline in (("late", 5.0), ("patient", 50.0)):
        pair.submit(msgspec.structs.replace(make(name, f"{name}, {LONG}"), deadline=deadline))
    while len(pair.handed) < 2:
        pair.turn()
    pair.now += 11.0  # nobody says that they are computed
    pair.run()
    [late] = pair.told["late"]
    assert isinstance(late, Refused)
    assert (late.code, late.param) == ("overloaded", "deadline")
    assert isinstance(pair.told["patient"][-1], Finished)
    pair.d.idle()


def test_a_hand_over_that_nobody_fetches_is_forgotten(pair, make):
    """The gateway died: nobody releases it, and nobody aborts it here."""
    pair.carries = False
    pair.submit(make("r", LONG))
    while "r" not in pair.handed:
        pair.turn()
    pair.p.engine.step(pair.now + 9)
    assert len(pair.p.left()) == 1
    pair.p.engine.step(pair.now + 11)
    assert pair.p.left() == []
    pair.p.idle()


@pytest.mark.parametrize("turns", range(8))
def test_an_abort_at_any_moment_frees_both_sides(pair, make, turns):
    pair.submit(make("r", LONG, max_tokens=60))
    for _ in range(turns):
        pair.turn()
    pair.d.engine.abort("r", pair.now)
    pair.p.engine.abort("r", pair.now)
    pair.p.engine.release("r")
    pair.carries = False
    pair.run()
    assert [e.reason for e in pair.told["r"] if isinstance(e, Finished)] == ["abort"]
    assert [r.reason for r in pair.d.journal.kept if isinstance(r, Closed)] == ["abort"]
    pair.p.engine.release("r")
    pair.p.idle()
    pair.d.idle()
    assert pair.p.left() == []


@pytest.mark.parametrize("abort", [True, False], ids=["at once", "with what runs"])
@pytest.mark.parametrize("what", ["tenant", "namespace"])
def test_what_is_expected_ends_with_its_tenant_and_leaves_nothing_to_be_found(pair, make, what, abort):
    submit = make("r", LONG)
    pair.carries = False
    pair.submit(submit)
    while "r" not in pair.handed:
        pair.turn()
    if what == "tenant":
        pair.d.engine.drop_tenant(submit.tenant, abort)
    else:
        pair.d.engine.drop_namespace(submit.namespace, abort)
    pair.d.engine.take("r", pair.handed["r"].hand_off)
    pair.run()
    assert pair.told["r"] == [Finished("r", Usage(), "abort")]
    assert not pair.d.cache.tree.match(submit.namespace, submit.prompt).pages, "found after its tenant was deleted"
    pair.d.idle()


def test_what_no_engine_would_run_is_refused_before_anything_is_computed(pair, make):
    refused = pair.d.engine.submit(msgspec.structs.replace(make("r", LONG, max_tokens=100), expect=True), 0.0)
    assert isinstance(refused, Refused)
    assert refused.code == "context_length_exceeded"
    pair.d.idle()


def test_a_memory_without_room_is_done_without(pair, make, alone, monkeypatch):
    def full(size: int):
        raise OSError(28, "no space left")

    monkeypatch.setattr(pair.p.memory, "make", full)
    submit = make("r", LONG)
    pair.submit(submit)
    pair.run()
    assert pair.tokens("r") == alone(submit)[0]
    assert pair.p.engine.stats().hand_offs.unsent == 1
    pair.p.idle()


def test_a_prompt_shorter_than_a_page_is_not_handed_over(pair, make, alone):
    submit = make("r", "hi")
    pair.submit(submit)
    pair.run()
    assert pair.tokens("r") == alone(submit)[0]
    assert pair.p.engine.stats().hand_offs.sent == 0


def test_another_tenants_equal_prompt_is_computed_for_itself(pair, make):
    """On the side that decodes, too, a hand-over is found by its own namespace alone."""
    a, b = bytes([1]) * 32, bytes([2]) * 32
    pair.submit(make("a", LONG, namespace=a))
    pair.run()
    pair.submit(make("b", LONG, namespace=b))
    pair.run()
    closed = {r.request_id: r.usage.cached for r in pair.d.journal.kept if isinstance(r, Closed)}
    assert closed == {"a": 0, "b": 0}
    stolen = pair.handed["a"].hand_off
    pair.carries = False
    pair.submit(make("c", LONG, namespace=b))
    pair.d.engine.take("c", stolen)
    pair.run()
    assert pair.d.engine.stats().hand_offs.refused == 1


def test_many_at_once_end_and_leave_nothing(pair, make, alone):
    submits = [make(f"r{n}", LONG[n:] + "x" * n, max_tokens=3 + n % 5, seed=n, temperature=n % 2) for n in range(40)]
    for n, submit in enumerate(submits):
        pair.submit(submit)
        if n % 3 == 0:
            pair.turn()
    pair.run()
    for submit in submits:
        assert pair.tokens(submit.request_id) == alone(submit)[0], submit.request_id
    counts = pair.d.engine.stats().hand_offs
    assert counts.taken > 20
    pair.p.idle()
    pair.d.idle()
    assert pair.p.left() == []
    assert isinstance(pair.handed["r0"], HandedOver)
    assert Path(pair.folder).exists()
