"""What one step computes: decoding rows and chunks of prompts, in the policy's order and the tenants' turns.

Owns the order of a step and whoever starts in it. It must not know how requests begin and end, nor what a step gave.

mixed: every row that decodes, then prompts with what is left of the step; but a tenant that is owed a place begins
without whoever has most of them. prefill-first: prompts alone while any can go on. A policy over several engines
(disaggregated) gives each of them one of these: it has no rows of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.errors import RuntimeRefusal
from tenantry.runtime.plan import Row
from tenantry.runtime.scheduler.batch import Batch
from tenantry.runtime.scheduler.claims import Claims
from tenantry.runtime.scheduler.fairness import Flow, Ledger
from tenantry.runtime.scheduler.flights import Flights
from tenantry.runtime.scheduler.pace import Pace
from tenantry.runtime.scheduler.request import Phase, Request, Sequence
from tenantry.runtime.scheduler.sequences import Sequences
from tenantry.runtime.scheduler.waiting import WaitingQueue
from tenantry.runtime.speculative.speculator import NOTHING, Guess, Opening, no_opening

Refuse = Callable[[Request, RuntimeRefusal], None]
ASKED = 4  # tenants, and requests of one after its first, that are looked at when a place is to be made


class Guest(NamedTuple):
    """A tenant that is to begin without the rows of another, beside whom it would wait."""

    flow: Flow
    beside: Flow


class Composer:
    """refuse: ends a request that has not started. fail: one that has."""

    def __init__(
        self,
        config: ScheduleConfig,
        cache: KvCache,
        sequences: Sequences,
        waiting: WaitingQueue,
        claims: Claims,
        ledger: Ledger,
        pace: Pace,
        refuse: Refuse,
        fail: Refuse,
    ) -> None:
        self._config, self._cache = config, cache
        self._sequences, self._waiting, self._claims = sequences, waiting, claims
        self._ledger, self._pace = ledger, pace
        self._refuse, self._fail = refuse, fail
        self._page_s = ledger.prices.pool_s / cache.arena.blocks
        self._paid = 0.0
        self._flights = Flights(cache)
        self._full = False  # the last who wanted to start found no pages
        self._opening: Opening = no_opening
        self._now = 0.0

    def compose(self, now: float, guesses: Mapping[int, Guess], opening: Opening) -> list[Row]:
        """See Scheduler.plan. Nobody starts while the first of those who wait waits for company (batch_delay_ms)."""
        self._opening, self._now = opening, now
        self._charge_pages(now)
        starts = not self.delayed(now)
        if self._waiting and starts:
            self._flights.begin(self._sequences.running)
            self._make_place()
        batch = Batch(self._config.token_budget, self._cache.page_size)
        decoding, behind = self._grown()
        if self._config.policy == "prefill-first":
            self._fill(batch, behind, starts)
            if not batch.rows:
                self._decode(batch, decoding, guesses)
            return batch.rows
        rest, guest = decoding, self._guest() if starts and not self._config.itl_target_ms else None
        if guest is not None:
            rest = [sequence for sequence in decoding if sequence.tenant is guest.beside]
            self._decode(batch, [sequence for sequence in decoding if sequence.tenant is not guest.beside], guesses)
            if self._may_start() and self._begins(batch, guest.flow, set()):
                return batch.rows
        self._decode(batch, rest, guesses)
        nodes = self._config.token_budget - batch.left - len(decoding)
        company = self._ledger.company(now)
        batch.allowance = self._pace.allowance(len(decoding), nodes, _held(decoding), company)
        self._fill(batch, behind, starts)
        return batch.rows

    def delayed(self, now: float) -> bool:
        """Whether it harms nobody to wait for company yet: nothing runs, and there are places left."""
        delay, waiting, sequences = self._config.batch_delay_ms / 1e3, self._waiting, self._sequences
        if not delay or not waiting or sequences.running or sequences.ready:
            return False
        first = min(waiting.oldest(flow).arrived for flow in waiting.tenants)
        return len(waiting) < self._config.max_running and now < first + delay

    def guess_budget(self, decoding: int) -> int:
        """Most guesses in a step of so many decode rows: a page of some prompt always fits beside them, and the
        target for a step is kept."""
        most = self._config.token_budget - decoding - self._cache.page_size
        return max(0, min(most, self._pace.guesses(decoding, _held(self._sequences.running))))

    def useful(self, sequence: Sequence) -> int:
        """Tokens that the sequence can still use beyond the next one."""
        left = sequence.request.submit.sampling.max_tokens - sequence.generated
        return min(left, self._config.max_context - len(sequence.tokens)) - 1

    def fetched(self, request: Request, now: float) -> bool:
        """Whether what disk has of its prompt is here, or not worth waiting for. Asking begins the fetch."""
        if request.fetching is None:
            submit = request.submit
            request.fetching = self._cache.bring(submit.namespace, submit.prompt, submit.adapter, now)
        return request.fetching.over(now)

    def close(self, request: Request) -> None:
        """It has started, or never will: nothing is kept for it in host memory."""
        if request.fetching is not None:
            self._cache.close(request.fetching)

    def _guest(self) -> Guest | None:
        """The tenant whose turn it is, if another has most of the places, and was served as much."""
        flow = min(self._waiting.tenants, key=lambda flow: flow.order, default=None)
        most = max((sequence.tenant for sequence in self._sequences.running), key=_running_of, default=flow)
        if flow is None or most is None or 2 * most.running <= self._config.max_running or most.order < flow.order:
            return None
        return Guest(flow, most) if most.running * flow.weight > (flow.running + 1) * most.weight else None

    # Decoding

    def _grown(self) -> tuple[list[Sequence], list[Sequence]]:
        """What runs and has pages for all its tokens: one token behind, and further."""
        decoding: list[Sequence] = []
        behind: list[Sequence] = []
        for sequence in self._sequences.running.copy():
            if sequence.phase is Phase.RUNNING and self._sequences.grow(sequence):
                (behind if len(sequence.tokens) - sequence.computed > 1 else decoding).append(sequence)
        return _running(decoding), _running(behind)  # as far as nobody gave way to those that grew later

    def _decode(self, batch: Batch, decoding: list[Sequence], guesses: Mapping[int, Guess]) -> None:
        spare = self.guess_budget(len(decoding)) if guesses else 0
        for sequence in decoding:
            guess = guesses.get(sequence.id, NOTHING)
            nodes = len(guess.draft.tokens) if guess.draft is not None else 0
            most = min(spare, sequence.may_guess) if nodes else 0
            if guess is not NOTHING and (
                nodes > most or not self._sequences.spread(sequence, nodes + 1 + guess.room)
            ):
                guess, nodes = NOTHING, 0
            spare -= nodes
            batch.add(sequence, guess)

    # Prompts

    def _fill(self, batch: Batch, behind: list[Sequence], starts: bool) -> None:
        """Chunks while there is room: each time for the tenant that was served least, and of its own first what goes
        on, then what gave way, then what waits."""
        self._full = False
        absent: set[bytes | None] = set()
        going, ready = _by_tenant(behind), _by_tenant(self._sequences.ready) if starts else {}
        flows = dict.fromkeys([*going, *ready, *(self._waiting.tenants if starts else ())])
        heap = [(flow.order, at, flow) for at, flow in enumerate(flows)]
        heapify(heap)
        while heap and batch.open:
            _, at, flow = heappop(heap)
            if (
                self._goes_on(batch, going.get(flow))
                or (starts and self._may_start() and self._comes_back(batch, ready.get(flow)))
                or (starts and self._may_start() and self._begins(batch, flow, absent))
            ):
                heappush(heap, (flow.order, at, flow))

    def _goes_on(self, batch: Batch, line: list[Sequence] | None) -> bool:
        return line is not None and bool(line) and self._chunk(batch, line.pop())

    def _comes_back(self, batch: Batch, line: list[Sequence] | None) -> bool:
        """The first of those that have started and hold no pages."""
        while line:
            sequence = line.pop()
            if sequence.phase is not Phase.WAITING:
                continue  # its request has ended with another choice
            try:
                if not self._sequences.run(sequence):
                    self._full = True
                    return False
            except RuntimeRefusal as refusal:
                self._fail(sequence.request, refusal)
                continue
            self._sequences.ready.remove(sequence)
            self._flights.leads(sequence)
            return self._chunk(batch, sequence)
        return False

    def _begins(self, batch: Batch, flow: Flow, absent: set[bytes | None]) -> bool:
        """The first of the tenant's waiting that can. absent: adapters that are waited for."""
        for request in self._waiting.offers(flow, self._known):
            if request.submit.adapter in absent and not request.claims:
                continue  # whoever has claimed it may hold it even while it takes no new owners
            try:
                if not self._claims.held(request):
                    absent.add(request.submit.adapter)
                    continue
                if self._flights.waits(request) or not self.fetched(request, self._now):
                    continue
                first = self._sequences.make(request, 0)
                if not self._sequences.run(first):
                    self._full = True
                    return False
            except RuntimeRefusal as refusal:
                self._refuse(request, refusal)
                continue
            request.sequences.append(first)
            self._flights.leads(first)
            self.close(request)
            more = self._chunk(batch, first)
            self._waiting.started(request)
            return more
        return False

    def _chunk(self, batch: Batch, sequence: Sequence) -> bool:
        """Its next chunk, charged as far as it is the first to compute it. False: not even a page fits."""
        start, request = sequence.computed, sequence.request
        count = batch.add(sequence, self._first_guess(sequence, batch))
        end = min(start + count, request.prompt_length)
        paid = max(start, request.charged)
        if end > paid:
            self._ledger.charge(request, self._ledger.prices.prompt * (end - paid))
            request.charged = end
        return count > 0

    def _first_guess(self, sequence: Sequence, batch: Batch) -> Guess:
        """The runner's first guesses come with the step that ends the prompt."""
        submit, left = sequence.request.submit, len(sequence.tokens) - sequence.computed
        if not submit.speculate:
            return NOTHING
        guess = self._opening(sequence.id, submit.adapter, left)
        ahead = min(guess.ahead, self.useful(sequence) - 1) if left <= batch.room(sequence.computed) else 0
        if ahead < 1 or not self._sequences.spread(sequence, 1 + ahead):
            ahead = 0
        return Guess(None, ahead, follow=guess.follow)

    def _known(self, request: Request) -> int:
        submit = request.submit
        return len(self._cache.tree.match(submit.namespace, submit.prompt).pages)

    def _may_start(self) -> bool:
        return not self._full and len(self._sequences.running) < self._config.max_running

    # Places and pages

    def _make_place(self) -> None:
        """Where all places or pages are taken, a tenant that has less than its share of the places gets one of
        whoever has most: one in a step, for a request that could start at once."""
        sequences = self._sequences
        if not self._full and len(sequences.running) < self._config.max_running:
            return
        for flow in sorted(self._waiting.tenants, key=lambda flow: flow.order)[:ASKED]:
            victim = sequences.overdrawn(flow)
            if victim is not None and self._could_start(flow):
                sequences.yield_place(victim)
                return

    def _could_start(self, flow: Flow) -> bool:
        for at, request in enumerate(self._waiting.offers(flow, self._known)):
            try:
                if self._claims.held(request) and not self._flights.waits(request):
                    return True
            except RuntimeRefusal as refusal:
                self._refuse(request, refusal)
            if at == ASKED:
                break
        return False

    def _charge_pages(self, now: float) -> None:
        """For what runs, since the last step: holding pages is what keeps others out."""
        seconds, self._paid = min(max(now - self._paid, 0.0), 1.0), now
        for sequence in self._sequences.running if seconds and self._page_s else ():
            assert sequence.lease is not None
            self._ledger.charge(sequence.request, self._page_s * seconds * len(sequence.lease.pages))


def _running_of(flow: Flow) -> int:
    return flow.running


def _running(sequences: list[Sequence]) -> list[Sequence]:
    return [sequence for sequence in sequences if sequence.phase is Phase.RUNNING]


def _held(sequences: Iterable[Sequence]) -> int:
    """Positions that rows look at."""
    return sum(len(sequence.tokens) for sequence in sequences)


def _by_tenant(sequences: Iterable[Sequence]) -> dict[Flow, list[Sequence]]:
    """Each tenant's, the first at the end."""
    lines: dict[Flow, list[Sequence]] = {}
    for sequence in sequences:
        lines.setdefault(sequence.tenant, []).append(sequence)
    for line in lines.values():
        line.reverse()
    return lines
