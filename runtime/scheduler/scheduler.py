"""What runs next: continuous batching and chunked prefill under one token budget.

Owns the life of every request from add to its one terminal event. Pure: plan and commit alternate, time is an
argument, the same calls give the same plans. It must not know text, tensors, tenants or where results come from.

    add -> waiting -> [adapter held and pages leased, together] -> running -> ended
                          ^------------- preempted <-----------------'
"""

from collections.abc import Iterable, Mapping
from math import inf
from types import MappingProxyType

from tenantry.adapters.residency import Outcome, Residency
from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.arena import BlockClass
from tenantry.runtime.cache.leases import KvCache, Lease
from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.counts import Stats
from tenantry.runtime.errors import AdapterUnavailable, InvalidRequest, QueueFull, RuntimeRefusal, ShareFull
from tenantry.runtime.messages import ChoiceFinished, Event, Finished, FinishReason, Refused, Submit, Tokens, Usage
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.scheduler.bounds import validate
from tenantry.runtime.scheduler.claims import Claims
from tenantry.runtime.scheduler.composer import Composer
from tenantry.runtime.scheduler.fairness import Flow, Ledger, Prices
from tenantry.runtime.scheduler.farewells import Farewells
from tenantry.runtime.scheduler.finish import Ending, Watch, ending, nobody_watches
from tenantry.runtime.scheduler.forecast import Forecast
from tenantry.runtime.scheduler.pace import Pace
from tenantry.runtime.scheduler.request import Request, Sequence
from tenantry.runtime.scheduler.sequences import Sequences
from tenantry.runtime.scheduler.steptime import StepTimeModel, looked_at
from tenantry.runtime.scheduler.totals import Totals
from tenantry.runtime.scheduler.waiting import WaitingQueue
from tenantry.runtime.speculative.speculator import Candidate, Guess, Opening, no_opening

USUAL_PROMPT = 512  # tokens, by which the price of a page is told
PREFETCHED = 4  # waiting requests whose adapters are brought in before their turn
NO_GUESSES: Mapping[int, Guess] = MappingProxyType({})


