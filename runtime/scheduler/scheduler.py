"""What runs next: continuous batching and chunked prefill under one token budget.

Owns the life of every request from add to its one terminal event. Pure: plan and commit alternate, time is an
argument, the same calls give the same plans. It must not know text, tensors, tenants or where results come from.

    add -> waiting -> [adapter held and pages leased, together] -> running -> ended
                          ^------------- preempted <-----------------'
"""

from bisect import insort

from tenantry.adapters.errors import ResidencyError
from tenantry.adapters.residency import Outcome, Residency
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.pages import PageClass
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.errors import AdapterUnavailable, InvalidRequest, QueueFull, RuntimeRefusal
from tenantry.runtime.messages import (
    AdapterState,
    ChoiceFinished,
    Event,
    Finished,
    FinishReason,
    Refused,
    Stats,
    Submit,
    TokenLogprob,
    Tokens,
    Usage,
)
from tenantry.runtime.plan import Row, RowResult, StepPlan, StepResult
from tenantry.runtime.scheduler.batch import Batch
from tenantry.runtime.scheduler.bounds import validate
from tenantry.runtime.scheduler.finish import ending
from tenantry.runtime.scheduler.request import Phase, Request, Sequence
from tenantry.runtime.scheduler.waiting import WaitingQueue

LOOKAHEAD = 64  # waiting requests looked at per step: those that wait for an adapter do not hold up the rest


