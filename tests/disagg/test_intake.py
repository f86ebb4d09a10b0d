"""Laws of the intake: every expected request starts once or ends, nothing foreign is found, no page is lost."""

import random
from dataclasses import dataclass, field

import msgspec
import pytest

from tenantry.adapters.room import NONE
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.names import names
from tenantry.runtime.messages import HandOff, PageDigest, Sampling, Submit, Usage
from tenantry.runtime.namespace import Namespace

SIZE = 4
A, B = (Namespace(tenant, bytes(32)).key for tenant in (b"tenant-a", b"tenant-b"))
PROMPT = tuple(range(30))  # seven whole pages before the last token


@dataclass
class FakeReceiver:
    """Fetches when it is told to."""

    fetching: dict[str, int] = field(default_factory=dict)
    done: list[tuple[str, memoryview | None]] = field(default_factory=list)

    def fetch(self, request_id: str, hand_off: HandOff, first: int) -> None:
        self.fetching[request_id] = first

    def ended(self) -> list[tuple[str, memoryview | None]]:
        done, self.done = self.done, []
        return done

    def finish(self, request_id: str, good: bool = True) -> None:
        del self.fetching[request_id]
        self.done.append((request_id, memoryview(b"x" * 1000) if good else None))


def submit(request_id: str = "r", prompt: tuple[int, ...] = PROMPT, namespace: bytes = A) -> Submit:
    return Submit(request_id, prompt, Sampling(max_tokens=4, seed=7), namespace, None, "t", expect=True)


def hand_off(of: Submit, cached: int = 0) -> HandOff:
    digests = tuple(PageDigest(name, b"c") for name in names(of.namespace, of.prompt[:-1], SIZE))
    usage = Usage(len(of.prompt), cached)
    return HandOff(of.namespace, of.adapter, of.sampling, usage, "f", "p/e-1", 10, digests)


def intake(pages: int = 64) -> Intake:
    return Intake(KvCache.alone(CacheConfig(SIZE, pages)), FakeReceiver(), "f", 10, wait_s=5.0)


def step(one: Intake, written: bool = True) -> int:
    """As an engine does. Returns how many pages were written."""
    arrivals = one.arrivals()
    one.cache.begin_step()
    one.cache.end_step()
    one.arrived(arrivals, tuple(a.request_id for a in arrivals) if written else ())
    return sum(len(a.pages) for a in arrivals)


def found(one: Intake, of: Submit) -> int:
    return len(one.cache.tree.match(of.namespace, of.prompt[:-1]).pages) * SIZE


def nothing_held(one: Intake) -> None:
    assert one.reserved == 0
    assert not one.cache._leases
    assert one.cache.tree.pinned == 0
    assert one.cache.arena.free_count + one.cache.tree.nodes == one.cache.arena.blocks
    one.cache.check()


def test_what_was_handed_over_is_found_and_counts_as_computed():
    one, r = intake(), submit()
    one.expect(r, NONE, 0.0)
    assert one.reserved == 7
    assert one.ready() == []
    one.take("r", hand_off(r, cached=8))
    assert one.receiver.fetching == {"r": 0}
    one.turn(0.1)
    assert one.arrivals() == (), "not fetched yet"
    one.receiver.finish("r")
    one.turn(0.2)
    assert found(one, r) == 0, "nothing is found before it is written"
    assert step(one) == 7
    [ready] = one.ready()
    assert (ready.submit, ready.elsewhere) == (r, 28 - 8)
    assert found(one, r) == 28
    assert (one.counts.taken, one.counts.bytes) == (1, 70)
    nothing_held(one)


def test_what_is_here_already_is_not_copied_again():
    one = intake()
    first, second = submit("a"), submit("b", (*PROMPT[:16], *range(50, 64)))
    for r in (first, second):
        one.expect(r, NONE, 0.0)
        one.take(r.request_id, hand_off(r))
        one.receiver.finish(r.request_id)
        one.turn(0.0)
        written = step(one)
    assert written == 7 - 4
    assert [r.elsewhere for r in one.ready()] == [28, 28 - 16], "the tenant pays for no token that was there"


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": B}, {"adapter": bytes(32)}, {"sampling": Sampling(max_tokens=4, seed=8)}, {"page_format": "g"},
        {"page_bytes": 11}, {"pages": ()}, {"pages": hand_off(submit()).pages[:-1]},
        {"pages": hand_off(submit(namespace=B)).pages}, {"pages": hand_off(submit(prompt=(9, *PROMPT[1:]))).pages},
    ],
    ids=["namespace", "adapter", "seed", "format", "size", "empty", "incomplete", "tenant", "tokens"],
)  # fmt: skip
def test_what_is_not_this_requests_is_computed_here(wrong):
    one, r = intake(), submit()
    one.expect(r, NONE, 0.0)
    one.take("r", msgspec.structs.replace(hand_off(r), **wrong))
    assert [(x.submit, x.elsewhere) for x in one.ready()] == [(r, 0)]
    assert one.receiver.fetching == {}
    assert one.counts.refused == 1
    assert found(one, r) == 0
    nothing_held(one)


