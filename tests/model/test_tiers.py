"""KV that left the device and came back is the KV that left: the same tokens from device, host memory, disk, after
preemption and after a restart, and nobody else's ever. Scheduler, cache, files and model together, in fp32."""

import dataclasses
import mmap
import time

import pytest
import torch

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.model.tiers import LowerTiers
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.scheduler.scheduler import Scheduler

NEW, PROMPTS = 8, 12
BASE = bytes(32)


class Life:
    """One life of an engine over a runner: its tree and its host memory are empty, its disk is not."""

    def __init__(self, served, folder, pages: int = 512, host: int = 1 << 20, disk: int = 1 << 22, **config) -> None:
        self.runner = served.runner
        engine = dataclasses.replace(
            served.config, host_cache_bytes=host, disk_cache_bytes=disk, disk_cache_dir=folder, **config
        )
        self.runner.tiers = LowerTiers(engine, [self.runner.pool], self.runner.model_digest)
        cache = KvCache.alone(CacheConfig(page_size=self.runner.pool.layout.page_size, pages=pages))
        self.tiers = self.runner.tiers.books()
        cache.below(self.tiers)
        schedule = ScheduleConfig(token_budget=256, max_running=16, max_context=128)
        residency = Residency(Budget(1 << 30))
        self.scheduler = Scheduler(schedule, cache, residency, self.runner.end_tokens, self.runner.vocab_size)
        self.asked = 0
        self.now = 0.0

    def ask(self, *prompts, tenant: bytes = b"acme", weights: bytes = BASE, new: int = NEW, **options):
        """All at once; each one's tokens and usage."""
        told: dict[str, list[int]] = {}
        usage = {}
        for prompt in prompts:
            self.asked += 1
            name = f"r{self.asked}"
            sampling = Sampling(max_tokens=new, temperature=0.0, ignore_eos=True)
            namespace = Namespace(tenant, weights).key
            submit = Submit(name, tuple(prompt), sampling, namespace, None, tenant.hex(), **options)
            assert self.scheduler.add(submit, NONE, self.now) is None
            told[name] = []
        while self.scheduler.has_work:
            for event in self.step():
                if isinstance(event, Tokens):
                    told[event.request_id] += event.tokens
                elif isinstance(event, Finished):
                    assert event.reason == "length", event
                    usage[event.request_id] = event.usage
        self.scheduler.check()
        return [(told[name], usage[name]) for name in told]

    def step(self):
        self.now = time.monotonic()
        plan = self.scheduler.plan(self.now)
        if plan is not None and not plan.rows:
            time.sleep(0.001)  # for the disk's threads
        return self.scheduler.commit(plan, self.runner.run(plan), self.now) if plan is not None else []

    def forget(self, host: bool = False) -> None:
        """The device lets go of everything; and host memory too."""
        self.scheduler.cache.tree.evict(1 << 20)
        self.rest()
        for kept in list(self.tiers._kept.values()) if host else ():
            self.tiers._slots.vacate(kept)
            self.tiers._forgotten(kept, -1)

    def rest(self) -> None:
        while self.scheduler.has_work:
            self.step()

    def end(self) -> None:
        self.rest()
        self.runner.tiers.close()
        self.runner.tiers = None


@pytest.fixture(scope="module", params=["split", "unified"])
def served(request, serve, engine_config, bases):
    made = serve("qwen2", kv_dtype="int8", memory=request.param, adapter_bytes=1 << 20)
    made.config = dataclasses.replace(engine_config, model_dir=bases("qwen2"), kv_dtype="int8", memory=request.param)
    return made


@pytest.fixture
def life(served, tmp_path, monkeypatch):
    monkeypatch.setattr("tenantry.runtime.cache.tiers.PATIENCE_S", 60.0)  # a busy machine's disk is slow
    lives = []

    def begin(**options) -> Life:
        if lives:
            lives[-1].end()
        lives.append(Life(served, tmp_path / "kv", **options))
        return lives[-1]

    yield begin
    if lives:
        lives[-1].end()


@pytest.fixture(scope="module")
def prompts():
    noise = torch.Generator().manual_seed(11)
    shared = torch.randint(0, 101, (21,), generator=noise).tolist()
    return [
        (shared if i % 2 else []) + torch.randint(0, 101, (9 + 5 * (i % 7),), generator=noise).tolist()
        for i in range(PROMPTS)
    ]


@pytest.fixture
def expected(life, prompts):
    cold = life(host=0, disk=0)
    return [cold.ask(prompt)[0][0] for prompt in prompts]


def whole(prompt) -> int:
    return (len(prompt) - 1) // 4 * 4


def test_every_way_back_gives_the_same_tokens(life, prompts, expected):
    first = life()
    for prompt, wanted in zip(prompts, expected, strict=True):
        assert first.ask(prompt)[0][0] == wanted
    for prompt, wanted in zip(prompts, expected, strict=True):
        tokens, usage = first.ask(prompt)[0]
        assert (tokens, usage.cached, usage.cached_host) == (wanted, whole(prompt), 0), "from the device"
    first.forget()
    for prompt, wanted in zip(prompts, expected, strict=True):
        tokens, usage = first.ask(prompt)[0]
        assert tokens == wanted
        assert usage.cached == whole(prompt)
    assert first.tiers.hits[0] > 0
    first.forget()
    first.forget(host=True)
    told = [first.ask(prompt)[0] for prompt in prompts]
    assert [tokens for tokens, _ in told] == expected
    assert sum(usage.cached_disk for _, usage in told) > 0
    assert all(usage.cached == whole(p) for p, (_, usage) in zip(prompts, told, strict=True)), "from disk"
    again = life()
    told = [again.ask(prompt)[0] for prompt in prompts]
    assert [tokens for tokens, _ in told] == expected
    assert all(usage.cached == whole(p) for p, (_, usage) in zip(prompts, told, strict=True)), "after a restart"
    assert told[0][1].cached_disk == whole(prompts[0])