class Scheduler:
    """end_tokens: ids that end a choice unless it ignores them. vocab_size: ids are below it. prices: what work costs
    in the fair order of tenants. times: what steps take, for whoever runs them to tell (StepTimeModel.took)."""

    def __init__(
        self,
        config: ScheduleConfig,
        cache: KvCache,
        residency: Residency,
        end_tokens: tuple[int, ...],
        vocab_size: int,
        prices: Prices | None = None,
    ) -> None:
        if config.token_budget < config.max_running + cache.page_size:
            raise InvalidRequest("token_budget", "must hold max_running and a page more, or prefill could starve")
        self._config = config
        self._end_tokens = frozenset(end_tokens)
        self._vocab_size = vocab_size
        self.cache = cache
        self._room = cache.sure * cache.page_size
        self._claims = Claims(residency)
        self._ledger = Ledger(prices)
        self._waiting = WaitingQueue(config.max_waiting, config.max_waiting_tenant, self._ledger)
        self._sequences = Sequences(self.cache)
        self.times = StepTimeModel()
        self._pace = Pace(config.itl_target_ms / 1e3, config.token_budget, self.times)
        self._forecast = Forecast(config, self.times)
        self._composer = Composer(
            config, cache, self._sequences, self._waiting, self._claims, self._ledger, self._pace, self._refuse,
            lambda request, refusal: self._finish(request, "error", refusal.message),
        )  # fmt: skip
        cache.page_seconds = self._page_seconds
        self._farewells = Farewells(cache)
        self._requests: dict[str, Request] = {}
        self._plan: StepPlan | None = None
        self._events: list[Event] = []
        self._arrivals = 0
        self._now = 0.0
        self._totals = Totals()

    # Commands

    def add(
        self, submit: Submit, footprint: Footprint, now: float, elsewhere: int = 0, waited: float = 0.0
    ) -> Refused | None:
        """Queue a request, or answer why not. footprint: what its adapter occupies, NONE without one.
        elsewhere: tokens of the prompt that another engine computed for this request. waited: seconds that this took,
        which its deadline does not give again."""
        try:
            validate(submit, footprint.bytes, self._config, self._room, self._vocab_size)
            if submit.request_id in self._requests:
                raise InvalidRequest("request_id", "a request of this id is running")
            self._refuse_early(submit, waited)
            request = Request(submit, footprint, self._arrivals, now, self._end_tokens)
            request.elsewhere = elsewhere
            if request.expires is not None:
                request.expires -= waited
            self._claims.enter(request)
        except RuntimeRefusal as refusal:
            return Refused(submit.request_id, refusal.code, refusal.message, refusal.param, refusal.retry_ms)
        self._arrivals += 1
        self._ledger.opened(request)
        self._requests[request.id] = request
        self._waiting.push(request)
        return None

    def _refuse_early(self, submit: Submit, waited: float) -> None:
        """Raises QueueFull or ShareFull for what finds no room, or would not start before its deadline."""
        flow = self._ledger.tenants.flows.get(submit.tenant)
        try:
            self._waiting.refuse_full(flow)
        except QueueFull as full:
            full.retry_s = self._forecast.retry(0.0, submit.request_id)
            raise
        if not submit.deadline or not self._waiting:
            return
        own = [flow] if flow is not None and flow.waiting else []
        for others, kind, whose in (
            (own, ShareFull, "your own queue"),
            (self._waiting.tenants, QueueFull, "the queue"),
        ):
            late = self._expected(flow, others) - (submit.deadline - waited)
            if late > 0 and others:
                self._totals.refused_early += 1
                retry_s = self._forecast.retry(late, submit.request_id)
                raise kind(
                    "deadline", f"{whose} is longer than the {submit.deadline:g} s until the deadline", retry_s
                )

    def _expected(self, flow: Flow | None, waiting: list[Flow]) -> float:
        """Seconds until one more request of this tenant could start, if these tenants were all that waits."""
        running = self._sequences.running
        behind = sum(max(0, s.request.prompt_length - s.computed) for s in running)
        attended = sum(len(s.tokens) for s in running)
        return self._forecast.seconds(self._forecast.ahead(flow, waiting), len(running), behind, attended)

    def objection(self, submit: Submit, footprint: Footprint) -> Refused | None:
        """What add would refuse whenever it is asked."""
        try:
            validate(submit, footprint.bytes, self._config, self._room, self._vocab_size)
        except RuntimeRefusal as refusal:
            return Refused(submit.request_id, refusal.code, refusal.message, refusal.param)
        return None

    def _page_seconds(self) -> float:
        """What a page of a prompt takes to compute, where the device does little else; infinite until it is known."""
        times = self.times
        if not times.learned:
            return inf
        alone = times.seconds(0, 0, USUAL_PROMPT, USUAL_PROMPT, looked_at(0, USUAL_PROMPT)) - times.seconds(0)
        return alone * self.cache.page_size / USUAL_PROMPT if alone > 0 else inf

    def abort(self, request_id: str, now: float) -> None:
        """Stop a request; unknown ids are ignored. What a step in flight draws for it is neither sent nor counted."""
        request = self._requests.get(request_id)
        if request is not None:
            self._finish(request, "abort")

    def warm(self, digest: bytes, footprint: Footprint) -> Outcome:
        """Load an adapter ahead of its first request, if that harms nobody."""
        return self._claims.warm(digest, footprint)

    def drop(self, digest: bytes) -> None:
        """Retire an adapter: those waiting for it are refused, those running finish, all KV under it goes."""
        for request in self._waiting.of_adapter(digest):
            self._refuse(request, AdapterUnavailable("adapter", "this adapter has been retired"))
        self._claims.drop(digest)
        self.cache.drop(digest)

    def drop_namespace(self, namespace: bytes, abort: bool) -> None:
        """A tenant's adapter was deleted: what waits for it is refused, all its KV goes, now and with the last that
        runs. abort: that ends at once."""
        for request in [r for r in self._requests.values() if r.submit.namespace == namespace]:
            if abort:
                self._finish(request, "abort")
            elif request in self._waiting:
                self._refuse(request, AdapterUnavailable("adapter", "this adapter has been retired"))
        self._farewells.namespace(namespace, self._requests.values())

    def drop_tenant(self, tenant: str, abort: bool) -> None:
        """All KV of a tenant goes, now and with its last request. abort: those that are open end at once."""
        for request in [r for r in self._requests.values() if abort and r.submit.tenant == tenant]:
            self._finish(request, "abort")
        self._farewells.tenant(tenant, self._requests.values())

    def shed(self, retry_s: float) -> None:
        """Refuse half of what waits, of whoever has most first, the newest first: for want of host memory."""
        for _ in range((len(self._waiting) + 1) // 2):
            request = self._waiting.crowding()
            assert request is not None, "fewer wait than are counted"
            self._refuse(request, self.short_of_memory(request.id, retry_s))

    def short_of_memory(self, request_id: str, retry_s: float) -> QueueFull:
        """Why a request cannot be taken, which is counted."""
        self._totals.refused_memory += 1
        return QueueFull(None, "the engine is short of memory", self._forecast.retry(retry_s, request_id))

    # One step

    def plan(
        self, now: float, guesses: Mapping[int, Guess] = NO_GUESSES, opening: Opening = no_opening
    ) -> StepPlan | None:
        """Decide the next step; None when there is nothing to do now: no event to deliver, no load to ask for, nobody
        who does not wait for company (ScheduleConfig.batch_delay_ms).

        guesses: by sequence, for candidates() as they are now. opening: for one that is no candidate, by sequence,
        adapter and tokens of its prompt that are left: whether they are followed, and what is guessed where they end.
        Whatever finds no budget or free page is left out, and so is a draft with more nodes than its candidate may
        have.
        """
        assert self._plan is None, "the last plan was not committed"
        for request in self._waiting.expire(now):
            self._refuse(request, QueueFull("deadline", "could not start within its deadline"))
        self._claims.serve()
        rows = self._composer.compose(now, guesses, opening)
        for request in self._waiting.soon(PREFETCHED):
            self._claims.prefetch(request)
            self._composer.fetched(request, now)
        loads, evictions = self._claims.actions()
        for load in loads:
            asker = self._claims.asker(load.digest)
            if asker is not None:
                self._ledger.charge(asker, self._ledger.prices.adapter_byte * asker.footprint.bytes)
        if not (rows or evictions or self._claims.pending or self._events or self.cache.pending):
            return None
        self._totals.steps += 1
        copies, moves = self.cache.take_copies(now), self.cache.arena.take_moves()  # in this order
        self._plan = StepPlan(self._totals.steps, tuple(rows), loads, evictions, moves, copies)
        self.cache.begin_step()
        return self._plan

    def commit(self, plan: StepPlan, result: StepResult, now: float, watch: Watch = nobody_watches) -> list[Event]:
        """Take in what a step gave: the only place where tokens, KV and counters move. Returns all events since.

        watch: finds stop strings, which end a choice like any stop token.
        """
        assert plan is self._plan, "commit of a plan that is not in flight"
        self._plan, self._now = None, now
        self.cache.end_step()
        self.cache.settle(result.copied, now)
        for row, row_result in zip(plan.rows, result.rows, strict=True):
            sequence = self._sequences.by_id.get(row.sequence)
            if sequence is not None:  # else aborted meanwhile
                self._accept(sequence, row, row_result, watch)
        for owner, refusal in self._claims.ended(result):
            self._refuse(self._requests[owner], refusal)
        return self.take_events()

    def take_events(self) -> list[Event]:
        """Events since the last call: those of abort and drop without waiting for a commit."""
        events, self._events = self._events, []
        return events

    # Questions

    def candidates(self) -> list[Candidate]:
        """What will draw one token in the next step, oldest first, as far as nothing gives way."""
        found = []
        for sequence in self._sequences.running:
            submit, tokens = sequence.request.submit, sequence.tokens
            if len(tokens) - sequence.computed == 1 and submit.speculate:
                room, nodes = self._composer.useful(sequence), sequence.may_guess
                found.append(Candidate(sequence.id, submit.namespace, submit.adapter, tokens, room, nodes))
        return found

    def guess_budget(self, decoding: int) -> int:
        """Most guesses in a step of so many decode rows: see Composer.guess_budget."""
        return self._composer.guess_budget(decoding)

    @property
    def running(self) -> int:
        """Sequences that hold pages."""
        return len(self._sequences.running)

    def owner(self, sequence: int) -> str:
        """The request of a row's sequence."""
        return self._sequences.by_id[sequence].request.id

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._events or self._claims.pending or self.cache.pending)

    def usage(self, request_id: str) -> Usage | None:
        """Counts so far of a request that has not ended; they only grow, and Finished repeats the last of them."""
        request = self._requests.get(request_id)
        return None if request is None else request.usage()

    def stats(self) -> Stats:
        """Of adapters, pages, requests, and of what steps take."""
        return self._totals.stats(self.cache, self._waiting, self._sequences, self._claims, self.times, self._ledger)

    def check(self, expected: Iterable[Lease] = ()) -> None:
        """Assert every invariant. Slow: walks all pages, nodes and requests. expected: leases of prompts that other
        engines compute."""
        requests = list(self._requests.values())
        self.cache.check()
        self._sequences.check(requests, expected)
        self._claims.check(requests)
        self._waiting.check()
        assert len(self._sequences.running) <= self._config.max_running, "too many run"
        assert all((r in self._waiting) == (not r.sequences) for r in requests), "waits and runs, or neither"
        for row in self._plan.rows if self._plan is not None else ():
            kinds = {self.cache.arena.class_of(page) for page in row.pages}
            assert BlockClass.FREE not in kinds, "a page freed under a step in flight"

    # Committing

    def _accept(self, sequence: Sequence, row: Row, result: RowResult, watch: Watch) -> None:
        request = sequence.request
        if result.fault is not None:
            self._finish(request, "error", result.fault)
            return
        if request.prompt == 0:
            assert sequence.lease is not None
            request.cached = max(0, sequence.lease.matched - request.elsewhere)
            request.cached_host, request.cached_disk = sequence.lease.from_host, sequence.lease.from_disk
            self._totals.cached += request.cached
            self._totals.cached_host += request.cached_host
            self._totals.cached_disk += request.cached_disk
        sequence.computed = row.start + len(row.tokens) + result.accepted
        reached = min(sequence.computed, request.prompt_length)
        if reached > request.prompt:
            self._totals.prompt += reached - request.prompt
            request.prompt = reached
        if row.draw is None:
            return
        if not result.tokens:
            self._finish(request, "error", "the model drew no token")
            return
        self._draw(sequence, row, result, watch)

    def _draw(self, sequence: Sequence, row: Row, result: RowResult, watch: Watch) -> None:
        """Commit drawn tokens up to the one that ends the choice, and share the pages they prove finite."""
        request, tokens = sequence.request, sequence.tokens
        drawn, logprobs = result.tokens, result.logprobs
        end = ending(request.submit.sampling, request.stops, sequence.generated, drawn)
        hit = watch(request.id, sequence.choice, drawn if end is None else drawn[: end.kept])
        if hit is not None:
            end = Ending(hit.kept, "stop", hit.matched)
        if end is not None and end.kept < len(drawn):
            drawn = drawn[: end.kept]
            logprobs = logprobs[: end.kept] if logprobs is not None else None
        tokens += drawn
        sequence.computed = min(sequence.computed, len(tokens) - 1)
        request.completion += len(drawn)
        self._totals.completion += len(drawn)
        self._ledger.charge(request, self._ledger.prices.decode * len(drawn))
        if row.draft is not None:
            self._judged(sequence, len(row.draft.tokens), min(result.accepted, len(drawn)))
        lease = sequence.lease
        assert lease is not None
        self.cache.seal(lease, tokens, sequence.computed)
        self._events.append(Tokens(request.id, sequence.choice, drawn, logprobs))
        if len(request.sequences) < request.submit.sampling.n:
            self._sequences.fork(request)
        if end is not None:
            self._end(sequence, end.reason, end.matched)

    def _judged(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """accepted: of the guesses, those that became tokens; what stood beyond the end was work for nothing."""
        sequence.rejected += drafted - accepted
        self._ledger.charge(sequence.request, self._ledger.prices.rejected * (drafted - accepted))
        sequence.request.drafted += drafted
        sequence.request.accepted += accepted
        self._totals.drafted += drafted
        self._totals.accepted += accepted

    # Ending

    def _end(self, sequence: Sequence, reason: FinishReason, matched: str | int | None) -> None:
        request, submit = sequence.request, sequence.request.submit
        if submit.session and sequence.choice == 0 and sequence.lease is not None:
            self.cache.keep(sequence.lease, submit.session, self._now, submit.keep_s, submit.pin)
        self._sequences.leave(sequence)
        self._events.append(ChoiceFinished(request.id, sequence.choice, reason, matched))
        if request.ended:
            self._forecast.ended(request.completion, request.most_drawn)
            self._finish(request, reason)

    def _finish(self, request: Request, reason: FinishReason, message: str = "") -> None:
        """The one terminal event of an accepted request; nothing is held for it afterwards."""
        if not request.sequences:
            self._waiting.remove(request)
        for sequence in request.sequences:
            self._sequences.leave(sequence)
        self._forget(request)
        self._events.append(Finished(request.id, request.usage(), reason, message))

    def _refuse(self, request: Request, refusal: RuntimeRefusal) -> None:
        """The one terminal event of a request that never ran."""
        if request in self._waiting:  # else its deadline took it out
            self._waiting.remove(request)
        self._forget(request)
        self._events.append(Refused(request.id, refusal.code, refusal.message, refusal.param, refusal.retry_ms))

    def _forget(self, request: Request) -> None:
        del self._requests[request.id]
        self._ledger.closed(request)
        self._composer.close(request)
        retired = self._claims.leave(request)
        if retired is not None:
            self.cache.drop(retired)
        self._farewells.ended(request, self._requests.values())