class Scheduler:
    """end_tokens: ids that end a choice unless it ignores them. vocab_size: ids are below it."""

    def __init__(
        self,
        config: ScheduleConfig,
        cache: CacheConfig,
        residency: Residency,
        end_tokens: tuple[int, ...],
        vocab_size: int,
    ) -> None:
        if config.token_budget < config.max_running + cache.page_size:
            raise InvalidRequest(
                "token_budget", "must be at least max_running plus one page, or prefill could starve"
            )
        self._config = config
        self._cache_config = cache
        self._end_tokens = frozenset(end_tokens)
        self._vocab_size = vocab_size
        self.cache = KvCache(cache)
        self._residency = residency
        self._waiting = WaitingQueue(config.max_waiting)
        self._requests: dict[str, Request] = {}
        self._running: list[Sequence] = []  # by rank: oldest first
        self._ready: list[Sequence] = []  # of started requests: preempted ones and further choices, by rank
        self._by_id: dict[int, Sequence] = {}  # running ones
        self._plan: StepPlan | None = None
        self._loading: set[bytes] = set()
        self._retired: set[bytes] = set()  # dropped while in use
        self._acts = False  # the residency may have loads or evictions to hand out
        self._events: list[Event] = []
        self._arrivals = self._sequences = self._steps = self._preemptions = 0
        self._prompt = self._cached = self._completion = 0

    # Commands

    def add(self, submit: Submit, adapter_bytes: int, now: float) -> Refused | None:
        """Queue a request, or answer why not. adapter_bytes: the adapter's size on the device, 0 without one."""
        try:
            validate(submit, adapter_bytes, self._config, self._cache_config, self._vocab_size)
            if submit.request_id in self._requests:
                raise InvalidRequest("request_id", "a request of this id is running")
            if submit.adapter in self._retired:
                raise AdapterUnavailable("adapter", "this adapter is being retired")
            request = Request(submit, adapter_bytes, self._arrivals, now, self._end_tokens)
            self._waiting.push(request)
        except RuntimeRefusal as refusal:
            return Refused(submit.request_id, refusal.code, refusal.message, refusal.param)
        self._arrivals += 1
        self._requests[request.id] = request
        return None

    def abort(self, request_id: str, now: float) -> None:
        """Stop a request; unknown ids are ignored. What a step in flight draws for it is neither sent nor counted."""
        request = self._requests.get(request_id)
        if request is not None:
            self._finish(request, "abort")

    def finish_choice(self, request_id: str, choice: int, matched: str) -> bool:
        """The engine found a stop string in a choice's text. False if the choice had ended already."""
        request = self._requests.get(request_id)
        if request is None or not 0 <= choice < len(request.sequences):
            return False
        sequence = request.sequences[choice]
        if sequence.phase is Phase.ENDED:
            return False
        self._end(sequence, "stop", matched)
        return True

    def warm(self, digest: bytes, nbytes: int) -> Outcome:
        """Load an adapter ahead of its first request, if that harms nobody."""
        self._acts = True
        return self._residency.warm(digest, nbytes)

    def drop(self, digest: bytes) -> None:
        """Retire an adapter: those waiting for it are refused, those running finish, all KV under it goes."""
        for request in self._waiting.of_adapter(digest):
            self._refuse(request, AdapterUnavailable("adapter", "this adapter has been retired"))
        self._residency.drop(digest)
        self.cache.drop(digest)
        if self._users(digest):
            self._retired.add(digest)
        self._acts = True

    # One step

    def plan(self, now: float) -> StepPlan | None:
        """Decide the next step; None when there is nothing to do: no event to deliver, no load to ask for."""
        assert self._plan is None, "the last plan was not committed"
        for request in self._waiting.expire(now):
            self._waiting_ended(request, QueueFull("deadline", "could not start within its deadline"))
        batch = Batch(self._config.token_budget, self._cache_config.page_size)
        self._continue(batch)
        self._start(batch)
        loads, evictions = self._residency.take_actions()
        self._acts = False
        self._loading.update(loads)
        if not (batch.rows or evictions or self._loading or self._events):
            return None
        self._steps += 1
        self._plan = StepPlan(self._steps, tuple(batch.rows), loads, evictions)
        self.cache.allocator.begin_step()
        return self._plan

    def commit(self, plan: StepPlan, result: StepResult, now: float) -> list[Event]:
        """Take in what a step gave: the only place where tokens, KV and counters move. Returns all events since."""
        assert plan is self._plan, "commit of a plan that is not in flight"
        self._plan = None
        self.cache.allocator.end_step()
        for row, row_result in zip(plan.rows, result.rows, strict=True):
            sequence = self._by_id.get(row.sequence)
            if sequence is not None:  # else aborted meanwhile
                self._accept(sequence, row, row_result)
        for digest in result.loaded:
            self._loading.discard(digest)
            self._residency.loaded(digest)
            self._acts = True
        for digest, reason in result.failed:
            self._loading.discard(digest)
            for owner in sorted(self._residency.failed(digest)):
                refusal = AdapterUnavailable("adapter", f"the adapter could not be loaded: {reason}")
                self._refuse(self._requests[owner], refusal)
        return self.take_events()

    def take_events(self) -> list[Event]:
        """Events since the last call: those of abort, drop and finish_choice without waiting for a commit."""
        events, self._events = self._events, []
        return events

    # Questions

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._loading or self._events or self._acts)

    def usage(self, request_id: str) -> Usage | None:
        """Counts so far of a request that has not ended; they only grow, and Finished repeats the last of them."""
        request = self._requests.get(request_id)
        return None if request is None else request.usage()

    def stats(self) -> Stats:
        cache = self.cache
        return Stats(
            steps=self._steps,
            running=len(self._running),
            waiting=len(self._waiting) + len(self._ready),
            pages_total=cache.allocator.pages,
            pages_free=cache.allocator.free_count,
            pages_cached=cache.tree.nodes,
            prompt_tokens=self._prompt,
            cached_tokens=self._cached,
            completion_tokens=self._completion,
            preemptions=self._preemptions,
            adapter_bytes=self._residency.used,
            adapter_bytes_limit=self._residency.limit,
            adapters=tuple(
                AdapterState(o.digest, o.state.value, o.bytes, o.users) for o in self._residency.occupants()
            ),
        )

    def check(self) -> None:
        """Assert every invariant. Slow: walks all pages, nodes and requests."""
        self.cache.check()
        self.cache.check_leases([s.lease for s in self._running if s.lease is not None])
        self._residency.check()
        self._waiting.check()
        held = [s for r in self._requests.values() for s in r.sequences]
        assert sorted(self._running + self._ready, key=lambda s: s.rank) == sorted(
            (s for s in held if s.phase is not Phase.ENDED), key=lambda s: s.rank
        ), "a live sequence is in no queue, or in two"
        assert self._running == sorted(self._running, key=lambda s: s.rank), "running out of order"
        assert self._ready == sorted(self._ready, key=lambda s: s.rank), "ready out of order"
        assert self._by_id == {s.id: s for s in self._running}, "running sequences and their ids differ"
        assert len(self._running) <= self._config.max_running, "too many run"
        for request in self._requests.values():
            assert (request in self._waiting) == (not request.sequences), "waits and runs"
            digest = request.submit.adapter
            if digest is not None and request.sequences:
                assert self._residency.acquire(digest, request.adapter_bytes, request.id) is Outcome.HELD, (
                    "no adapter"
                )
        for sequence in self._running:
            lease = sequence.lease
            assert lease is not None, "runs without pages"
            assert sequence.computed < len(sequence.tokens), "nothing left to compute"
            assert lease.sealed * self._cache_config.page_size <= sequence.computed, "a page sealed before its tokens"
        if self._plan is not None:
            for row in self._plan.rows:
                for page in row.pages:
                    assert self.cache.allocator.class_of(page) is not PageClass.FREE, "freed under a step in flight"

    # Planning

    def _continue(self, batch: Batch) -> None:
        """Rows of what runs: those one token behind first (decode), then chunks of the others, oldest first."""
        behind = []
        for sequence in self._running.copy():
            if sequence.phase is not Phase.RUNNING or not self._grow(sequence):
                continue
            if len(sequence.tokens) - sequence.computed > 1:
                behind.append(sequence)
            else:
                batch.add(sequence)
        for sequence in behind:
            if sequence.phase is Phase.RUNNING:
                batch.add(sequence)

    def _grow(self, sequence: Sequence) -> bool:
        """Pages for all its tokens, taken from the youngest if there are none. False: it was the youngest itself."""
        lease = sequence.lease
        assert lease is not None
        while not self.cache.extend(lease, len(sequence.tokens)):
            victim = self._running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Give its pages back; what the tree does not keep is computed again, to the same tokens."""
        self._leave(sequence)
        sequence.phase, sequence.computed = Phase.WAITING, 0
        insort(self._ready, sequence, key=_rank)
        self._preemptions += 1

    def _start(self, batch: Batch) -> None:
        """New leases while budget, places and pages last: started requests first, then the waiting in fair order."""
        while self._ready and self._may_start(batch):
            sequence = self._ready[0]
            try:
                if not self._lease(sequence):
                    return
            except RuntimeRefusal as refusal:
                self._finish(sequence.request, "error", refusal.message)
                continue
            del self._ready[0]
            batch.add(sequence)
        if not self._waiting or not self._may_start(batch):
            return
        for request in self._waiting.candidates(LOOKAHEAD):
            if not self._may_start(batch):
                return
            try:
                if not self._has_adapter(request):
                    continue
                first = Sequence(self._sequences, request, 0)
                if not self._lease(first):
                    return
            except RuntimeRefusal as refusal:
                self._refuse(request, refusal)
                continue
            self._sequences += 1
            request.sequences.append(first)
            self._waiting.started(request)
            batch.add(first)

    def _may_start(self, batch: Batch) -> bool:
        return batch.open and len(self._running) < self._config.max_running

    def _has_adapter(self, request: Request) -> bool:
        """False while it loads or waits for bytes. Its claim stays: no eviction while pages are short."""
        digest = request.submit.adapter
        if digest is None:
            return True
        try:
            outcome = self._residency.acquire(digest, request.adapter_bytes, request.id)
        except ResidencyError as error:
            raise AdapterUnavailable("adapter", str(error)) from error
        if outcome is Outcome.CANNOT_FIT:
            raise AdapterUnavailable("adapter", "the adapter is larger than all memory for adapters")
        if outcome is Outcome.RETIRED:
            raise AdapterUnavailable("adapter", "this adapter is being retired")
        return outcome is Outcome.HELD

    def _lease(self, sequence: Sequence) -> bool:
        """Pages for all its tokens, leaving one for each running sequence to grow into; or nothing at all."""
        submit, tokens = sequence.request.submit, sequence.tokens
        lease = self.cache.lease(submit.namespace, tokens, submit.adapter)
        missing = self.cache.pages_for(len(tokens)) - len(lease.pages)
        if missing + len(self._running) > self.cache.available or not self.cache.extend(lease, len(tokens)):
            self.cache.rollback(lease)
            return False
        sequence.lease, sequence.computed, sequence.phase = lease, lease.matched, Phase.RUNNING
        self._by_id[sequence.id] = sequence
        insort(self._running, sequence, key=_rank)
        return True

    # Committing

    def _accept(self, sequence: Sequence, row: Row, result: RowResult) -> None:
        request = sequence.request
        if result.fault is not None:
            self._finish(request, "error", result.fault)
            return
        if request.prompt == 0:
            assert sequence.lease is not None
            request.cached = sequence.lease.matched
            self._cached += request.cached
        sequence.computed = row.start + len(row.tokens)
        reached = min(sequence.computed, request.prompt_length)
        if reached > request.prompt:
            self._prompt += reached - request.prompt
            request.prompt = reached
        if row.draw is None:
            return
        if not result.tokens:
            self._finish(request, "error", "the model drew no token")
            return
        self._draw(sequence, result.tokens, result.logprobs)

    def _draw(self, sequence: Sequence, drawn: tuple[int, ...], logprobs: tuple[TokenLogprob, ...] | None) -> None:
        """Commit drawn tokens up to the one that ends the choice, and share the pages they prove finite."""
        request, tokens = sequence.request, sequence.tokens
        end = ending(request.submit.sampling, request.stops, sequence.generated, drawn)
        if end is not None and end.kept < len(drawn):
            drawn = drawn[: end.kept]
            logprobs = logprobs[: end.kept] if logprobs is not None else None
        tokens += drawn
        sequence.computed = min(sequence.computed, len(tokens) - 1)
        request.completion += len(drawn)
        self._completion += len(drawn)
        lease = sequence.lease
        assert lease is not None
        self.cache.seal(lease, tokens, sequence.computed)
        self._events.append(Tokens(request.id, sequence.choice, drawn, logprobs))
        if len(request.sequences) < request.submit.sampling.n:
            self._fork(request)
        if end is not None:
            self._end(sequence, end.reason, end.matched)

    def _fork(self, request: Request) -> None:
        """The prompt is committed: the other choices follow, and find it in the tree."""
        for choice in range(1, request.submit.sampling.n):
            sequence = Sequence(self._sequences, request, choice)
            self._sequences += 1
            request.sequences.append(sequence)
            insort(self._ready, sequence, key=_rank)

    # Ending

    def _end(self, sequence: Sequence, reason: FinishReason, matched: str | int | None) -> None:
        request = sequence.request
        self._leave(sequence)
        self._events.append(ChoiceFinished(request.id, sequence.choice, reason, matched))
        if len(request.sequences) == request.submit.sampling.n and all(
            s.phase is Phase.ENDED for s in request.sequences
        ):
            self._finish(request, reason)

    def _leave(self, sequence: Sequence) -> None:
        """Out of every queue, without pages."""
        if sequence.phase is Phase.RUNNING:
            assert sequence.lease is not None
            self.cache.release(sequence.lease)
            sequence.lease = None
            self._running.remove(sequence)
            del self._by_id[sequence.id]
        elif sequence.phase is Phase.WAITING:
            self._ready.remove(sequence)
        sequence.phase = Phase.ENDED

    def _finish(self, request: Request, reason: FinishReason, message: str = "") -> None:
        """The one terminal event of an accepted request; nothing is held for it afterwards."""
        if not request.sequences:
            self._waiting.remove(request)
        for sequence in request.sequences:
            self._leave(sequence)
        self._forget(request)
        self._events.append(Finished(request.id, request.usage(), reason, message))

    def _refuse(self, request: Request, refusal: RuntimeRefusal) -> None:
        """The one terminal event of a request that waits."""
        self._waiting.remove(request)
        self._waiting_ended(request, refusal)

    def _waiting_ended(self, request: Request, refusal: RuntimeRefusal) -> None:
        self._forget(request)
        self._events.append(Refused(request.id, refusal.code, refusal.message, refusal.param))

    def _forget(self, request: Request) -> None:
        del self._requests[request.id]
        digest = request.submit.adapter
        if digest is None:
            return
        self._residency.release(digest, request.id)
        self._acts = True
        if digest in self._retired and not self._users(digest):
            self._retired.discard(digest)
            self.cache.drop(digest)

    def _users(self, digest: bytes) -> int:
        return sum(1 for r in self._requests.values() if r.submit.adapter == digest)


def _rank(sequence: Sequence) -> tuple[int, int]:
    return sequence.rank
