"""A scheduler without a device: requests whose tokens cost nothing to make, for tests of order and of time.

Owns the loop of plan and commit, and what each tenant got of it. Checks nothing but the core's own invariants.
"""

from collections import Counter
from random import Random

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Event, Finished, Refused, Sampling, Submit, Tokens
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.scheduler.fairness import Flow, Prices
from tenantry.runtime.scheduler.scheduler import Scheduler

VOCAB = 100
TOKENS = Prices(pool_s=0.0, credit=0.0)  # what is counted below, and nothing for time


class Crowd:
    """seconds: what a step takes, and more for each row that draws, and for each prompt token. noise: by what share
    of itself that is off. now: as it passes."""

    def __init__(
        self,
        pages: int = 64,
        page_size: int = 4,
        seconds: tuple[float, float, float] = (0.0, 0.0, 0.0),
        prices: Prices = TOKENS,
        noise: float = 0.0,
        **config,
    ) -> None:
        schedule = {"token_budget": 32, "max_running": 4, "max_context": 200} | config
        self.config = ScheduleConfig(**schedule)
        cache = KvCache.alone(CacheConfig(page_size, pages))
        self.core = Scheduler(self.config, cache, Residency(Budget(100)), (), VOCAB, prices)
        self.seconds, self.now = seconds, 0.0
        self.took: list[float] = []
        self._noise, self._rng = noise, Random(1)
        self.owner: dict[str, str] = {}
        self.served: Counter[str] = Counter()  # virtual tokens by tenant, weights apart
        self.ended: dict[str, Finished | Refused] = {}
        self.first: dict[str, float] = {}  # when its first token came
        self.steps: list[tuple[Row, ...]] = []
        self._reached: Counter[str] = Counter()

    def submit(
        self,
        key: str,
        prompt: int | tuple[int, ...] = 4,
        draws: int = 4,
        adapter: bytes | None = None,
        **fields,
    ) -> str:
        """A request with a prompt like no other's, if a length is given. Returns its id, refused or not."""
        name = f"{key}#{len(self.owner)}"
        tenant = key.partition("/")[0]
        if isinstance(prompt, int):
            at = len(self.owner)
            prompt = tuple((at // VOCAB**place) % VOCAB for place in range(min(3, prompt))) + (7,) * (prompt - 3)
        self.owner[name] = tenant
        namespace = Namespace(tenant.encode(), adapter or bytes(32)).key
        sampling = Sampling(max_tokens=draws, ignore_eos=True)
        submit = Submit(name, prompt, sampling, namespace, adapter, key, **fields)
        footprint = NONE if adapter is None else Footprint((10,))
        refused = self.core.add(submit, footprint, self.now)
        if refused is not None:
            self.hear([refused])
        return name

    def step(self) -> StepPlan | None:
        plan = self.core.plan(self.now)
        self.core.check()
        if plan is None:
            return None
        self.steps.append(plan.rows)
        by_id = self.core._sequences.by_id
        for row in plan.rows:
            request = by_id[row.sequence].request
            reached = min(row.start + len(row.tokens), request.prompt_length)
            new = reached - max(self._reached[request.id], row.start)
            self._reached[request.id] = max(self._reached[request.id], reached)
            self.served[self.owner[request.id]] += max(0, new)
        base, drawing, prompt = self.seconds
        prompts = sum(len(row.tokens) for row in plan.rows if len(row.tokens) > 1)
        took = base + drawing * sum(row.draw is not None for row in plan.rows) + prompt * prompts
        took *= max(0.5, self._rng.gauss(1.0, self._noise))
        self.took.append(took)
        rows = tuple(RowResult((8,) if row.draw else ()) for row in plan.rows)
        loaded = tuple(load.digest for load in plan.load)
        self.now += took
        events = self.core.commit(plan, StepResult(rows, loaded), self.now)
        if took:
            self.core.times.took(plan.rows, took)
        self.hear(events)
        return plan

    def hear(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Tokens):
                self.served[self.owner[event.request_id]] += 2 * len(event.tokens)
                self.first.setdefault(event.request_id, self.now)
            elif isinstance(event, Finished | Refused):
                self.ended[event.request_id] = event

    def drain(self) -> None:
        while self.core.has_work:
            assert self.step() is not None

    @property
    def started(self) -> list[str]:
        """Those that have a token, in the order in which the first came."""
        return sorted(self.first, key=lambda name: self.first[name])

    def flow(self, tenant: str) -> Flow:
        return self.core._ledger.tenants.flows[tenant]
