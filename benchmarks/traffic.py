"""Open-loop traffic on an engine in this process: requests come when they are due, however busy it is.

Owns the loop and the stamps of what clients would see; times are seconds since the run began. No socket and no HTTP:
what is left is scheduling and the model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engines import engine_around
from benchmarks.load import percentile
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.counts import Stats
from tenantry.runtime.engine import Engine
from tenantry.runtime.messages import Finished, Refused, Sampling, Submit, Tokens
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.text import TextModel


@dataclass(frozen=True, slots=True)
class Ask:
    """due: seconds after the run began. prompt: token ids. draws: tokens of the answer, exactly."""

    due: float
    tenant: str
    prompt: tuple[int, ...]
    draws: int


@dataclass(slots=True)
class Heard:
    """times: of every token. ended: "length", or the code of a refusal; "" where the run was over before."""

    ask: Ask
    times: list[float] = field(default_factory=list)
    ended: str = ""

    @property
    def ttft(self) -> float:
        return self.times[0] - self.ask.due


@dataclass(frozen=True, slots=True)
class Run:
    heard: tuple[Heard, ...]
    stats: Stats

    def ttft(self, tenant: str, share: float) -> float:
        """Milliseconds, of those that had a token."""
        return percentile([1e3 * h.ttft for h in self.heard if h.ask.tenant == tenant and h.times], share)

    def silent(self, tenant: str) -> int:
        """Requests without a token: refused, or still waiting when the run was over. Their TTFT is in no figure."""
        return sum(h.ask.tenant == tenant and not h.times for h in self.heard)

    def gaps(self, tenant: str, share: float, begin: float = 0.0) -> float:
        """Milliseconds between tokens, from `begin` on."""
        found = [
            1e3 * (after - before)
            for h in self.heard
            if h.ask.tenant == tenant
            for before, after in zip(h.times, h.times[1:], strict=False)
            if before >= begin
        ]
        return percentile(found, share)


class Bench:
    """One model, loaded once; every run has a scheduler and an empty cache of its own."""

    def __init__(self, model: Path, threads: int, pages: int, most: ScheduleConfig) -> None:
        config = EngineConfig(model, model, "", model, threads=threads, cache=CacheConfig(pages=pages), schedule=most)
        self.pages = pages
        self.runner = ModelRunner(config)
        self.stops = StopWatch(TextModel.load(model))

    def engine(self, schedule: ScheduleConfig) -> Engine:
        cache = KvCache.alone(CacheConfig(pages=self.pages), self.runner.block_bytes)
        return engine_around(self.runner, schedule, cache, self.stops)

    def run(self, engine: Engine, asks: Sequence[Ask], until: float = float("inf")) -> Run:
        """Until everything has ended, or for so many seconds; what goes on then is aborted."""
        left = sorted(asks, key=lambda ask: ask.due, reverse=True)
        heard: dict[str, Heard] = {}
        began = time.perf_counter()
        while left or engine.has_work:
            now = time.perf_counter() - began
            if now >= until:
                break
            while left and left[-1].due <= now:
                ask = left.pop()
                name = f"{ask.tenant}#{len(heard)}"
                heard[name] = Heard(ask)
                namespace = Namespace(ask.tenant.encode(), bytes(32)).key
                sampling = Sampling(ask.draws, seed=len(heard), ignore_eos=True)
                submit = Submit(name, ask.prompt, sampling, namespace, None, ask.tenant)
                refused = engine.submit(submit, time.perf_counter())
                if refused is not None:
                    heard[name].ended = refused.code
            if not engine.has_work:
                time.sleep(max(0.0, min(left[-1].due - now, 0.05)))
                continue
            events = engine.step(time.perf_counter())
            at = time.perf_counter() - began
            for event in events:
                match event:
                    case Tokens():
                        heard[event.request_id].times += [at] * len(event.tokens)
                    case Finished():
                        heard[event.request_id].ended = event.reason
                    case Refused():
                        heard[event.request_id].ended = event.code
                    case _:
                        pass
            if not engine.computing and engine.has_work:
                time.sleep(0.0005)
        stats = engine.stats()
        for name, one in heard.items():
            if not one.ended:
                engine.abort(name, time.perf_counter())
        while engine.has_work:
            engine.step(time.perf_counter())
        return Run(tuple(heard.values()), stats)
