"""The engine: one straight line per step, from plan to events that may be told.

Owns the order in which things become true (the journal has a token before anyone else) and what happens when the
model fails: the request at fault ends, the others do not notice. It must not know sockets, clocks or tenants.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from tenantry.adapters.errors import AdapterError
from tenantry.adapters.room import NONE, Footprint
from tenantry.runtime.counts import Guessing, Stats
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.journal import Closed, Counted, Opened, Record
from tenantry.runtime.messages import Event, Finished, HandOff, Refused, Submit, Tokens, Usage
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.pressure import RETRY_S, Stage
from tenantry.runtime.scheduler.scheduler import NO_GUESSES, Scheduler
from tenantry.runtime.speculative.speculator import Guess, Judged, Speculator, no_opening
from tenantry.runtime.stops import StopWatch

log = structlog.get_logger("engine")

MAX_RECEIPT_BYTES: Final = 16 << 10
FAULT: Final = "the model failed on this request"


class EngineBroken(Exception):
    """The model fails whatever it is asked: this process cannot go on."""


class Runner(Protocol):
    """A step that raises may be asked again for some of its rows, without loads, moves, copies and evictions: those
    happen before rows are computed, and loads and copies that ended are reported by a run that returns."""

    def run(self, plan: StepPlan) -> StepResult: ...


class RecordSink(Protocol):
    def append(self, records: Sequence[Record]) -> None: ...


class Engine:
    """footprint: what an adapter occupies when resident; raises AdapterError for one that is not there.
    speculator: who guesses, or None for no guesses at all. exchange: of computed prompts with other engines, or None.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        journal: RecordSink,
        stops: StopWatch,
        footprint: Callable[[bytes], Footprint],
        speculator: Speculator | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._journal = journal
        self._stops = stops
        self._footprint = footprint
        self._speculator = speculator
        self._step_time = scheduler.times
        self._exchange = exchange
        self._stage = Stage.NONE
        self._told: list[Finished | Refused] = []  # ends that no step has brought about
        self._opened: list[Record] = []
        self._last: tuple[Sequence[Row], StepResult, float] | None = None  # after which the next follows at once
        self.computing = False  # the last step had rows, so the next one most likely has

    def submit(self, submit: Submit, now: float) -> Refused | None:
        """Take in a request, or answer why not. An accepted one ends with Finished or Refused, out of a step."""
        if self._stage >= Stage.REFUSE:
            refusal = self._scheduler.short_of_memory(submit.request_id, RETRY_S)
            return Refused(submit.request_id, refusal.code, refusal.message, None, refusal.retry_ms)
        try:
            if len(submit.receipt) > MAX_RECEIPT_BYTES:
                return Refused(submit.request_id, "invalid_request", "the receipt is too long", "receipt")
            footprint = NONE if submit.adapter is None else self._footprint(submit.adapter)
        except (AdapterError, ValueError):
            return Refused(submit.request_id, "adapter_unavailable", "this adapter is not in the store", "adapter")
        if submit.hand_off:
            if self._exchange is None:
                return Refused(submit.request_id, "invalid_request", "this engine hands nothing over", "hand_off")
            return self._hand_off(self._exchange.outbox, submit, footprint, now)
        if self._exchange is not None and submit.expect:
            refused = self._scheduler.objection(submit, footprint)
            if refused is None:
                self._exchange.expect(submit, footprint, now)
                if submit.adapter is not None:
                    self._scheduler.warm(submit.adapter, footprint)
        else:
            refused = self._scheduler.add(submit, footprint, now)
        if refused is None:
            self._opened.append(Opened(submit.request_id, submit.receipt, submit.attempt))
            self._stops.open(submit)
        return refused

    def abort(self, request_id: str, now: float) -> None:
        """Its Finished comes out of the next step, which computes nothing for it any more."""
        self._expect_no_more(lambda submit: submit.request_id == request_id)
        self._scheduler.abort(request_id, now)

    def warm(self, digest: bytes) -> None:
        """Raises AdapterError."""
        self._scheduler.warm(digest, self._footprint(digest))

    def drop(self, digest: bytes) -> None:
        self._scheduler.drop(digest)
        if self._speculator is not None:
            self._speculator.forget(digest)

    def keep_session(self, session: bytes, keep_s: float, pin: bool, now: float) -> None:
        self._scheduler.cache.sessions.keep(session, now, keep_s, pin)

    def drop_session(self, session: bytes) -> None:
        self._scheduler.cache.sessions.drop(session)

    def drop_namespace(self, namespace: bytes, abort: bool) -> None:
        """See Scheduler.drop_namespace."""
        self._expect_no_more(lambda submit: submit.namespace == namespace)
        self._scheduler.drop_namespace(namespace, abort)

    def drop_tenant(self, tenant: str, abort: bool) -> None:
        """See Scheduler.drop_tenant. Of what is expected nobody would know that its KV must not stay: it ends."""
        self._expect_no_more(lambda submit: submit.tenant == tenant)
        self._scheduler.drop_tenant(tenant, abort)

    def step_back(self, stage: Stage) -> None:
        """Make do with less host memory, or with as much as before. To be told at every reading: what waits is
        refused by halves, unless it is better by now. What runs goes on."""
        better, self._stage = stage < self._stage, stage
        self._scheduler.cache.keep_in_host(stage < Stage.SHED_CACHE)
        if stage >= Stage.SHED_QUEUE and not better:
            self._scheduler.shed(RETRY_S)

    def step(self, now: float) -> list[Event]:
        """One forward pass and everything that follows from it. The events are in the journal when this returns.

        Raises MeteringUnavailable or EngineBroken, after which the engine must not be used.
        """
        self._time(now)
        self._start_expected(now)
        opening = self._speculator.opening if self._speculator is not None else no_opening
        plan = self._scheduler.plan(now, self._guesses(), opening)
        self.computing = plan is not None and bool(plan.rows)
        sent = plan if self._exchange is None else self._exchange.attach(plan, self._scheduler.owner)
        events, self._told = self._told, []
        if sent is None:
            for end in events:
                self._stops.close(end.request_id)
            self._record(events)
            return list(events)
        result = self._run(sent)
        if self._exchange is not None:
            self._exchange.after(sent, result)
        told: list[Event] = [*events]
        if plan is not None:
            told += self._scheduler.commit(plan, result, now, self._stops.feed)
            self._learn(plan, result)
        for event in told:
            if isinstance(event, Finished | Refused):
                self._stops.close(event.request_id)
        told, unowned = (told, []) if self._exchange is None else self._exchange.told(told, now)
        self._record(told)
        if self.computing and self.has_work:
            self._last = sent.rows, result, now
        return told + unowned

    @property
    def has_work(self) -> bool:
        expecting = self._exchange is not None and self._exchange.has_work
        return self._scheduler.has_work or bool(self._told) or expecting

    def stats(self) -> Stats:
        stats, speculator = self._scheduler.stats(), self._speculator
        stats = msgspec.structs.replace(stats, memory_stage=int(self._stage))
        if speculator is not None:
            stats = msgspec.structs.replace(stats, proposers=speculator.totals())
        if self._exchange is not None:
            stats = msgspec.structs.replace(stats, hand_offs=self._exchange.counts())
        return stats

    # Hand-offs

    def take(self, request_id: str, hand_off: HandOff) -> None:
        """The prompt of an expected request is computed. Ignored if it is expected no more."""
        if self._exchange is not None:
            self._exchange.take(request_id, hand_off)

    def compute(self, request_id: str) -> None:
        """Nobody computes the prompt of an expected request elsewhere."""
        if self._exchange is not None:
            self._exchange.compute(request_id)

    def release(self, request_id: str) -> None:
        """What was handed over for a request is wanted no more."""
        if self._exchange is not None:
            self._exchange.release(request_id)

    def _hand_off(self, outbox: Outbox, submit: Submit, footprint: Footprint, now: float) -> Refused | None:
        """Its end is told and not journalled: see runtime/disagg/outbox.py."""
        job = outbox.take(submit)
        if isinstance(job, Refused):
            return job
        refused = self._scheduler.add(job, footprint, now)
        if refused is not None:
            outbox.refused(submit.request_id)
        return refused

    def _expect_no_more(self, which: Callable[[Submit], bool]) -> None:
        if self._exchange is not None:
            self._told += self._exchange.forget(which)

    def _start_expected(self, now: float) -> None:
        for ready in () if self._exchange is None else self._exchange.before(now, self._scheduler.running):
            refused = self._scheduler.add(ready.submit, ready.footprint, now, ready.elsewhere, now - ready.since)
            if refused is not None:
                self._told.append(refused)

    # Guesses

    def guesses(self) -> tuple[Guessing, ...]:
        """What guessing did so far, by namespace."""
        return tuple(self._speculator.counts()) if self._speculator is not None else ()

    def _guesses(self) -> Mapping[int, Guess]:
        """What the next step guesses, decided by what was learned of guesses and of time."""
        if self._speculator is None:
            return NO_GUESSES
        candidates = self._scheduler.candidates()
        return self._speculator.propose(candidates, self._scheduler.guess_budget(len(candidates)), self._step_time)

    def _learn(self, plan: StepPlan, result: StepResult) -> None:
        """After the commit: which guesses stood, and what the runner guesses next."""
        speculator = self._speculator
        if speculator is None:
            return
        judged = []
        for row, row_result in zip(plan.rows, result.rows, strict=True):
            if row.draft is not None and row_result.fault is None:
                judged.append(Judged(row.sequence, row.draft, row_result.tokens, row_result.accepted))
            if row_result.proposal is not None:
                length = row.start + len(row.tokens) + len(row_result.tokens)
                speculator.proposed(row.sequence, length, row_result.proposal)
        speculator.learn(judged)

    def _time(self, now: float) -> None:
        """How long the last step took until this one, all that is done for guesses included; the runner says what of
        that was guessing."""
        last, self._last = self._last, None
        if last is None or not last[1].seconds:
            return
        rows, result, began = last
        seconds = max(now - began - result.guessing_seconds, result.seconds)
        self._step_time.took(rows, seconds, result.guessing_seconds)
        if self._speculator is not None:
            self._speculator.took(seconds, result.guessing_seconds)

    # The journal

    def _record(self, events: Sequence[Event]) -> None:
        """Write down a step: acceptances first, then counters of those that go on, then ends."""
        counted: dict[str, Usage] = {}
        closed: list[Record] = []
        for event in events:
            match event:
                case Tokens():
                    usage = self._scheduler.usage(event.request_id)
                    if usage is not None:
                        counted[event.request_id] = usage
                case Finished():
                    closed.append(Closed(event.request_id, event.usage, event.reason))
                case Refused():
                    closed.append(Closed(event.request_id, Usage(), "refused"))
                case _:
                    pass
        opened, self._opened = self._opened, []
        self._journal.append([*opened, *([Counted(counted)] if counted else ()), *closed])

    # Failures of the model

    def _run(self, plan: StepPlan) -> StepResult:
        try:
            return self._runner.run(plan)
        except Exception as error:
            log.error(
                "step_failed",
                step=plan.step,
                rows=len(plan.rows),
                kind=type(error).__name__,
                where=whereabouts(error),
            )
            return self._blame(plan)

    def _blame(self, plan: StepPlan) -> StepResult:
        """Run a failed step's rows again in ever smaller parts, until those that fail are alone with their failure.

        Computing a row twice is harmless: the same KV is written to the same slots and the same noise is drawn.
        """
        result = self._halves(plan.step, plan.rows) if len(plan.rows) > 1 else self._part(plan.step, plan.rows)
        nobody = all(row.fault is None for row in result.rows)
        if nobody and (plan.load or plan.evict or plan.moves or plan.copies or not plan.rows):
            raise EngineBroken("loading or evicting adapters, or copying pages, failed")
        return result

    def _halves(self, step: int, rows: tuple[Row, ...]) -> StepResult:
        middle = len(rows) // 2
        a, b = self._part(step, rows[:middle]), self._part(step, rows[middle:])
        held = {**a.held, **b.held}
        copied = a.copied + b.copied
        return StepResult(a.rows + b.rows, a.loaded + b.loaded, a.failed + b.failed, held=held, copied=copied)

    def _part(self, step: int, rows: tuple[Row, ...]) -> StepResult:
        try:
            return self._runner.run(StepPlan(step, rows))
        except Exception as error:
            if len(rows) > 1:
                return self._halves(step, rows)
            log.error("request_failed", step=step, kind=type(error).__name__)
            for row in rows:
                self._probe(row)
            return StepResult(tuple(RowResult(fault=FAULT) for _ in rows))

    def _probe(self, row: Row) -> None:
        """Is it the request or the model? Compute one harmless token of the base model in the failed row's own place,
        whose pages die with it. Raises EngineBroken."""
        try:
            self._runner.run(StepPlan(0, (Row(-1, (0,), row.start, row.pages, None, None),)))
        except Exception as error:
            raise EngineBroken(f"the model fails on anything: {type(error).__name__}") from error


def whereabouts(error: BaseException) -> str:
    """Where an error came from, and nothing of what was being computed: an exception's text may quote tokens."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
