"""Requests through an engine and its runner in one process, with guesses or without, and what each step took.

Owns the serving half of benchmarks.speculation: the engine around a runner, the clock around its steps, and the
oracle, a proposer that knows what will be drawn and is right as often as it is told to be.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import msgspec

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.adapters.store import LocalStore
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.engine import Engine, Runner
from tenantry.runtime.messages import Finished, Guessing, Sampling, Submit, Tokens
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.speculative.tree import DraftTree
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.text import TextModel

CONTEXT = 1024
PAGES = 6144


@dataclass(frozen=True, slots=True)
class Ask:
    """adapter: its digest, or None for the base."""

    adapter: bytes | None
    prompt: tuple[int, ...]
    new: int
    ignore_eos: bool = False


class Silent:
    """A journal for nobody."""

    def append(self, records: Sequence[object]) -> None:
        pass


@dataclass(slots=True)
class Step:
    """One decode step: rows and guesses judged, tokens drawn; seconds of the whole engine step, of its model's
    forward pass, and of guessing for the next one."""

    rows: int
    nodes: int
    tokens: int
    whole: float
    model: float
    guessing: float


@dataclass(slots=True)
class Run:
    """One set of requests served to its end. texts: what each request drew. counts: what guessing came to."""

    seconds: float = 0.0
    tokens: int = 0
    steps: list[Step] = field(default_factory=list)
    texts: list[tuple[int, ...]] = field(default_factory=list)
    counts: tuple[Guessing, ...] = ()

    def decoding(self, rows: int) -> list[Step]:
        """Decode steps of full batches."""
        return [step for step in self.steps if step.rows == rows]


class Timed:
    """Remembers what the last step was and took."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.plan: StepPlan | None = None
        self.result: StepResult | None = None

    def run(self, plan: StepPlan) -> StepResult:
        self.plan, self.result = plan, self._runner.run(plan)
        return self.result


class Oracle:
    """Guesses what `truths` says follows a prompt, each token right with chance `knows` as long as those before it
    are, in no time."""

    KIND = "oracle"

    def __init__(self, runner: Runner, knows: float, vocab: int, seed: int = 0) -> None:
        self.truths: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._runner, self._knows, self._vocab = runner, knows, vocab
        self._noise = random.Random(seed)

    def run(self, plan: StepPlan) -> StepResult:
        result = self._runner.run(plan)
        rows = [self._guess(row, found) for row, found in zip(plan.rows, result.rows, strict=True)]
        return StepResult(tuple(rows), result.loaded, result.failed, result.seconds, result.guessing_seconds)

    def _guess(self, row: Row, result: RowResult) -> RowResult:
        if row.draw is None or not row.ahead:
            return result
        prompt = tuple(row.draw.history[: row.draw.prompt_length])
        at = row.draw.position - row.draw.prompt_length + len(result.tokens)
        tokens = [
            token if self._noise.random() < self._knows else (token + 1) % self._vocab
            for token in self.truths[prompt][at : at + row.ahead]
        ]
        if not tokens:
            return result
        return msgspec.structs.replace(result, proposal=DraftTree.chain(tokens, kind=self.KIND))


