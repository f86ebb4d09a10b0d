"""An engine's lives over one model in this process: scheduler, cache, tiers and runner, without a socket.

Owns making one, asking it and ending it, for benchmarks that compare what a life remembers of an earlier one.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import EngineConfig
from tenantry.runtime.messages import Event, Finished, Refused, Sampling, Submit, Tokens, Usage
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.model.tiers import LowerTiers
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.scheduler import Scheduler

BASE = bytes(32)
GREEDY: Final[Mapping[str, Any]] = {"temperature": 0.0}


@dataclass
class Told:
    """tokens: what was drawn. first_s: seconds from the request to its first token."""

    tokens: list[int] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    first_s: float = 0.0


class Life:
    """tiers: False for none, whatever the config says. forgetful: every request in a namespace of its own."""

    def __init__(
        self, runner: ModelRunner, config: EngineConfig, tiers: bool = True, forgetful: bool = False
    ) -> None:
        self.runner, self.config, self.forgetful = runner, config, forgetful
        self.cache = KvCache.alone(config.cache, runner.block_bytes)
        runner.tiers = LowerTiers(config, [runner.pool], runner.model_digest) if tiers else None
        if runner.tiers is not None:
            self.cache.below(runner.tiers.books())
        residency = Residency(Budget(config.adapter_bytes))
        self.scheduler = Scheduler(config.schedule, self.cache, residency, runner.end_tokens, runner.vocab_size)
        self._told: dict[str, tuple[float, Told]] = {}
        self._asked = 0

    def ask(
        self, prompts: Sequence[Sequence[int]], new: int, tenant: bytes = b"tenant", **options: Any
    ) -> list[Told]:
        """All at once; greedy, to the last token."""
        return self.answers([self.submit(prompt, new, tenant, **options) for prompt in prompts])

    def answers(self, names: Sequence[str]) -> list[Told]:
        """When all of these have ended, in their order."""
        while any(not self._told[name][1].usage.prompt for name in names):
            self.step()
        return [self._told.pop(name)[1] for name in names]

    def submit(
        self,
        prompt: Sequence[int],
        new: int,
        tenant: bytes = b"tenant",
        adapter: bytes | None = None,
        drawn: Mapping[str, Any] = GREEDY,
        **options: Any,
    ) -> str:
        """adapter: its digest, or None for the base. drawn: fields of Sampling. Returns the request's name."""
        self._asked += 1
        name = f"r{self._asked}"
        scope = tenant + name.encode() if self.forgetful else tenant
        sampling = Sampling(max_tokens=new, ignore_eos=True, **drawn)
        namespace = Namespace(scope, adapter or BASE).key
        submit = Submit(name, tuple(prompt), sampling, namespace, adapter, tenant.hex(), **options)
        footprint = NONE if adapter is None else self.runner.footprint(adapter)
        now = time.monotonic()
        refused = self.scheduler.add(submit, footprint, now)
        if refused is not None:
            raise RuntimeError(refused.message)
        self._told[name] = now, Told()
        return name

    def step(self) -> None:
        now = time.monotonic()
        plan = self.scheduler.plan(now)
        if plan is None:
            return
        if not plan.rows:
            time.sleep(0.0005)  # as the worker does while it waits for threads
        result = self.runner.run(plan)
        if plan.rows:
            self.scheduler.times.took(plan.rows, result.seconds)
        for event in self.scheduler.commit(plan, result, time.monotonic()):
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Tokens):
            began, told = self._told[event.request_id]
            told.first_s = told.first_s or time.monotonic() - began
            told.tokens += event.tokens
        elif isinstance(event, Finished):
            self._told[event.request_id][1].usage = event.usage
        elif isinstance(event, Refused):
            raise RuntimeError(event.message)

    def rest(self) -> None:
        """Until everything that is to be copied is."""
        while self.scheduler.has_work:
            self.step()

    def evict(self) -> None:
        """The device lets go of everything it may."""
        self.cache.tree.evict(self.config.cache.pages)
        self.rest()

    def end(self) -> None:
        """The next life finds the model alone, and what its disk has."""
        self.rest()
        self.runner.run(StepPlan(0, (), evict=tuple(self.runner.adapters.resident)))
        if self.runner.tiers is not None:
            self.runner.tiers.close()
            self.runner.tiers = None

    def again(self, **changes: Any) -> "Life":
        """The next life, with another configuration if wanted, over the same disk."""
        self.end()
        return Life(self.runner, replace(self.config, **changes), forgetful=self.forgetful)
