"""The pure core under a seeded swarm: a fake runner with a shadow KV array, and every invariant after every event.

Numbers in assertions refer to the invariants: 1 partition, 2 references, 3 pages hold what was written for exactly
this prefix, 4 one root, 5 fence, 6 only complete finite pages are shared, 7 adapters, 8 limits, 9 one terminal event,
11 liveness, 12 same tokens as an interpreter without cache or batch. Replay one seed with
`PYTHONPATH=.src python -m tests.scheduling.swarm SEED STEPS`.
"""

from array import array
from collections import Counter
from random import Random

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget, Footprint
from tenantry.runtime.cache.arena import BlockClass
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.memory import Memory
from tenantry.runtime.config import ArenaConfig, CacheConfig, ScheduleConfig
from tenantry.runtime.messages import (
    ChoiceFinished,
    Event,
    Finished,
    Refused,
    Sampling,
    Submit,
    Tokens,
)
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.scheduler.finish import Hit
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Guess
from tenantry.runtime.speculative.tree import depths
from tests.scheduling.device import DeviceMemory
from tests.scheduling.guessing import Cells, lucky_tree, verdict
from tests.scheduling.world import BASE, Client, World, mix, pick, pieces


class Simulator:
    """One scheduler, one fake device, many clients. Every public method is one event and ends with check()."""

    def __init__(self, world: World) -> None:
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
        self.scheduler = Scheduler(
            ScheduleConfig(world.budget, world.max_running, world.max_waiting, world.max_context),
            cache,
            self.residency,
            (world.end_token,),
            world.vocab,
        )
        self.stopping: set[tuple[str, int]] = set()
        self.now = 0.0
        self.steps = 0
        self.plan: StepPlan | None = None  # not run yet
        self.clients: dict[str, Client] = {}
        self.live: dict[str, Client] = {}
        self.device: set[bytes] = set()
        self.loading: dict[bytes, int] = {}
        self.verified: dict[int, object] = {}
        self.seen: Counter[str] = Counter()
        self.turns: Counter[int] = Counter()
        self.starts: dict[bytes, int] = {}
        self.digests = [bytes([i + 1]) * 32 for i in range(len(world.adapter_sizes))]
        sizes = dict(zip(self.digests, world.adapter_sizes, strict=True))
        self.footprints = {digest: Footprint(pieces(size, digest[0])) for digest, size in sizes.items()}
        self.memory_of_device = DeviceMemory(world, self.footprints)
        self.kv = self.memory_of_device.cells
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

    def submit(self, prompt: tuple[int, ...], tenant: int = 0, adapter: int = -1, deadline: float = 0.0, **sampling):
        """Returns the request's id, refused or not."""
        name = f"r{len(self.clients)}"
        submit = Submit(
            request_id=name,
            prompt=prompt,
            sampling=Sampling(**sampling),
            namespace=self.namespace(tenant, adapter),
            adapter=None if adapter < 0 else self.digests[adapter],
            share_key=f"tenant{tenant}",
            deadline=deadline,
        )
        n = max(submit.sampling.n, 1)
        start = self.start(tenant, adapter)
        hashes = [start]
        for token in prompt:
            hashes.append(mix(hashes[-1], token))
        client = Client(
            submit,
            tenant,
            adapter,
            start,
            [[] for _ in range(n)],
            [hashes[1:] for _ in range(n)],
            [None] * n,
            [None] * n,
            submitted=self.now,
            ahead=sum(1 for c in self.live.values() if c.tenant == tenant and not c.started),
            others=sum(n for t, n in self.turns.items() if t != tenant),
        )
        self.clients[name] = self.live[name] = client
        footprint = NONE if adapter < 0 else self.footprints[self.digests[adapter]]
        refused = self.scheduler.add(submit, footprint, self.now)
        if refused is not None:
            self.receive([refused])
        self.check()
        return name

    def abort(self, name: str) -> None:
        self.scheduler.abort(name, self.now)
        self.seen["abort"] += 1
        self.check()

    def drop(self, adapter: int) -> None:
        self.scheduler.drop(self.digests[adapter])
        self.seen["drop"] += 1
        self.check()

    def warm(self, adapter: int) -> None:
        self.scheduler.warm(self.digests[adapter], self.footprints[self.digests[adapter]])
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
        self.now += 1.0
        work = self.scheduler.has_work
        plan = self.scheduler.plan(self.now, self.guesses(), self.rng.randrange(3))
        assert work == (plan is not None), "11: has_work and plan disagree"
        if plan is None:
            assert not self.live, "9: live requests, and nothing to do"
            self.check()
            return None
        self.plan = plan
        owners = {s.id: (s.request.id, s.choice) for s in self.scheduler._sequences.by_id.values()}
        self.check()
        for name in in_flight:
            self.abort(name)
        result = self.run(plan, owners)
        self.plan = None
        self.receive(self.scheduler.commit(plan, result, self.now, self.watch))
        self.check()
        return plan

    def guesses(self) -> dict[int, Guess]:
        """Drafts for some of those that will draw: right as far as luck has it. Not before the minimum of tokens."""
        found = {}
        for candidate in self.scheduler.candidates():
            if self.rng.random() >= self.world.guesses or candidate.room < 1:
                continue
            owner = self.scheduler._sequences.by_id[candidate.sequence]
            client = self.clients[owner.request.id]
            state, salt = client.hashes[owner.choice][-1], self.salt(client, owner.choice)
            tree = lucky_tree(self.rng, state, salt, self.world.vocab, candidate.room)
            ahead = self.rng.randint(0, max(0, candidate.room - max(depths(tree)) - 1))
            found[candidate.sequence] = Guess(tree, ahead, self.rng.choice((0, 2 * ahead)))
        return found

    # The device

    def run(self, plan: StepPlan, owners: dict[int, tuple[str, int]]) -> StepResult:
        world, memory = self.world, self.memory_of_device
        for digest in plan.evict:
            assert digest in self.device, "7: eviction of an adapter that is not there"
            self.device.discard(digest)
            memory.evict(digest)
        memory.move(plan)
        for load in plan.load:
            assert load.digest not in self.device, "7: load of a resident adapter"
            assert load.digest not in self.loading, "7: loaded twice"
            self.loading[load.digest] = world.load_delay
            memory.place(load)
        resident = self.device | self.loading.keys()
        total = sum((memory.held if d in self.device else self.footprints)[d].bytes for d in resident)
        assert world.arena or total <= world.adapter_limit, "7: more than its bytes"
        memory.pages_within_floor({page for row in plan.rows for page in row.pages})
        assert sum(map(computed, plan.rows)) <= world.budget, "8: over the token budget"
        assert len({r.sequence for r in plan.rows}) == len(plan.rows) <= world.max_running, "8: too many rows"
        writes: Counter[int] = Counter()
        rows = tuple(self.row(row, *owners[row.sequence], writes) for row in plan.rows)
        assert not writes or max(writes.values()) == 1, "1: two rows write one page"
        loaded, failed = [], []
        for digest in list(self.loading):
            memory.write(digest)
            if self.loading[digest] > 0:
                self.loading[digest] -= 1
                continue
            del self.loading[digest]
            if self.rng.random() < world.load_fails:
                memory.evict(digest)
                failed.append((digest, "injected"))
                self.seen["load failed"] += 1
            else:
                loaded.append(digest)
                self.device.add(digest)
                self.seen["loaded"] += 1
        held = {d: memory.held[d].pieces for d in loaded if memory.held[d] != self.footprints[d]}
        self.seen["held less"] += len(held)
        return StepResult(rows, tuple(loaded), tuple(failed), held=held)

    def row(self, row: Row, name: str, choice: int, writes: Counter[int]) -> RowResult:
        client, size = self.clients[name], self.world.page_size
        tokens, hashes = client.tokens(choice), client.hashes[choice]
        arena = self.scheduler.cache.arena
        start, end = row.start, row.start + len(row.tokens)
        assert row.adapter == client.submit.adapter, "7: the wrong adapter"
        assert row.adapter is None or row.adapter in self.device, "7: the adapter is not resident"
        if row.adapter is not None:
            self.memory_of_device.read(row.adapter)
        reach = end + (len(row.draft.tokens) if row.draft is not None else 0) + max(row.ahead, row.nodes)
        assert start < end <= reach <= len(row.pages) * size, "3: positions outside of the block table"
        assert list(row.tokens) == tokens[start:end], "12: other tokens than the request's"
        assert (row.draw is not None) == (end == len(tokens)), "12: a draw elsewhere than at the end"
        if client.first_start is None:
            client.first_start = start
            self.first_row(client)
            self.seen["hit" if start else "miss"] += 1
        poisoned = False
        for index in range(-(-reach // size)):
            page, low = row.pages[index], index * size
            kind = arena.class_of(page)
            assert kind not in (BlockClass.FREE, BlockClass.ADAPTER), "5: a page in use is not a page"
            cells = self.kv[page]
            for at in range(low, min(low + size, start)):
                if cells[at - low] == -1 - row.sequence:
                    poisoned = True
                else:
                    assert cells[at - low] == hashes[at], "3: read a page that was not written for this prefix"
            if low + size > start:
                assert kind is not BlockClass.TREE, "6: write into a shared page"
                writes[page] += 1
        if self.rng.random() < self.world.nan:
            poisoned = True
        for at in range(start, end):
            self.kv[row.pages[at // size]][at % size] = -1 - row.sequence if poisoned else hashes[at]
        if row.draw is None:
            self.seen["chunk"] += 1
            return RowResult()
        if poisoned:
            self.seen["fault"] += 1
            return RowResult(fault="non-finite logits")
        assert list(row.draw.history) == tokens, "12: another history than the request's"
        assert (row.draw.position, row.draw.prompt_length) == (len(tokens), len(client.submit.prompt))
        minimum = client.submit.sampling.min_tokens
        told = len(client.outputs[choice])

        def draw(state: int, count: int) -> int:
            forbidden = row.draw.forbidden if told + count < minimum else ()
            return pick(state, self.salt(client, choice), self.world.vocab, forbidden)

        if row.draft is not None:
            drawn = verdict(row.draft, hashes[-1], Cells(self.kv, row.pages, size, end), draw)
            self.seen["guess"] += len(drawn) - 1
            self.seen["branch"] += not row.draft.is_chain
            client.drafted += len(row.draft.tokens)
            client.standing[choice] = len(drawn) - 1
            return RowResult(tuple(drawn), accepted=len(drawn) - 1)
        drawn, state = [draw(hashes[-1], 0)], hashes[-1]
        while told + len(drawn) > minimum and self.rng.random() < self.world.burst:
            self.seen["burst"] += 1
            state = mix(state, drawn[-1])
            drawn.append(draw(state, len(drawn)))
        return RowResult(tuple(drawn))

    def first_row(self, client: Client) -> None:
        """11: nothing starts late; where no adapter is waited for, other keys had one turn for each of its own."""
        client.started = True
        self.turns[client.tenant] += 1
        deadline = client.submit.deadline
        assert not deadline or self.now < client.submitted + deadline, "11: an expired request is prefilled"
        if not self.world.adapter_sizes:
            others = sum(n for t, n in self.turns.items() if t != client.tenant) - client.others
            assert others <= (client.ahead + 1) * (self.world.tenants - 1), "11: another key took its turn"

    @staticmethod
    def salt(client: Client, choice: int) -> int:
        return client.submit.sampling.seed * 31 + choice

    def reference(self, client: Client, choice: int) -> tuple[list[int], str, int | None]:
        """Tokens, reason and matched id as an interpreter without cache, batch or scheduler gives them."""
        sampling, state = client.submit.sampling, client.start
        stops = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else {self.world.end_token})
        for token in client.submit.prompt:
            state = mix(state, token)
        output: list[int] = []
        while True:
            early = len(output) < sampling.min_tokens
            token = pick(state, self.salt(client, choice), self.world.vocab, tuple(stops) if early else ())
            output.append(token)
            state = mix(state, token)
            if token in stops and not early:
                return output, "stop", token if token in sampling.stop_token_ids else None
            if len(output) == sampling.max_tokens:
                return output, "length", None

    # What clients hear

    def receive(self, events: list[Event]) -> None:
        for event in events:
            client = self.clients[event.request_id]
            assert client.terminal is None, f"9: {event} after the terminal event"
            if isinstance(event, Tokens):
                assert event.tokens, "9: an empty Tokens"
                assert client.reasons[event.choice] is None, "9: tokens of an ended choice"
                client.accepted += min(client.standing.pop(event.choice, 0), len(event.tokens))
                for token in event.tokens:
                    client.outputs[event.choice].append(token)
                    client.hashes[event.choice].append(mix(client.hashes[event.choice][-1], token))
            elif isinstance(event, ChoiceFinished):
                assert client.reasons[event.choice] is None, "9: a choice ended twice"
                client.reasons[event.choice] = event.reason
                client.matched[event.choice] = event.matched
            else:
                client.terminal = event
                del self.live[event.request_id]
                self.judge(client)

    def judge(self, client: Client) -> None:
        """Everything a finished request must satisfy, seen from outside."""
        event = client.terminal
        if isinstance(event, Refused):
            assert not client.started, "9: refused after it ran"
            assert event.code != "invalid_namespace", "4: two adapters in one namespace"
            self.seen[f"refused {event.code}"] += 1
            return
        assert isinstance(event, Finished)
        self.seen[f"finished {event.reason}"] += 1
        usage, prompt = event.usage, client.submit.prompt
        assert usage.completion == sum(map(len, client.outputs)), "9: completion tokens miscounted"
        assert usage.cached <= usage.prompt <= len(prompt), "9: prompt tokens miscounted"
        assert usage.cached in (0, client.first_start), "9: cached tokens are not those of the first lease"
        assert usage.prompt == len(prompt) or not usage.completion, "9: prompt not counted"
        if usage.prompt:
            assert usage.cached == client.first_start, "9: cached tokens miscounted"
        if event.reason in ("stop", "length"):
            assert None not in client.reasons, "9: finished with a choice open"
            assert (usage.drafted, usage.accepted) == (client.drafted, client.accepted), "9: guesses miscounted"
        for choice, output in enumerate(client.outputs):
            tokens, reason, matched = self.reference(client, choice)
            assert output == tokens[: len(output)], "12: other tokens than the reference's"
            if choice in client.stopped:
                assert (client.reasons[choice], client.matched[choice]) == ("stop", "STOP"), "9: stop string lost"
                assert len(output) == client.stopped[choice], "9: text beyond the stop string"
            elif client.reasons[choice] is not None:
                assert output == tokens, "12: ended elsewhere than the reference"
                assert (client.reasons[choice], client.matched[choice]) == (reason, matched), "12: another reason"

    # Invariants

    def check(self) -> None:
        self.scheduler.check()
        if self.memory is not None:
            self.memory.check()
            self.memory_of_device.fenced(self.plan, self.memory.arena)
        self.check_shared_pages()
        for name, client in self.live.items():
            usage = self.scheduler.usage(name)
            if usage is not None:
                old = client.usage
                assert usage.prompt >= old.prompt, "9: prompt count fell"
                assert usage.cached >= old.cached, "9: cached count fell"
                assert usage.completion >= old.completion, "9: completion count fell"
                client.usage = usage

    def check_shared_pages(self) -> None:
        """3, 4, 6: what the tree says a page holds is what was written there, for that namespace, and finite."""
        tree, current = self.scheduler.cache.tree, {}
        moves = self.plan.moves if self.plan is not None else ()
        self.unmoved = {to: page for page, to in (*moves, *self.scheduler.cache.arena.pending)}
        for node in tree:
            current[node.page] = node
            if self.verified.get(node.page) is node:
                continue
            path, at = [], node
            while at.parent is not None:
                path.append(at.key)
                at = at.parent
            state = self.starts[at.root.namespace]
            expected: list[int] = []
            for key in reversed(path):
                expected = []
                for token in array("I", key):
                    state = mix(state, token)
                    expected.append(state)
            cells = self.kv[self.unmoved.get(node.page, node.page)][: self.world.page_size]
            assert cells == expected, "3, 6: a shared page holds something else"
        self.verified = current
        self.memory_of_device.pages_within_floor(current.keys())

    def drain(self) -> None:
        """11, 9: without new work everything ends, within a bound; then nothing is held."""
        work = sum(
            c.submit.sampling.n * (len(c.submit.prompt) + c.submit.sampling.max_tokens) for c in self.live.values()
        )
        bound = self.steps + 50 + 2 * work + (len(self.live) + 1) * (self.world.load_delay + 2) * 2
        while self.scheduler.has_work:
            assert self.steps < bound, "11: starved"
            self.step()
        assert not self.live, "9: requests without a terminal event"
        self.receive(self.scheduler.take_events())
        cache, stats = self.scheduler.cache, self.scheduler.stats()
        assert (stats.running, stats.waiting) == (0, 0), "9: queues are not empty"
        assert stats.pages_free + stats.pages_cached == stats.pages_total, "1: pages lost"
        assert cache.tree.pinned == 0, "2: locks held"
        assert all(o.users == 0 for o in self.residency.occupants()), "7: adapters held"
        assert not self.loading, "7: loads pending"
        cache.tree.evict(stats.pages_total)
        assert cache.arena.free_count == stats.pages_total, "9: pages left after a flush"
        self.verified = {}


def computed(row: Row) -> int:
    """Tokens of a row, guesses included."""
    return len(row.tokens) + (len(row.draft.tokens) if row.draft is not None else 0)
