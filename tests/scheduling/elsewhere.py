"""The other engines of a simulated one: they compute prompts for it, as they ought to or not, and it does for them.

Owns what lies in their shared memory and the oracle of hand-offs from outside: nothing foreign is found, what leaves
is what was written for exactly this prompt, no segment and no page is left behind. Numbers in assertions refer to the
simulator's invariants.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from random import Random

import msgspec

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.names import names
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.messages import Event, HandedOver, HandOff, PageDigest, Sampling, Usage
from tenantry.runtime.plan import StepPlan, StepResult
from tests.scheduling.world import Client, World

WAITS = 12  # steps, for a prompt that nobody sends
KEEPS = 6  # steps, for a reader that never comes
CELL = 8
FORMAT = "cells"


class FakeSegment:
    def __init__(self, name: str, size: int, open_ones: set[str]) -> None:
        self.name, self._open = name, open_ones
        self.view = memoryview(bytearray(size))
        open_ones.add(name)

    def seal(self, names: Sequence[bytes]) -> tuple[PageDigest, ...]:
        return tuple(PageDigest(name, b"") for name in names)

    def remove(self) -> None:
        self._open.discard(self.name)


class FakeTransport:
    """Sender and Receiver. open: segments that were made and not removed. sent: cells of other engines' segments."""

    def __init__(self, rng: Random, page_size: int) -> None:
        self.rng, self.page_size = rng, page_size
        self.open: set[str] = set()
        self.sent: dict[str, list[int]] = {}
        self.made: dict[str, FakeSegment] = {}
        self.reading: list[tuple[int, str, HandOff, int]] = []
        self.turns = 0

    def make(self, size: int) -> FakeSegment:
        if self.rng.random() < 0.1:
            raise OSError("full")
        name = f"here/{len(self.made)}"
        self.made[name] = FakeSegment(name, size, self.open)
        return self.made[name]

    def fetch(self, request_id: str, hand_off: HandOff, first: int) -> None:
        assert 0 <= first <= len(hand_off.pages), "3: fetched from beyond the end"
        self.reading.append((self.turns + self.rng.randint(0, 4), request_id, hand_off, first))

    def fetches(self, request_id: str) -> bool:
        return any(reading == request_id for _, reading, _, _ in self.reading)

    def ended(self) -> list[tuple[str, memoryview | None]]:
        self.turns += 1
        done = [entry for entry in self.reading if entry[0] < self.turns]
        self.reading = [entry for entry in self.reading if entry[0] >= self.turns]
        return [(request_id, self._read(hand_off, first)) for _, request_id, hand_off, first in done]

    def _read(self, hand_off: HandOff, first: int) -> memoryview | None:
        if self.rng.random() < 0.15:
            return None
        cells = self.sent[hand_off.segment][first * self.page_size : len(hand_off.pages) * self.page_size]
        return memoryview(array("q", cells).tobytes())


