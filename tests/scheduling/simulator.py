"""The pure core under a seeded swarm: a fake runner with a shadow KV array, and every invariant after every event.

Numbers in assertions refer to the invariants: 1 partition, 2 references, 3 pages hold what was written for exactly
this prefix, 4 one root, 5 fence, 6 only complete finite pages are shared, 7 adapters, 8 limits, 9 one terminal event,
11 liveness and shares, 12 same tokens as an interpreter without cache or batch. runner.py makes those that a device
sees, audience.py those that clients see, laws.py those over time. 22 and 40 are faults (docs/faults.md).

Who makes which event happen: here arrivals, steps, chunks, drafts of which some stand, aborts (a disconnect is one),
preemption, yielding, eviction, loads and drops of adapters, deletion of a namespace or a tenant, host memory that is
wanted elsewhere, and the arena that shrinks one side for the other; in lower.py saving, writing and fetching pages
with every way to fail, and restarts over one disk; in elsewhere.py hand-offs both ways that begin, lie, fail, come
late, never come and are aborted; in tests/cache/test_sessions.py sessions that resume, fork and expire. Nobody
changes a tenant's share or the pool's size while it runs: neither can be changed. Money (10) is the database's:
tests/metering. Replay one seed with `PYTHONPATH=.src python -m tests.scheduling.swarm SEED STEPS`.
"""

from collections import Counter
from collections.abc import Callable
from random import Random

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.memory import Memory
from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.config import ArenaConfig, CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Event, Refused, Sampling, Submit
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import StepPlan, StepResult
from tenantry.runtime.scheduler.fairness import Prices
from tenantry.runtime.scheduler.finish import Hit
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Guess
from tenantry.runtime.speculative.tree import depths
from tests.scheduling.audience import Audience
from tests.scheduling.device import DeviceMemory
from tests.scheduling.elsewhere import WAITS, Elsewhere
from tests.scheduling.guessing import lucky_tree
from tests.scheduling.laws import Shares, forgotten, paced, shared_pages, single_flight
from tests.scheduling.lower import Disk, LowerMemory, nothing_under_way, within_limits
from tests.scheduling.runner import FakeRunner
from tests.scheduling.world import BASE, Client, World, mix, pieces, salt


