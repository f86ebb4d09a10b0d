"""Laws of the router: who is down is not chosen, who failed in time is replaced, and a told token is told once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from tenantry.platform.fleet.hints import BLOCK_TOKENS
from tenantry.platform.fleet.router import Engine, Router
from tenantry.platform.fleet.totals import stats_together
from tenantry.runtime.counts import AdapterState, Guessing, ProposerCounts, Stats, TenantShare, TierCounts
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.messages import Event, Finished, Pong, Refused, Sampling, Submit, Tokens, Usage

LONG = tuple(range(4 * BLOCK_TOKENS))
GONE = EngineUnavailable(None, "the engine died")


@dataclass
class FakeGeneration:
    client: "FakeClient"
    submit: Submit
    script: list[Event | EngineUnavailable] = field(default_factory=list)

    def __aiter__(self) -> "FakeGeneration":
        return self

    async def __anext__(self) -> Event:
        if not self.script:
            raise StopAsyncIteration
        event = self.script.pop(0)
        if isinstance(event, EngineUnavailable):
            self.client.open -= 1
            raise event
        self.client.open -= isinstance(event, Finished | Refused)
        return event

    def abort(self) -> None:
        """Too late: it has failed already."""


def answer(submit: Submit) -> list[Event | EngineUnavailable]:
    return [Tokens(submit.request_id, 0, (5,)), Finished(submit.request_id, Usage(2, 0, 1), "length")]


class FakeClient:
    """What the router uses of an EngineClient."""

    def __init__(self, **options: object) -> None:
        self.ready = True
        self.open = 0
        self.submitted: list[Submit] = []
        self.dropped: list[bytes] = []
        self.say: Callable[[Submit], list[Event | EngineUnavailable]] = answer
        self.epoch, self.stats = "e1", Stats()
        self.told: tuple[Guessing, ...] = ()
        for name, value in options.items():
            setattr(self, name, value)

    @property
    def last_pong(self) -> Pong:
        return Pong(self.epoch, 1, self.ready, self.stats)

    def generate(self, submit: Submit) -> FakeGeneration:
        self.submitted.append(submit)
        self.open += 1
        return FakeGeneration(self, submit, script=self.say(submit))

    def drop(self, digest: bytes) -> None:
        self.dropped.append(digest)

    async def guesses(self) -> tuple[Guessing, ...]:
        return self.told


def fleet(*clients: FakeClient) -> Router:
    return Router([Engine(f"engine-{n}", "both", client) for n, client in enumerate(clients)])  # type: ignore[arg-type]


def submit(request_id: str = "r", prompt: tuple[int, ...] = (1, 2), **options) -> Submit:
    options = {"namespace": bytes(32), "adapter": None, **options}
    return Submit(request_id, prompt, Sampling(max_tokens=4), share_key="t", **options)


async def read(generation) -> list[Event]:
    return [event async for event in generation]


async def test_what_came_before_goes_where_it_was():
    a, b = FakeClient(), FakeClient()
    router = fleet(a, b)
    a.open = 1
    await read(router.generate(submit("r0", LONG)))
    assert len(b.submitted) == 1, "the less busy one"
    b.open = 3
    await read(router.generate(submit("r1", (*LONG, 9, 9))))
    assert len(b.submitted) == 2, "the longest prefix, though it is busier"
    await read(router.generate(submit("r2", LONG, namespace=bytes([1]) * 32)))
    assert len(a.submitted) == 1, "another tenant's equal prompt is known nowhere"


async def test_a_restarted_engine_is_believed_to_have_nothing():
    a, b = FakeClient(), FakeClient(open=1)
    router = fleet(a, b)
    await read(router.generate(submit("r0", LONG, session=b"s")))
    a.epoch, a.open = "e2", 2
    await read(router.generate(submit("r1", LONG, session=b"s")))
    assert [len(a.submitted), len(b.submitted)] == [1, 1]


@pytest.mark.parametrize("pages", [0, 40])
async def test_what_a_restarted_engine_has_on_disk_counts(pages: int):
    a, b = FakeClient(), FakeClient(open=1)
    router = fleet(a, b)
    await read(router.generate(submit("r0", LONG, session=b"s")))
    tiers = (TierCounts("host", 0, 100, 0, 0, 0), TierCounts("disk", pages, 100, 0, 0, 0))
    a.epoch, a.open, a.stats = "e2", 2, Stats(tiers=tiers)
    await read(router.generate(submit("r1", LONG, session=b"s")))
    await read(router.generate(submit("r2", LONG)))
    assert [len(a.submitted), len(b.submitted)] == ([3, 0] if pages else [1, 2])


async def test_an_adapter_goes_to_who_holds_it():
    digest = bytes([9]) * 32
    held = Stats(adapters=(AdapterState(digest, "resident", 10, 0),))
    leaving = Stats(adapters=(AdapterState(digest, "draining", 10, 0),))
    a, b, c = FakeClient(), FakeClient(stats=leaving), FakeClient(stats=held, open=2)
    await read(fleet(a, b, c).generate(submit(adapter=digest)))
    assert [len(x.submitted) for x in (a, b, c)] == [0, 0, 1]


async def test_who_is_down_or_drains_is_not_chosen_whatever_it_has():
    a, b = FakeClient(), FakeClient()
    router = fleet(a, b)
    await read(router.generate(submit("r0", LONG)))
    a.ready = False
    assert router.ready
    await read(router.generate(submit("r1", LONG)))
    assert [len(a.submitted), len(b.submitted)] == [1, 1]
    b.ready = False
    assert not router.ready
    with pytest.raises(EngineUnavailable, match="not ready"):
        await read(router.generate(submit("r2")))


@pytest.mark.parametrize(
    "failure",
    [
        GONE,
        Refused("r", "overloaded", "512 requests are waiting"),
        Refused("r", "engine_unavailable", "shutting down"),
    ],
    ids=["died", "full", "draining"],
)
async def test_a_request_that_failed_before_its_first_token_is_given_to_another(failure):
    a, b = FakeClient(say=lambda _: [failure]), FakeClient(open=1)
    router = fleet(a, b)
    events = await read(router.generate(submit()))
    assert events == answer(submit())
    assert [s.attempt for s in a.submitted + b.submitted] == [0, 1]
    assert [r.rerouted for r in router.reports()] == [1, 0]
    assert (a.open, b.open) == (0, 1)


async def test_a_request_that_has_told_a_token_fails_where_it_is():
    """A second engine would tell it again, and bill it again."""
    a, b = FakeClient(say=lambda s: [*answer(s)[:1], GONE]), FakeClient()
    generation = fleet(a, b).generate(submit())
    assert isinstance(await anext(generation), Tokens)
    with pytest.raises(EngineUnavailable):
        await anext(generation)
    with pytest.raises(StopAsyncIteration):
        await anext(generation)
    assert b.submitted == []


@pytest.mark.parametrize(
    "refused",
    [Refused("r", "invalid_request", "no", "prompt"), Refused("r", "overloaded", "too late", "deadline")],
    ids=["invalid", "late"],
)
async def test_what_every_engine_would_refuse_is_asked_of_one(refused):
    a, b = FakeClient(say=lambda _: [refused]), FakeClient()
    assert await read(fleet(a, b).generate(submit())) == [refused]
    assert b.submitted == []


async def test_a_reader_that_left_is_not_taken_elsewhere():
    a, b = FakeClient(say=lambda _: [GONE]), FakeClient()
    generation = fleet(a, b).generate(submit())
    generation.abort()
    with pytest.raises(EngineUnavailable):
        await read(generation)
    assert b.submitted == []


async def test_attempts_end():
    clients = [FakeClient(say=lambda _: [GONE]) for _ in range(6)]
    with pytest.raises(EngineUnavailable):
        await read(fleet(*clients).generate(submit()))
    assert sum(len(c.submitted) for c in clients) == 3


async def test_a_retired_adapter_is_retired_everywhere():
    a, b = FakeClient(), FakeClient(ready=False)
    fleet(a, b).drop(b"d")
    assert a.dropped == b.dropped == [b"d"]


async def test_reports_of_several_engines_add_up():
    counts = ProposerCounts("ngram", False, 2, 4, 3, (2, 2), (2, 1))
    told = Guessing(bytes(32), None, 5, 7, (counts,))
    state = AdapterState(b"d", "loading", 10, 1)
    host = TierCounts("host", 1, 2, 3, 4, 5, 6, 7)
    stats = Stats(steps=3, running=2, step_seconds=0.5, adapters=(state,), proposers=(counts,), tiers=(host,))
    stats = msgspec.structs.replace(
        stats, tenants=(TenantShare("t", 2.0, 1, 2, 30.0, 4.0),), pages_evicted=3, memory_stage=1
    )
    a = FakeClient(stats=stats, told=(told,))
    held = (AdapterState(b"d", "resident", 10, 0),)
    tiers = (host, TierCounts("disk", 9, 9, 9, 9, 9))
    shares = (TenantShare("t", 2.0, 0, 1, 10.0, 5.0), TenantShare("u", 1.0, 1, 0, 1.0, 0.0))
    b = FakeClient(
        stats=Stats(steps=1, step_seconds=0.25, adapters=held, tiers=tiers, tenants=shares, memory_stage=2)
    )
    b.told = (Guessing(bytes(32), None, 1, 2, (ProposerCounts("ngram", False, 1, 1, 1, (1,), (1,)),)),)
    router = fleet(a, b)
    together = router.stats
    assert together is not None
    assert (together.steps, together.running, together.step_seconds) == (4, 2, 0.75)
    assert together.adapters == (AdapterState(b"d", "resident", 20, 1),)
    assert together.tiers == (TierCounts("host", 2, 4, 6, 8, 10, 12, 14), tiers[1])
    assert together.tenants == (TenantShare("t", 2.0, 1, 3, 40.0, 5.0), shares[1])
    assert together.pages_evicted == 3
    assert together.memory_stage == 2, "how it stands where it is worst, no sum"
    assert await router.guesses() == (
        Guessing(bytes(32), None, 6, 9, (ProposerCounts("ngram", False, 3, 5, 4, (3, 2), (3, 1)),)),
    )
    assert stats_together([]) is None


async def test_reports_say_how_each_engine_stands():
    a, b = FakeClient(stats=Stats(running=2, waiting=1, pages_total=9)), FakeClient(ready=False)
    router = fleet(a, b)
    await asyncio.sleep(0)
    first, second = router.reports()
    assert (first.name, first.role, first.state, first.running, first.waiting) == ("engine-0", "both", "ready", 2, 1)
    assert first.pages.total == 9
    assert second.state == "draining"