def serve(
    runner: Runner, model: ModelRunner, text: TextModel, store: LocalStore, asks: Sequence[Ask], batch: int,
    speculator: Speculator | None,
) -> Run:  # fmt: skip
    """All requests at once, `batch` of them at a time, through a fresh cache. model: the one behind the runner."""
    schedule = ScheduleConfig(token_budget=256 + 8 * batch, max_running=batch, max_context=CONTEXT)
    cache, residency = KvCache.alone(CacheConfig(pages=PAGES)), Residency(Budget(1 << 30))
    scheduler = Scheduler(schedule, cache, residency, model.end_tokens, model.vocab_size)
    model.run(StepPlan(0, (), evict=tuple(model.adapters.resident)))
    timed = Timed(runner)

    def footprint(digest: bytes) -> Footprint:
        return Footprint((store.size(digest),))

    engine = Engine(scheduler, timed, Silent(), StopWatch(text), footprint, speculator)
    adapters = {ask.adapter for ask in asks if ask.adapter is not None}
    for digest in adapters:
        engine.warm(digest)
    while len(model.adapters.resident) < len(adapters):
        engine.step(0.0)
    run = Run(texts=[()] * len(asks))
    for i, ask in enumerate(asks):
        sampling = Sampling(max_tokens=ask.new, temperature=0.0, ignore_eos=ask.ignore_eos)
        namespace = ask.adapter or bytes(32)
        refused = engine.submit(Submit(str(i), ask.prompt, sampling, namespace, ask.adapter, "t"), 0.0)
        assert refused is None, refused
    began = perf_counter()
    while engine.has_work:
        step = perf_counter()
        events = engine.step(0.0)
        whole = perf_counter() - step
        for event in events:
            if isinstance(event, Tokens):
                run.texts[int(event.request_id)] += event.tokens
            elif isinstance(event, Finished):
                run.tokens += event.usage.completion
        plan, result = timed.plan, timed.result
        if plan is not None and result is not None and plan.rows and all(len(r.tokens) == 1 for r in plan.rows):
            nodes = sum(len(row.draft.tokens) for row in plan.rows if row.draft is not None)
            tokens = sum(len(row.tokens) for row in result.rows)
            run.steps.append(Step(len(plan.rows), nodes, tokens, whole, result.seconds, result.guessing_seconds))
    run.seconds = perf_counter() - began
    run.counts = engine.guesses()
    return run


@dataclass(slots=True)
class Pairs:
    """Runs off and on, by turns, of the same requests in the same batch."""

    batch: int
    off: list[Run] = field(default_factory=list)
    on: list[Run] = field(default_factory=list)

    @property
    def speed_up(self) -> float:
        """Whole runs, prompts and all: median of the pairs."""
        return median(
            (on.tokens / on.seconds) / (off.tokens / off.seconds) for off, on in zip(self.off, self.on, strict=True)
        )

    @property
    def decode_speed_up(self) -> float:
        """Full decode steps alone, the engine's own work included."""
        return median(
            _rate(on, self.batch) / _rate(off, self.batch) for off, on in zip(self.off, self.on, strict=True)
        )

    @property
    def tokens_per_step(self) -> float:
        steps = [step for run in self.on for step in run.decoding(self.batch)]
        return sum(step.tokens for step in steps) / sum(step.rows for step in steps)

    @property
    def node_steps(self) -> float:
        """Guesses judged per row and step."""
        steps = [step for run in self.on for step in run.decoding(self.batch)]
        return sum(step.nodes for step in steps) / sum(step.rows for step in steps)

    @property
    def predicted(self) -> float:
        """tau / (v + c), performance.md 3.4: tokens per row and step over what model and guessing took for them, in
        units of a plain step. What the engine itself does in between is not in it."""
        plain = median(step.model for run in self.off for step in run.decoding(self.batch))
        ratios = []
        for run in self.on:
            steps = run.decoding(self.batch)
            took = sum(step.model + step.guessing for step in steps) / len(steps)
            ratios.append(sum(step.tokens for step in steps) / self.batch / len(steps) / (took / plain))
        return median(ratios)

    def cost_of_judging(self) -> float:
        """v: the model's time for a step with guesses over one without."""
        plain = median(step.model for run in self.off for step in run.decoding(self.batch))
        return median(s.model for run in self.on for s in run.decoding(self.batch) if s.nodes) / plain

    def by_position(self) -> list[float]:
        """Of guesses whose ancestors all stood, the share that stood."""
        tried, stood = [0] * 16, [0] * 16
        for proposer in (p for run in self.on for counts in run.counts for p in counts.proposers):
            tried = [a + b for a, b in zip(tried, proposer.tried, strict=True)]
            stood = [a + b for a, b in zip(stood, proposer.stood, strict=True)]
        return [s / t for s, t in zip(stood, tried, strict=True) if t >= 20]


def _rate(run: Run, batch: int) -> float:
    steps = run.decoding(batch)
    return sum(step.tokens for step in steps) / sum(step.whole for step in steps)
