"""What runs next: continuous batching and chunked prefill under one token budget.

Owns the life of every request from add to its one terminal event. Pure: plan and commit alternate, time is an
argument, the same calls give the same plans. It must not know text, tensors, tenants or where results come from.

    add -> waiting -> [adapter held and pages leased, together] -> running -> ended
                          ^------------- preempted <-----------------'
"""

from collections.abc import Mapping
from types import MappingProxyType

from tenantry.adapters.residency import Outcome, Residency
from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.arena import BlockClass
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.errors import AdapterUnavailable, InvalidRequest, QueueFull, RuntimeRefusal
from tenantry.runtime.messages import (
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Refused,
    Stats,
    Submit,
    Tokens,
    Usage,
)
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.scheduler.batch import Batch
from tenantry.runtime.scheduler.bounds import validate
from tenantry.runtime.scheduler.claims import Claims
from tenantry.runtime.scheduler.finish import Ending, Watch, ending, nobody_watches
from tenantry.runtime.scheduler.request import Phase, Request, Sequence
from tenantry.runtime.scheduler.sequences import Sequences
from tenantry.runtime.scheduler.totals import Totals
from tenantry.runtime.scheduler.waiting import WaitingQueue
from tenantry.runtime.speculative.speculator import NOTHING, Candidate, Guess

PREFETCHED = 4  # waiting requests whose adapters are brought in before their turn
NO_GUESSES: Mapping[int, Guess] = MappingProxyType({})