def test_who_gives_way_is_parked_and_goes_on_with_the_same_tokens(life, prompts):
    cold = life(host=0, disk=0)
    expected = [cold.ask(prompt, new=40)[0][0] for prompt in prompts]
    crowded = life(pages=40)
    told = crowded.ask(*prompts, new=40)
    assert [tokens for tokens, _ in told] == expected
    assert crowded.scheduler.stats().preemptions > 0, "nobody gave way"
    assert crowded.tiers.hits[0] > 0, "nothing was parked"


def test_host_memory_that_is_wanted_elsewhere_is_given_back_and_the_tokens_stay(life, prompts, expected):
    """What is given back reads as zeros, since the system has it."""
    one = life()
    for prompt in prompts + prompts:
        one.ask(prompt)
    one.forget()
    memory, system = one.runner.tiers.host.memory.view(-1), mmap.PAGESIZE
    assert memory.count_nonzero() > 0
    one.scheduler.cache.keep_in_host(False)
    one.rest()
    assert one.tiers.counts()[0].pages == 0
    assert memory[: len(memory) // system * system].count_nonzero() == 0
    one.forget()
    assert [one.ask(prompt)[0][0] for prompt in prompts] == expected
    one.forget()
    assert memory[: len(memory) // system * system].count_nonzero() == 0, "kept again too early"
    one.scheduler.cache.keep_in_host(True)
    told = [one.ask(prompt)[0] for prompt in prompts]
    assert [tokens for tokens, _ in told] == expected
    assert sum(usage.cached_disk for _, usage in told) > 0, "disk has what it had"
    one.forget()
    assert one.tiers.counts()[0].pages > 0


@pytest.mark.parametrize("probes", [30, pytest.param(500, marks=pytest.mark.soak)])
def test_nobody_else_finds_it_in_any_tier(life, prompts, probes):
    """In pairs: who has never asked finds nothing, and the owner finds it all."""
    one = life()
    for _ in range(2):
        one.ask(*prompts)
    stages = {
        "device": lambda: one,
        "host": lambda: (one.forget(), one)[1],
        "disk": lambda: (one.forget(), one.forget(host=True), one)[2],
        "restart": lambda: life(),
    }
    for stage, enter in stages.items():
        engine = enter()
        for probe in range(probes):
            prompt, name = prompts[probe % PROMPTS], b"%s %d" % (stage.encode(), probe)
            who = {"tenant": name} if probe % 2 else {"tenant": b"acme", "weights": name.ljust(32, b"\0")}
            usage = engine.ask(prompt[:-1], new=1, **who)[0][1]
            assert usage.cached == 0, f"found in {stage}"
        for prompt in prompts[:6]:
            usage = engine.ask(prompt, new=1)[0][1]
            assert usage.cached == whole(prompt), f"the owner's own was not found in {stage}"


def test_a_session_kept_for_an_hour_comes_back_after_a_flood_and_a_restart(life, prompts):
    one = life(pages=64)
    one.ask(prompts[1], session=b"talk", keep_s=3600.0)
    noise = torch.Generator().manual_seed(5)
    flood = [torch.randint(0, 101, (40,), generator=noise).tolist() for _ in range(40)]
    for prompt in flood:
        one.ask(prompt)
    usage = one.ask(prompts[1], session=b"talk", keep_s=3600.0)[0][1]
    assert (usage.cached, usage.cached_host) == (whole(prompts[1]), 0), "held on the device"
    again = life(pages=64)
    usage = again.ask(prompts[1])[0][1]
    assert usage.cached_disk == whole(prompts[1])
    assert again.ask(flood[0])[0][1].cached_disk == 0, "nobody used it twice, or held it"


def test_a_dropped_session_is_nowhere(life, prompts):
    one = life()
    one.ask(prompts[1], session=b"talk", keep_s=3600.0)
    one.ask(prompts[3], session=b"other", keep_s=3600.0)
    one.rest()
    one.scheduler.cache.sessions.drop(b"talk")
    shared = 20  # of the other session
    assert one.ask(prompts[1][:-2])[0][1].cached == shared
    again = life()
    assert again.ask(prompts[1][:-2])[0][1].cached <= shared
    assert again.ask(prompts[3])[0][1].cached == whole(prompts[3])


def test_a_damaged_file_is_computed_again_to_the_same_tokens(life, prompts, expected):
    one = life()
    for _ in range(2):
        one.ask(*prompts)
    one.rest()
    files = list(one.runner.tiers.disk.root.rglob("*.kv"))
    assert files
    for index, path in enumerate(files):
        raw = bytearray(path.read_bytes())
        raw[(7919 * index) % len(raw)] ^= 1 + index % 255
        path.write_bytes(raw)
    again = life()
    assert [tokens for tokens, _ in again.ask(*prompts)] == expected
    assert again.tiers.bad > 0
    assert again.scheduler.stats().tiers[1].bad == again.tiers.bad