class Elsewhere:
    """exchange: this engine's ends of hand-offs. jobs: prompts that it computes for others."""

    def __init__(self, world: World, cache: KvCache, seen: Counter[str]) -> None:
        self.world, self.cache, self.seen = world, cache, seen
        self.rng = Random(world.seed ^ 0xE15E)
        self.transport = FakeTransport(self.rng, world.page_size)
        step, page_bytes = world.seconds[0], CELL * world.page_size
        self.exchange = Exchange(
            Outbox(self.transport, world.page_size, page_bytes, FORMAT, KEEPS * step),
            Intake(cache, self.transport, FORMAT, page_bytes, WAITS * step),
        )
        self.jobs: dict[str, Client] = {}

    @property
    def reserved(self) -> int:
        return self.exchange.intake.reserved

    def turn(self, expected: list[Client]) -> None:
        """What the other engines say, if anything, of prompts that are expected of them."""
        for client in expected:
            luck = 1.0 if self.transport.fetches(client.submit.request_id) else self.rng.random()
            if luck < 0.3:
                self.exchange.take(client.submit.request_id, self.computed(client))
            elif luck < 0.4 and len(client.submit.prompt) > self.world.page_size:
                self.exchange.take(client.submit.request_id, self.lie(client))
                assert not self.transport.fetches(client.submit.request_id), "4: another's pages are fetched"
            elif luck < 0.45:
                self.exchange.compute(client.submit.request_id)

    def computed(self, client: Client) -> HandOff:
        """As it ought to be."""
        submit, size = client.submit, self.world.page_size
        segment = f"there/{submit.request_id}"
        self.transport.sent[segment] = client.hashes[0][: len(submit.prompt)]
        digests = tuple(PageDigest(name, b"") for name in names(submit.namespace, submit.prompt[:-1], size))
        cached = self.rng.randrange(size * len(digests) + 1)
        return HandOff(
            submit.namespace, submit.adapter, submit.sampling, Usage(len(submit.prompt), cached), FORMAT, segment,
            CELL * size, digests,
        )  # fmt: skip

    def lie(self, client: Client) -> HandOff:
        """Another prompt's pages, another tenant's, another engine's format: full of what must never be read."""
        honest, submit = self.computed(client), client.submit
        segment = honest.segment + "-lie"
        self.transport.sent[segment] = [-9] * len(submit.prompt)
        other = bytes(byte ^ 1 for byte in submit.namespace)
        tokens = submit.prompt[:-1]
        foreign = self.rng.choice(((other, tokens), (submit.namespace, (tokens[0] + 1, *tokens[1:]))))
        wrong: dict[str, object] = self.rng.choice(
            (
                {"pages": tuple(PageDigest(name, b"") for name in names(*foreign, self.world.page_size))},
                {"namespace": other},
                {
                    "namespace": other,
                    "pages": tuple(PageDigest(name, b"") for name in names(other, tokens, self.world.page_size)),
                },
                {"adapter": b"x" * 32},
                {"sampling": Sampling(max_tokens=submit.sampling.max_tokens, seed=99)},
                {"page_format": "other"},
                {"page_bytes": 1},
                {"pages": (*honest.pages, PageDigest(b"more", b""))},
            )
        )
        self.seen["lie"] += 1
        return msgspec.structs.replace(honest, segment=segment, **wrong)

    def after(self, sent: StepPlan, result: StepResult) -> None:
        """A step has ended. What another engine has computed is found here now, unless it was deleted meanwhile."""
        intake, tree = self.exchange.intake, self.cache.tree
        roots = {name: one.lease.node.root for name, one in intake._expected.items() if one.lease is not None}
        self.exchange.after(sent, result)
        for ready in intake._ready:
            submit = ready.submit
            if ready.elsewhere and tree._roots.get(submit.namespace) is roots[submit.request_id]:
                self.seen["taken"] += 1
                found = tree.match(submit.namespace, submit.prompt[:-1]).pages
                assert ready.elsewhere <= len(found) * self.world.page_size, "9: computed elsewhere, and not there"

    def told(self, events: Sequence[Event], now: float) -> None:
        """What others hear of their prompts: nothing but the end, as a hand-over if there is one."""
        others, ours = self.exchange.told(events, now)
        assert not any(event.request_id in self.jobs for event in others), "9: clients hear of a job"
        for event in ours:
            client = self.jobs.pop(event.request_id)
            self.seen["handed over" if isinstance(event, HandedOver) else "not handed over"] += 1
            if isinstance(event, HandedOver):
                self.judge(event.hand_off, client)
                if self.rng.random() < 0.5:
                    self.exchange.release(event.request_id)

    def judge(self, hand_off: HandOff, client: Client) -> None:
        cells = array("q", self.transport.made[hand_off.segment].view.tobytes()).tolist()
        assert cells == client.hashes[0][: len(client.submit.prompt)], "3: handed over what was not written for it"
        assert (hand_off.namespace, hand_off.adapter) == (client.submit.namespace, client.submit.adapter)
        pages = names(client.submit.namespace, client.submit.prompt, self.world.page_size)
        assert [page.name for page in hand_off.pages] == list(pages), "3: handed over under another name"

    def nothing_left(self, now: float) -> None:
        """9: after the last request, and once nobody can come for a segment any more."""
        self.exchange.before(now + 2 * KEEPS * self.world.seconds[0], 0)
        assert not self.transport.open, "9: segments left behind"
        assert not self.exchange.intake.leases, "9: pages left to a prompt that nobody expects"
        assert not self.reserved, "9: reservations left"
        assert not self.jobs, "9: an engine that never hears of its prompt"
