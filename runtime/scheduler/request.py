"""A request and its sequences, as the scheduler sees them.

Owns per-request state and its counters; holds no policy. It must not know pages' contents, the plan or the clock.
"""

from enum import Enum

from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.leases import Lease
from tenantry.runtime.cache.tiers import Fetching
from tenantry.runtime.messages import MAX_REJECTED_PER_TOKEN, Submit, Usage
from tenantry.runtime.scheduler.fairness import Flow


class Phase(Enum):
    """WAITING: holds no pages (not started, or preempted). RUNNING: holds a lease. ENDED: holds nothing, for good.

    There is no prefill or decode phase: `computed` chases `len(tokens)`, however far behind it is.
    """

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Sequence:
    """One choice. tokens: prompt and all that was drawn. computed: how many of them have their KV in `lease`.

    id: engine-local. rank: place in the order of service among its tenant's, lower first; the highest is preempted
    first. rejected: guesses that were computed for it and did not become its tokens.
    """

    __slots__ = ("choice", "computed", "id", "lease", "phase", "rank", "rejected", "request", "tenant", "tokens")

    def __init__(self, sequence: int, request: "Request", choice: int) -> None:
        self.id = sequence
        self.request = request
        self.choice = choice
        self.rank = (*request.rank, choice)
        self.tenant = request.tenant
        self.tokens = list(request.submit.prompt)
        self.computed = 0
        self.rejected = 0
        self.lease: Lease | None = None
        self.phase = Phase.WAITING

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.request.prompt_length

    @property
    def may_guess(self) -> int:
        """Guesses that may all fall in its next step, which draws one token more, without breaking the promise of
        MAX_REJECTED_PER_TOKEN."""
        return MAX_REJECTED_PER_TOKEN * (self.generated + 1) - self.rejected


class Request:
    """order: arrival number; rank: that, behind those of a higher priority. arrived, expires: absolute times; after
    the latter it may not start, or None. tenant, key: whose share it takes (set by Ledger.opened). charged: of its
    prompt, the tokens that were paid for: what is computed again costs nobody.

    A token in `stops` ends a choice; `forbidden` is what may not be drawn before min_tokens (both from the sampling
    and the model's end tokens). claims: whether it has asked for its adapter, whose footprint it knows. fetching:
    what it waits for from disk, once it has asked. elsewhere: tokens of its prompt that another engine computed for
    it: found, and not cached. The counters of usage() only grow.
    """

    __slots__ = (
        "accepted", "arrived", "cached", "cached_disk", "cached_host", "charged", "claims", "completion", "drafted",
        "elsewhere", "expires", "fetching", "footprint", "forbidden", "key", "order", "prompt", "prompt_length",
        "rank", "sequences", "stops", "submit", "tenant",
    )  # fmt: skip

    def __init__(
        self, submit: Submit, footprint: Footprint, order: int, now: float, end_tokens: frozenset[int]
    ) -> None:
        sampling = submit.sampling
        self.submit = submit
        self.footprint = footprint
        self.order = order
        self.rank = (-submit.priority, order)
        self.arrived = now
        self.tenant: Flow
        self.key: Flow
        self.expires = now + submit.deadline if submit.deadline else None
        self.prompt_length = len(submit.prompt)
        self.stops = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else end_tokens)
        self.forbidden = tuple(sorted(self.stops))
        self.sequences: list[Sequence] = []
        self.claims = False
        self.charged = 0
        self.fetching: Fetching | None = None
        self.elsewhere = 0
        self.prompt = 0
        self.cached = 0
        self.cached_host = 0
        self.cached_disk = 0
        self.completion = 0
        self.drafted = 0
        self.accepted = 0

    @property
    def id(self) -> str:
        return self.submit.request_id

    @property
    def most_drawn(self) -> int:
        """Tokens of all choices, if each goes on to its bound."""
        return self.submit.sampling.n * self.submit.sampling.max_tokens

    @property
    def ended(self) -> bool:
        """Whether every choice has ended."""
        made = self.sequences
        return len(made) == self.submit.sampling.n and all(s.phase is Phase.ENDED for s in made)

    def usage(self) -> Usage:
        """prompt: what was reached of it, by computing or by finding it; the whole once a token has been drawn."""
        below = self.cached_host, self.cached_disk
        return Usage(self.prompt, self.cached, self.completion, self.drafted, self.accepted, *below)
