"""Scheduling decides when a token is computed, never which: hit, miss, chunked, preempted and crowded all agree.

Scheduler, cache and model together, in fp32 over int8 pages; the reference is each request alone with nothing cached.
"""

from dataclasses import dataclass

import pytest
import torch

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.counts import Stats
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens, Usage
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.scheduler import Scheduler

NEW = 12
RANKS = (4, 16, 64)
BASE = bytes(32)


@dataclass
class Asked:
    """One request: whose it is, what it says, on which adapter (None: the base)."""

    tenant: bytes
    prompt: list[int]
    adapter: bytes | None

    def submit(self, name: str) -> Submit:
        namespace = Namespace(self.tenant, self.adapter or BASE).key
        sampling = Sampling(max_tokens=NEW, temperature=0.0, ignore_eos=True)
        return Submit(name, tuple(self.prompt), sampling, namespace, self.adapter, self.tenant.hex())


@dataclass
class Told:
    tokens: list[int]
    usage: Usage


class Session:
    """A fresh scheduler over the runner: its tree is empty, and no adapter is resident."""

    def __init__(self, served, pages: int = 512, budget: int = 256, running: int = 64) -> None:
        self.runner, self.store = served.runner, served.store
        self.runner.run(StepPlan(0, (), evict=tuple(self.runner.adapters.resident)))
        schedule = ScheduleConfig(token_budget=budget, max_running=running, max_context=128)
        cache = KvCache.alone(CacheConfig(page_size=self.runner.pool.layout.page_size, pages=pages))
        residency = Residency(Budget(1 << 30))
        self.scheduler = Scheduler(schedule, cache, residency, self.runner.end_tokens, self.runner.vocab_size)

    def ask(self, *asked: Asked) -> list[Told]:
        """All at once; each one's tokens and counts."""
        told = {f"r{i}": Told([], Usage()) for i in range(len(asked))}
        for i, one in enumerate(asked):
            footprint = Footprint((self.store.size(one.adapter),)) if one.adapter else NONE
            assert self.scheduler.add(one.submit(f"r{i}"), footprint, 0.0) is None
        while self.scheduler.has_work:
            plan = self.scheduler.plan(0.0)
            assert plan is not None
            for event in self.scheduler.commit(plan, self.runner.run(plan), 0.0):
                match event:
                    case Tokens():
                        told[event.request_id].tokens += event.tokens
                    case Finished():
                        assert event.reason == "length", event
                        told[event.request_id].usage = event.usage
        self.scheduler.check()
        return list(told.values())

    @property
    def stats(self) -> Stats:
        return self.scheduler.stats()


@pytest.fixture(scope="module")
def served(serve):
    return serve("qwen2", kv_dtype="int8", adapter_bytes=1 << 29)


@pytest.fixture(scope="module")
def work(served, make_adapter) -> list[Asked]:
    """Two tenants, three adapters and the base, prompts that share prefixes within a group."""
    noise = torch.Generator().manual_seed(3)
    adapters = [
        served.stored(make_adapter("qwen2", seed=r, r=r, lora_alpha=2 * r, target_modules="all-linear"))
        for r in RANKS
    ]
    prefix = torch.randint(0, 101, (30,), generator=noise).tolist()
    asked = []
    for i in range(32):
        tail = torch.randint(0, 101, (1 + i % 23,), generator=noise).tolist()
        prompt = prefix + tail if i % 3 else tail
        asked.append(Asked(b"acme" if i % 2 else b"globex", prompt, [*adapters, None][i % 4]))
    return asked


@pytest.fixture(scope="module")
def expected(served, work) -> list[list[int]]:
    return [Session(served).ask(one)[0].tokens for one in work]


def tokens(told: list[Told]) -> list[list[int]]:
    return [t.tokens for t in told]


def test_requests_answer_differently_enough_to_prove_something(expected):
    assert len({tuple(t) for t in expected}) > 20


def test_thirty_two_at_once_answer_as_each_alone(served, work, expected):
    assert tokens(Session(served).ask(*work)) == expected


def test_a_hit_answers_as_a_miss(served, work, expected):
    session = Session(served)
    for one, wanted in zip(work[:12], expected, strict=False):
        session.ask(one)
        (again,) = session.ask(one)
        assert again.tokens == wanted
        assert again.usage.cached > 0 or len(one.prompt) <= 4


@pytest.mark.parametrize("budget", [5, 9, 20])
def test_a_chunked_prompt_answers_as_a_whole_one(served, work, expected, budget):
    session = Session(served, budget=budget, running=1)
    assert tokens(session.ask(*work[:12])) == expected[:12]


def test_preempted_requests_answer_as_undisturbed_ones(served, work, expected):
    session = Session(served, pages=40)
    assert tokens(session.ask(*work)) == expected
    assert session.stats.preemptions > 0, "nothing was preempted"


def test_the_same_tenant_hits_and_nobody_else_does(served, work):
    """Paired, so that it fails when caching is off as well as when it leaks."""
    session = Session(served)
    prompt, adapter, other = work[1].prompt + [3] * 8, work[1].adapter, work[2].adapter
    session.ask(Asked(b"acme", prompt, adapter))

    def cached(tenant: bytes, weights: bytes | None) -> int:
        return session.ask(Asked(tenant, prompt, weights))[0].usage.cached

    assert cached(b"globex", adapter) == 0, "another tenant saw this tenant's prefix"
    assert cached(b"acme", other) == 0, "another adapter reused this adapter's KV"
    assert cached(b"acme", None) == 0, "the base reused an adapter's KV"
    assert cached(b"acme", adapter) >= len(prompt) - 4, "the same tenant and adapter found nothing"
