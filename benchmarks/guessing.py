"""Requests through an engine and its runner in one process, with guesses or without, and what each step took.

Owns the serving half of benchmarks.speculation: the engine around a runner, the clock around its steps, and the
oracle, a proposer that knows what will be drawn and is right as often as it is told to be.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan
from statistics import fmean, median
from time import perf_counter

import msgspec

from benchmarks.engines import engine_around
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.counts import Guessing, ProposerCounts
from tenantry.runtime.engine import Runner
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.speculative.tree import DraftTree
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.text import TextModel

CONTEXT = 1024
PAGES = 6144
TENANT = "t"
FEWEST_TRIED = 20  # of a position whose share is told


@dataclass(frozen=True, slots=True)
class Ask:
    """adapter: its digest, or None for the base."""

    adapter: bytes | None
    prompt: tuple[int, ...]
    new: int
    ignore_eos: bool = False


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
    """One set of requests served to its end. texts: what each request drew. counts: what guessing came to
    since its Speculator was made."""

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


class Server:
    """An engine around a runner, `batch` requests at a time. It outlives its sets of requests, as one that serves
    does: what it learned of times and guesses stays, and nothing else. model: the one behind the runner, which
    several servers may share by turns."""

    def __init__(
        self, runner: Runner, model: ModelRunner, text: TextModel, batch: int, speculator: Speculator | None = None
    ) -> None:
        schedule = ScheduleConfig(token_budget=256 + 8 * batch, max_running=batch, max_context=CONTEXT)
        self._cache = KvCache.alone(CacheConfig(pages=PAGES))
        model.run(StepPlan(0, (), evict=tuple(model.adapters.resident)))
        self._model, self._timed = model, Timed(runner)
        self._engine = engine_around(
            model, schedule, self._cache, StopWatch(text), runner=self._timed, speculator=speculator
        )

    def serve(self, asks: Sequence[Ask]) -> Run:
        """All requests at once; no prefix of an earlier set is known."""
        engine, model, timed = self._engine, self._model, self._timed
        adapters = {ask.adapter for ask in asks if ask.adapter is not None}
        for digest in adapters:
            engine.warm(digest)
        while not adapters <= set(model.adapters.resident):
            engine.step(0.0)
        run = Run(texts=[()] * len(asks))
        for i, ask in enumerate(asks):
            sampling = Sampling(max_tokens=ask.new, temperature=0.0, ignore_eos=ask.ignore_eos)
            namespace = ask.adapter or bytes(32)
            refused = engine.submit(Submit(str(i), ask.prompt, sampling, namespace, ask.adapter, TENANT), 0.0)
            assert refused is None, refused
        began = perf_counter()
        while engine.has_work:
            step = perf_counter()
            events = engine.step(step)
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
        self._cache.drop_tenant(TENANT)
        return run


@dataclass(slots=True)
class Pairs:
    """Runs off and on, by turns, of the same requests in the same batch. What is told of full steps is nan where
    there were none: requests that are guessed well end before the last of a large batch have begun."""

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
        return self._of_full(lambda off, on: _rate(on) / _rate(off))

    @property
    def tokens_per_step(self) -> float:
        steps = [step for run in self.on for step in run.decoding(self.batch)]
        return fmean(step.tokens / step.rows for step in steps) if steps else nan

    @property
    def node_steps(self) -> float:
        """Guesses judged per row and step."""
        steps = [step for run in self.on for step in run.decoding(self.batch)]
        return fmean(step.nodes / step.rows for step in steps) if steps else nan

    @property
    def predicted(self) -> float:
        """tau / (v + c), performance.md 3.4: tokens per row and step over what model and guessing took for them, in
        units of a plain step. What the engine itself does in between is not in it."""

        def ratio(off: list[Step], on: list[Step]) -> float:
            tau = fmean(step.tokens / step.rows for step in on)
            return tau / (fmean(step.model + step.guessing for step in on) / fmean(step.model for step in off))

        return self._of_full(ratio)

    def _of_full(self, ratio: Callable[[list[Step], list[Step]], float]) -> float:
        pairs = [
            (off.decoding(self.batch), on.decoding(self.batch)) for off, on in zip(self.off, self.on, strict=True)
        ]
        found = [ratio(off, on) for off, on in pairs if off and on]
        return median(found) if found else nan

    def cost_of_judging(self) -> float:
        """v: the model's time for a step with guesses over one without."""
        plain = median(step.model for run in self.off for step in run.decoding(self.batch))
        return median(s.model for run in self.on for s in run.decoding(self.batch) if s.nodes) / plain

    def by_position(self) -> list[float]:
        """Of guesses whose ancestors all stood, the share that stood."""
        return _by_position([p for counts in self.on[-1].counts for p in counts.proposers])

    def acceptance(self) -> float:
        """Of all guesses whose ancestors all stood, the share that stood."""
        counts = [p for of in self.on[-1].counts for p in of.proposers]
        return sum(sum(p.stood) for p in counts) / sum(sum(p.tried) for p in counts)

    def of_adapter(self, digest: bytes) -> "OfAdapter | None":
        """What guesses came to for one adapter's requests."""
        counts = [c for c in self.on[-1].counts if c.adapter == digest and c.steps]
        if not counts:
            return None
        proposers = [p for c in counts for p in c.proposers]
        stood = [(kind, _by_position([p for p in proposers if p.proposer == kind]))
                 for kind in sorted({p.proposer for p in proposers})]  # fmt: skip
        return OfAdapter(sum(c.tokens for c in counts) / sum(c.steps for c in counts), stood)


@dataclass(frozen=True, slots=True)
class OfAdapter:
    """stood: by proposer, of guesses whose ancestors all stood, the share that stood, by position."""

    tokens_per_step: float
    stood: list[tuple[str, list[float]]]


def _by_position(counts: Sequence[ProposerCounts]) -> list[float]:
    tried = [sum(at) for at in zip(*(c.tried for c in counts), strict=True)]
    stood = [sum(at) for at in zip(*(c.stood for c in counts), strict=True)]
    return [s / t for s, t in zip(stood, tried, strict=True) if t >= FEWEST_TRIED]


def _rate(steps: list[Step]) -> float:
    return sum(step.tokens for step in steps) / sum(step.whole for step in steps)