def test_a_prompt_that_is_all_here_needs_no_byte_and_still_counts_as_found():
    one, again = intake(), submit("again")
    for r in (submit("first"), again):
        one.expect(r, NONE, 0.0)
        one.take(r.request_id, hand_off(r))
        one.receiver.finish(r.request_id)
        one.turn(0.0)
        written = step(one)
    assert written == 0
    assert [ready.elsewhere for ready in one.ready()] == [28, 0]
    nothing_held(one)


def test_two_thousand_foreign_hand_overs_are_never_found():
    """Another tenant's KV of the very same prompt, offered under every lie that keeps its own names."""
    rng, one = random.Random(3), intake(256)
    for n in range(2000):
        prompt = tuple(rng.randrange(50) for _ in range(13))
        mine, theirs = submit(f"r{n}", prompt), submit(f"r{n}", prompt, B)
        one.expect(mine, NONE, 0.0)
        lie = rng.choice([{}, {"namespace": A}])
        one.take(mine.request_id, msgspec.structs.replace(hand_off(theirs), **lie))
        assert found(one, mine) == 0
    assert one.counts.refused == 2000
    assert all(ready.elsewhere == 0 for ready in one.ready())
    nothing_held(one)


def test_damage_lateness_and_silence_are_computed_here_and_counted():
    one = intake()
    damaged, late, told, unwritten = (submit(name, tuple(range(i, i + 30))) for i, name in enumerate("abcd"))
    for r in (damaged, late, told, unwritten):
        one.expect(r, NONE, 0.0)
    one.take("a", hand_off(damaged))
    one.take("d", hand_off(unwritten))
    one.compute("c")
    one.receiver.finish("a", good=False)
    one.receiver.finish("d")
    one.turn(4.9)
    assert step(one, written=False) == 7
    one.turn(5.1)
    assert sorted(ready.submit.request_id for ready in one.ready()) == ["a", "b", "c", "d"]
    assert (one.counts.damaged, one.counts.late, one.counts.taken) == (2, 2, 0)
    one.take("b", hand_off(late))
    one.turn(6.0)
    assert one.ready() == [], "too late is nothing"
    assert [found(one, r) for r in (damaged, late, told, unwritten)] == [0] * 4
    nothing_held(one)


@pytest.mark.parametrize("stage", range(4))
def test_an_abort_frees_everything_at_any_stage(stage):
    one, r = intake(), submit()
    one.expect(r, NONE, 0.0)
    if stage >= 1:
        one.take("r", hand_off(r))
    if stage >= 2:
        one.receiver.finish("r")
    if stage >= 3:
        one.turn(0.0)
    assert one.abort("r")
    one.turn(1.0)
    step(one)
    assert one.ready() == []
    assert not one.abort("r")
    nothing_held(one)


def test_reservations_give_way_to_what_runs():
    one = intake(16)
    one.expect(submit("a"), NONE, 0.0)
    one.expect(submit("b", tuple(range(9, 39))), NONE, 0.0)
    assert one.reserved == 7, "half of the pages at most"
    one.give_way(10)
    assert one.cache.available == 16
    assert one.reserved == 0
    one.take("a", hand_off(submit("a")))
    assert one.receiver.fetching == {"a": 0}, "there is room again"
    one.give_way(10)
    assert [ready.submit.request_id for ready in one.ready()] == ["a"]
    assert one.counts.no_room == 1
    one.abort("b")
    nothing_held(one)


def test_whatever_happens_every_request_starts_once_or_is_aborted_and_no_page_is_lost():
    rng = random.Random(20261121)
    for _ in range(30):
        one, now, number = intake(48), 0.0, 0
        alive: dict[str, Submit] = {}
        for _ in range(120):
            now += rng.random()
            action = rng.randrange(8)
            some = rng.choice(sorted(alive)) if alive else None
            if action <= 1:
                number += 1
                prompt = tuple(rng.randrange(3) for _ in range(rng.randrange(1, 40)))
                r = alive[f"r{number}"] = submit(f"r{number}", prompt, rng.choice([A, B]))
                one.expect(r, NONE, now)
            elif some is not None and action == 2:
                one.take(some, hand_off(alive[some], cached=rng.randrange(20)))
            elif some is not None and action == 3:
                one.take(some, hand_off(submit(some, (1, 2, 3, 4, 5))))
            elif some is not None and action == 4:
                one.compute(some)
            elif some is not None and action == 5:
                assert one.abort(some)
                del alive[some]
            elif action == 6 and one.receiver.fetching:
                one.receiver.finish(rng.choice(sorted(one.receiver.fetching)), rng.random() < 0.8)
            else:
                one.give_way(rng.randrange(30))
            one.turn(now)
            step(one, rng.random() < 0.9)
            for ready in one.ready():
                assert alive.pop(ready.submit.request_id) == ready.submit
                assert 0 <= ready.elsewhere <= found(one, ready.submit) or ready.elsewhere == 0
            one.cache.check()
        one.turn(now + 10)
        for request_id in list(one.receiver.fetching):
            one.receiver.finish(request_id)
        one.turn(now + 10)
        step(one)
        assert {ready.submit.request_id for ready in one.ready()} == alive.keys()
        nothing_held(one)