class Simulator:
    """One scheduler, one fake device with or without tiers below it, other engines, many clients. Every public method
    is one event and ends with check(); who has only come to wait is looked at closely with the next of them. disk: of
    an earlier life, if there was one."""

    def __init__(self, world: World, disk: Disk | None = None) -> None:
        self.world = world
        self.rng = Random(world.seed ^ 0x5EED)
        if world.arena:
            floors = ArenaConfig(world.pages, world.block_bytes, world.kv_min, world.adapter_min, world.load_s)
            self.memory: Memory | None = Memory(floors, world.page_size)
            cache, self.residency = self.memory.cache, self.memory.residency
        else:
            self.memory = None
            cache = KvCache.alone(CacheConfig(world.page_size, world.pages))
            self.residency = Residency(Budget(world.adapter_limit))
        prices = Prices(pool_s=world.pool_s, credit=world.credit)
        self.scheduler = Scheduler(
            ScheduleConfig(
                world.budget, world.max_running, world.max_waiting, world.max_context, world.max_waiting_tenant,
                1e3 * world.itl_target, world.policy, 1e3 * world.delay,
            ),
            cache, self.residency, (world.end_token,), world.vocab, prices,
        )  # fmt: skip
        self.stopping: set[tuple[str, int]] = set()
        self.now = 0.0
        self.steps = 0
        self.plan: StepPlan | None = None  # not run yet
        self.verified: dict[int, object] = {}
        self.seen: Counter[str] = Counter()
        self.starts: dict[bytes, int] = {}
        self.gone: set[bytes] = set()  # namespaces deleted since anybody asked in them
        self.digests = [bytes([i + 1]) * 32 for i in range(len(world.adapter_sizes))]
        sizes = dict(zip(self.digests, world.adapter_sizes, strict=True))
        self.footprints = {digest: Footprint(pieces(size, digest[0])) for digest, size in sizes.items()}
        if world.below is not None:
            self.lower: LowerMemory | None = LowerMemory(
                world, self.footprints, world.below, disk or Disk(), self.seen
            )
            self.tiers = Tiers(world.below.slots, world.below.disk, world.below.tenant, 1)
            if world.below.disk:
                self.tiers.adopt(sorted(self.lower.disk.files, key=repr))
            cache.below(self.tiers)
            cache.share(world.below.least, world.below.most)
        else:
            self.lower = None
        device = self.lower or DeviceMemory(world, self.footprints)
        self.runner = FakeRunner(world, self.rng, cache.arena, device, self.footprints, self.seen)
        self.elsewhere = Elsewhere(world, cache, self.seen)
        self.audience = Audience(world, self.seen)
        self.clients, self.live = self.audience.clients, self.audience.live
        self.shares = Shares(world, prices)
        for tenant in range(world.tenants):
            for adapter in range(-1, len(self.digests)):
                self.starts[self.namespace(tenant, adapter)] = self.start(tenant, adapter)

    @staticmethod
    def start(tenant: int, adapter: int) -> int:
        """The state of the model's hash before any token: no two namespaces share one."""
        return mix(mix(7, tenant), adapter)

    def namespace(self, tenant: int, adapter: int) -> bytes:
        return Namespace(b"tenant%d" % tenant, BASE if adapter < 0 else self.digests[adapter]).key

    # Events

    def submit(
        self, prompt: tuple[int, ...], tenant: int = 0, adapter: int = -1, deadline: float = 0.0, key: int = 0,
        priority: int = 0, expect: bool = False, hand_off: bool = False, **sampling,
    ):  # fmt: skip
        """Returns the request's id, refused or not."""
        name = f"r{len(self.clients)}"
        submit: Submit | Refused = Submit(
            request_id=name,
            prompt=prompt,
            sampling=Sampling(**sampling),
            namespace=self.namespace(tenant, adapter),
            adapter=None if adapter < 0 else self.digests[adapter],
            share_key=f"tenant{tenant}/key{key}" if key else f"tenant{tenant}",
            deadline=deadline,
            priority=priority,
            weight=self.world.weights[tenant],
            expect=expect,
            hand_off=hand_off,
        )
        if hand_off:
            submit = self.elsewhere.exchange.outbox.take(submit)
            if isinstance(submit, Refused):
                return name  # too short
        n = max(submit.sampling.n, 1)
        start = self.start(tenant, adapter)
        hashes = [start]
        for token in submit.prompt:
            hashes.append(mix(hashes[-1], token))
        hashes = [hashes[1:] for _ in range(n)]
        nothing = [None] * n
        client = Client(submit, tenant, adapter, start, [[] for _ in range(n)], hashes, nothing, nothing[:])
        client.came = self.now
        self.clients[name] = self.live[name] = client
        self.gone.discard(submit.namespace)
        if hand_off:
            self.elsewhere.jobs[name] = client
        if not expect:
            self.add(client)
        elif (refused := self.scheduler.objection(submit, self.footprint(adapter))) is not None:
            self.audience.receive([refused])
        else:
            client.expected = True
            self.elsewhere.exchange.expect(submit, self.footprint(adapter), self.now)
            if adapter >= 0:
                self.scheduler.warm(self.digests[adapter], self.footprint(adapter))
        return name

    def add(self, client: Client) -> None:
        """To the scheduler: at once, or when its prompt has come or will not come."""
        client.submitted = self.now
        open_ones = [
            c for name, c in self.queued.items() if self.scheduler.usage(name) is not None
        ]  # not ended untold
        waiting = [c for c in open_ones if not c.started]
        own = sum(c.tenant == client.tenant for c in waiting)
        refused = self.scheduler.add(
            client.submit, self.footprint(client.adapter), self.now, client.elsewhere, self.now - client.came
        )
        if refused is not None:
            self.refused(refused, own, len(waiting))
            if self.elsewhere.jobs.pop(refused.request_id, None) is not None:
                self.elsewhere.exchange.outbox.refused(refused.request_id)
            self.audience.receive([refused])
        else:
            assert own < self.world.max_waiting_tenant, "8: more of a tenant's requests wait than may"
        self.scheduler._waiting.check()

    def footprint(self, adapter: int) -> Footprint:
        return NONE if adapter < 0 else self.footprints[self.digests[adapter]]

    @property
    def queued(self) -> dict[str, Client]:
        """Those that the scheduler has."""
        return {name: client for name, client in self.live.items() if not client.expected}

    def refused(self, answer: Refused, waiting: int, others: int) -> None:
        """11: nobody is refused for want of room or time where nobody waits, and who is hears when to come back."""
        if answer.code in ("overloaded", "too_many_waiting"):
            assert others, "11: refused though nobody waits"
            assert answer.retry_ms >= 1000, "11: refused without a time to come back"
        if answer.code == "too_many_waiting":
            assert waiting, "11: refused for a queue that is empty"
        if answer.param == "deadline":
            self.seen["refused early"] += 1

    def abort(self, name: str) -> None:
        self.expect_no_more(lambda submit: submit.request_id == name)
        self.scheduler.abort(name, self.now)
        self.seen["abort"] += 1
        self.check()

    def drop(self, adapter: int) -> None:
        self.scheduler.drop(self.digests[adapter])
        self.seen["drop"] += 1
        self.check()

    def forget(self, tenant: int, adapter: int, abort: bool) -> None:
        """An adapter of one tenant is deleted; abort: and revoked."""
        namespace = self.namespace(tenant, adapter)
        self.expect_no_more(lambda submit: submit.namespace == namespace)
        self.scheduler.drop_namespace(namespace, abort)
        self.gone.add(namespace)
        self.seen["revoked" if abort else "forgotten"] += 1
        self.check()

    def vanish(self, tenant: int, abort: bool) -> None:
        self.expect_no_more(lambda submit: submit.tenant == f"tenant{tenant}")
        self.scheduler.drop_tenant(f"tenant{tenant}", abort)
        self.gone.update(self.namespace(tenant, adapter) for adapter in range(-1, len(self.digests)))
        self.seen["vanished"] += 1
        self.check()

    def expect_no_more(self, which: Callable[[Submit], bool]) -> None:
        self.audience.receive(self.elsewhere.exchange.forget(which))

    def warm(self, adapter: int) -> None:
        self.scheduler.warm(self.digests[adapter], self.footprint(adapter))
        self.check()

    def press(self) -> None:
        """Host memory is wanted elsewhere, or no more."""
        self.scheduler.cache.keep_in_host(not self.tiers._slots.open)
        self.seen["grown" if self.tiers._slots.open else "shed"] += 1
        self.check()

    def finish(self, name: str, choice: int) -> None:
        """The next tokens of a choice will hold a stop string."""
        self.stopping.add((name, choice))

    def watch(self, name: str, choice: int, tokens) -> Hit | None:
        if (name, choice) not in self.stopping:
            return None
        self.stopping.discard((name, choice))
        client, kept = self.clients[name], self.rng.randint(1, len(tokens))
        client.stopped[choice] = len(client.outputs[choice]) + kept
        self.seen["stop string"] += 1
        return Hit(kept, "STOP")

    def step(self, in_flight=()) -> StepPlan | None:
        """Plan, let things happen while the step is in flight, run, commit."""
        self.steps += 1
        self.now += self.world.seconds[0]
        self.elsewhere.turn([client for client in self.live.values() if client.expected])
        for ready in self.elsewhere.exchange.before(self.now, self.scheduler.running):
            client = self.clients[ready.submit.request_id]
            client.expected, client.elsewhere = False, ready.elsewhere
            self.add(client)
        work = self.scheduler.has_work
        decoded, put_back = {c.sequence for c in self.scheduler.candidates()}, self.put_back
        first = Guess(None, self.rng.randrange(3), follow=self.rng.random() < 0.5)
        plan = self.scheduler.plan(self.now, self.guesses(), lambda sequence, adapter, prompt: first)
        if plan is None:
            self.idle(work)
            return None
        assert work, "11: has_work and plan disagree"
        self.plan = plan
        by_id = self.scheduler._sequences.by_id
        owners = {row.sequence: by_id[row.sequence] for row in plan.rows}
        asked = {at: (self.clients[s.request.id], s.choice) for at, s in owners.items()}
        self.check()
        self.seen["beside"] += single_flight(self.world, plan, asked, self.scheduler)
        if put_back == self.put_back:  # else one that would draw may be among those that come
            paced(self.world, plan, self.scheduler, decoded)
        sent = self.elsewhere.exchange.attach(plan, self.scheduler.owner)
        assert sent is not None
        for name in in_flight:
            self.abort(name)
        result = self.runner.run(sent, asked, self.now)
        self.elsewhere.after(sent, result)
        self.plan = None
        took = self.seconds(plan)
        self.now += took - self.world.seconds[0]
        self.hear(self.scheduler.commit(plan, result, self.now, self.watch))
        self.scheduler.times.took(plan.rows, took)
        self.shares.step(plan, asked, self.queued)
        self.check()
        return plan

    def idle(self, work: bool) -> None:
        """Nothing is planned: there is nothing to do but to write what arrives, or pages are reserved for expected
        prompts, or one waits for company."""
        if not work:
            assert not self.queued, "9: live requests, and nothing to do"
        elif self.elsewhere.reserved:
            self.seen["held up"] += 1
        else:
            self.delayed()
        sent = self.elsewhere.exchange.attach(None, self.scheduler.owner)
        if sent is not None:
            result = self.runner.run(sent, {}, self.now)
            assert result == StepResult((), arrived=result.arrived), (
                "7: a load or a copy ended, and nobody hears of it"
            )
            self.elsewhere.after(sent, result)
        self.check()

    def hear(self, events: list[Event]) -> None:
        self.audience.receive(events)
        self.elsewhere.told(events, self.now)

    @property
    def put_back(self) -> int:
        return self.scheduler._sequences.preemptions + self.scheduler._sequences.yielded

    def seconds(self, plan: StepPlan) -> float:
        step, row, token = self.world.seconds
        prompts = sum(len(row.tokens) for row in plan.rows if len(row.tokens) > 1)
        return step + row * sum(len(row.tokens) == 1 for row in plan.rows) + token * prompts

    def delayed(self) -> None:
        """11: company is waited for while nobody runs, and no longer than was said."""
        self.seen["delayed"] += 1
        first = min(client.submitted for client in self.queued.values())
        assert self.now < first + self.world.delay, "11: waits for company for too long"
        assert not any(client.started for client in self.live.values()), "11: lets others stand still for company"

    def guesses(self) -> dict[int, Guess]:
        """Drafts for some of those that will draw: right as far as luck has it. Not before the minimum of tokens."""
        found = {}
        for candidate in self.scheduler.candidates():
            if self.rng.random() >= self.world.guesses or candidate.room < 1:
                continue
            owner = self.scheduler._sequences.by_id[candidate.sequence]
            client = self.clients[owner.request.id]
            state, own = client.hashes[owner.choice][-1], salt(client.submit, owner.choice)
            tree = lucky_tree(self.rng, state, own, self.world.vocab, candidate.room)
            ahead = self.rng.randint(0, max(0, candidate.room - max(depths(tree)) - 1))
            found[candidate.sequence] = Guess(tree, ahead, self.rng.choice((0, 2 * ahead)))
        return found

    # Invariants

    def check(self) -> None:
        self.scheduler.check(self.elsewhere.exchange.intake.leases)
        if self.lower is not None:
            within_limits(self.lower, self.tiers, self.plan)
        if self.memory is not None:
            self.memory.check()
            self.runner.memory.fenced(self.plan, self.memory.arena)
        if self.gone:
            forgotten(self.scheduler.cache, self.gone - {client.submit.namespace for client in self.live.values()})
        self.verified = shared_pages(self.world, self.scheduler, self.runner, self.plan, self.starts, self.verified)
        for name, client in self.live.items():
            usage = self.scheduler.usage(name)
            if usage is not None:
                old = client.usage
                assert usage.prompt >= old.prompt, "9: prompt count fell"
                assert usage.cached >= old.cached, "9: cached count fell"
                assert usage.completion >= old.completion, "9: completion count fell"
                client.usage = usage

    def drain(self) -> None:
        """11, 9: without new work everything ends, within a bound; then nothing is held."""
        work = sum(
            c.submit.sampling.n * (len(c.submit.prompt) + c.submit.sampling.max_tokens) for c in self.live.values()
        )
        patience = self.world.delay / self.world.seconds[0] + 2 * WAITS
        bound = self.steps + 50 + 2 * work + (len(self.live) + 1) * (self.world.load_delay + 2) * 2 + patience
        while self.scheduler.has_work or self.elsewhere.exchange.has_work:
            assert self.steps < bound, "11: starved"
            self.step()
        assert not self.live, "9: requests without a terminal event"
        self.hear(self.scheduler.take_events())
        self.elsewhere.nothing_left(self.now)
        cache, stats = self.scheduler.cache, self.scheduler.stats()
        assert (stats.running, stats.waiting) == (0, 0), "9: queues are not empty"
        assert stats.pages_free + stats.pages_cached == stats.pages_total, "1: pages lost"
        assert cache.tree.pinned == 0, "2: locks held"
        assert all(o.users == 0 for o in self.residency.occupants()), "7: adapters held"
        assert not self.runner.loading, "7: loads pending"
        cache.tree.evict(stats.pages_total)
        assert cache.arena.free_count == stats.pages_total, "9: pages left after a flush"
        self.verified = {}
        if self.lower is not None:
            for _ in range(300 + 3 * len(self.tiers._transfers.behind)):  # what the last eviction left to be copied
                if not self.scheduler.has_work:
                    break
                self.step()
            assert not self.scheduler.has_work, "11: copies that never end"
            nothing_under_way(self.lower, self.tiers)