class Scheduler:
    """end_tokens: ids that end a choice unless it ignores them. vocab_size: ids are below it."""

    def __init__(
        self,
        config: ScheduleConfig,
        cache: KvCache,
        residency: Residency,
        end_tokens: tuple[int, ...],
        vocab_size: int,
    ) -> None:
        if config.token_budget < config.max_running + cache.page_size:
            raise InvalidRequest("token_budget", "must hold max_running and a page more, or prefill could starve")
        self._config = config
        self._end_tokens = frozenset(end_tokens)
        self._vocab_size = vocab_size
        self.cache = cache
        self._room = cache.sure * cache.page_size
        self._claims = Claims(residency)
        self._waiting = WaitingQueue(config.max_waiting)
        self._sequences = Sequences(self.cache)
        self._requests: dict[str, Request] = {}
        self._plan: StepPlan | None = None
        self._events: list[Event] = []
        self._arrivals = 0
        self._ahead = 0
        self._totals = Totals()

    # Commands

    def add(self, submit: Submit, footprint: Footprint, now: float) -> Refused | None:
        """Queue a request, or answer why not. footprint: what its adapter occupies, NONE without one."""
        try:
            validate(submit, footprint.bytes, self._config, self._room, self._vocab_size)
            if submit.request_id in self._requests:
                raise InvalidRequest("request_id", "a request of this id is running")
            if len(self._waiting) >= self._config.max_waiting:
                raise QueueFull(None, f"{self._config.max_waiting} requests are waiting")
            request = Request(submit, footprint, self._arrivals, now, self._end_tokens)
            self._claims.enter(request)
        except RuntimeRefusal as refusal:
            return Refused(submit.request_id, refusal.code, refusal.message, refusal.param)
        self._arrivals += 1
        self._requests[request.id] = request
        self._waiting.push(request)
        return None

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

    # One step

    def plan(self, now: float, guesses: Mapping[int, Guess] = NO_GUESSES, ahead: int = 0) -> StepPlan | None:
        """Decide the next step; None when there is nothing to do: no event to deliver, no load to ask for.

        guesses: by sequence, for candidates() as they are now. ahead: for rows that are no candidates and draw, when
        their prompt ends. Whatever finds no budget or free page is left out, and so is a draft with more nodes than
        its candidate may have.
        """
        assert self._plan is None, "the last plan was not committed"
        for request in self._waiting.expire(now):
            self._refuse(request, QueueFull("deadline", "could not start within its deadline"))
        self._claims.serve()
        batch = Batch(self._config.token_budget, self.cache.page_size)
        self._ahead = ahead
        self._continue(batch, guesses)
        self._start(batch)
        for request in self._waiting.soon(PREFETCHED):
            self._claims.prefetch(request)
        loads, evictions = self._claims.actions()
        if not (batch.rows or evictions or self._claims.pending or self._events):
            return None
        self._totals.steps += 1
        moves = self.cache.arena.take_moves()
        self._plan = StepPlan(self._totals.steps, tuple(batch.rows), loads, evictions, moves)
        self.cache.begin_step()
        return self._plan

    def commit(self, plan: StepPlan, result: StepResult, now: float, watch: Watch = nobody_watches) -> list[Event]:
        """Take in what a step gave: the only place where tokens, KV and counters move. Returns all events since.

        watch: finds stop strings, which end a choice like any stop token.
        """
        assert plan is self._plan, "commit of a plan that is not in flight"
        self._plan = None
        self.cache.end_step()
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
                room, nodes = self._useful(sequence), sequence.may_guess
                found.append(Candidate(sequence.id, submit.namespace, submit.adapter, tokens, room, nodes))
        return found

    def guess_budget(self, decoding: int) -> int:
        """Most guesses in a step of so many decode rows: a page of some prompt always fits beside them."""
        return max(0, self._config.token_budget - decoding - self.cache.page_size)

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._events or self._claims.pending)

    def usage(self, request_id: str) -> Usage | None:
        """Counts so far of a request that has not ended; they only grow, and Finished repeats the last of them."""
        request = self._requests.get(request_id)
        return None if request is None else request.usage()

    def stats(self) -> Stats:
        return self._totals.stats(self.cache, len(self._waiting), self._sequences, self._claims)

    def check(self) -> None:
        """Assert every invariant. Slow: walks all pages, nodes and requests."""
        requests = list(self._requests.values())
        self.cache.check()
        self._sequences.check(requests)
        self._claims.check(requests)
        self._waiting.check()
        assert len(self._sequences.running) <= self._config.max_running, "too many run"
        assert all((r in self._waiting) == (not r.sequences) for r in requests), "waits and runs, or neither"
        for row in self._plan.rows if self._plan is not None else ():
            kinds = {self.cache.arena.class_of(page) for page in row.pages}
            assert BlockClass.FREE not in kinds, "a page freed under a step in flight"

    # Planning

    def _continue(self, batch: Batch, guesses: Mapping[int, Guess]) -> None:
        """Rows of what runs: those one token behind first (decode), then chunks of the others, oldest first."""
        decoding: list[Sequence] = []
        behind: list[Sequence] = []
        sequences = self._sequences
        for sequence in sequences.running.copy():
            if sequence.phase is Phase.RUNNING and sequences.grow(sequence):
                (behind if len(sequence.tokens) - sequence.computed > 1 else decoding).append(sequence)
        spare = self.guess_budget(len(decoding)) if guesses else 0
        for sequence in decoding:
            guess = guesses.get(sequence.id, NOTHING)
            nodes = len(guess.draft.tokens) if guess.draft is not None else 0
            most = min(spare, sequence.may_guess) if nodes else 0
            if guess is not NOTHING and (nodes > most or not sequences.spread(sequence, nodes + 1 + guess.room)):
                guess, nodes = NOTHING, 0
            spare -= nodes
            batch.add(sequence, guess)
        for sequence in behind:
            if sequence.phase is Phase.RUNNING:
                batch.add(sequence, self._first(sequence, batch))

    def _start(self, batch: Batch) -> None:
        """New leases while budget, places and pages last: started requests first, then the waiting in fair order."""
        ready = self._sequences.ready
        while ready and self._may_start(batch):
            sequence = ready[0]
            try:
                if not self._sequences.run(sequence):
                    return
            except RuntimeRefusal as refusal:
                self._finish(sequence.request, "error", refusal.message)
                continue
            ready.remove(sequence)
            batch.add(sequence, self._first(sequence, batch))
        if not self._waiting or not self._may_start(batch):
            return
        absent: set[bytes | None] = set()
        for request in self._waiting.turns():
            if request.submit.adapter in absent and not request.claims:
                continue  # whoever has claimed it may hold it even while it takes no new owners
            try:
                if not self._claims.held(request):
                    absent.add(request.submit.adapter)
                    continue
                first = self._sequences.make(request, 0)
                if not self._sequences.run(first):
                    return
            except RuntimeRefusal as refusal:
                self._refuse(request, refusal)
                continue
            request.sequences.append(first)
            self._waiting.started(request)
            batch.add(first, self._first(first, batch))
            if not self._may_start(batch):
                return

    def _first(self, sequence: Sequence, batch: Batch) -> Guess:
        """The runner's first guesses come with the step that ends the prompt."""
        ends = len(sequence.tokens) - sequence.computed <= batch.left
        if not (self._ahead and ends and sequence.request.submit.speculate):
            return NOTHING
        ahead = min(self._ahead, self._useful(sequence) - 1)
        return Guess(None, ahead) if ahead > 0 and self._sequences.spread(sequence, 1 + ahead) else NOTHING

    def _useful(self, sequence: Sequence) -> int:
        """Tokens that the sequence can still use beyond the next one."""
        left = sequence.request.submit.sampling.max_tokens - sequence.generated
        return min(left, self._config.max_context - len(sequence.tokens)) - 1

    def _may_start(self, batch: Batch) -> bool:
        return batch.open and len(self._sequences.running) < self._config.max_running

    # Committing

    def _accept(self, sequence: Sequence, row: Row, result: RowResult, watch: Watch) -> None:
        request = sequence.request
        if result.fault is not None:
            self._finish(request, "error", result.fault)
            return
        if request.prompt == 0:
            assert sequence.lease is not None
            request.cached = sequence.lease.matched
            self._totals.cached += request.cached
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
        sequence.request.drafted += drafted
        sequence.request.accepted += accepted
        self._totals.drafted += drafted
        self._totals.accepted += accepted

    # Ending

    def _end(self, sequence: Sequence, reason: FinishReason, matched: str | int | None) -> None:
        request = sequence.request
        self._sequences.leave(sequence)
        self._events.append(ChoiceFinished(request.id, sequence.choice, reason, matched))
        if request.ended:
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
        self._events.append(Refused(request.id, refusal.code, refusal.message, refusal.param))

    def _forget(self, request: Request) -> None:
        del self._requests[request.id]
        retired = self._claims.leave(request)
        if retired is not None:
            self.cache.drop(retired)
