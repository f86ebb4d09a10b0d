"""Requests' claims on adapters: the scheduler's side of the residency.

Owns which loads are under way, which digests are retired, and turning the residency's answers into refusals. It must
not know pages, budgets or queues. One claim per request, however many choices it has.
"""

from contextlib import suppress

from tenantry.adapters.errors import ResidencyError
from tenantry.adapters.residency import Outcome, Residency
from tenantry.adapters.room import Footprint
from tenantry.runtime.counts import AdapterState
from tenantry.runtime.errors import AdapterUnavailable
from tenantry.runtime.plan import Load, StepResult
from tenantry.runtime.scheduler.request import Request

_ANSWERS = {
    Outcome.CANNOT_FIT: "the adapter is larger than the memory that adapters are sure of",
    Outcome.RETIRED: "this adapter is being retired",
}


class Claims:
    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._loading: set[bytes] = set()
        self._users: dict[bytes, int] = {}  # accepted requests, waiting ones included
        self._retired: set[bytes] = set()  # dropped while in use
        self._askers: dict[bytes, Request] = {}  # who asked first for what is not there

    @property
    def pending(self) -> bool:
        """Whether a plan is due for the residency's sake: loads to ask after, or actions to hand out."""
        return bool(self._loading) or self._residency.has_actions

    def enter(self, request: Request) -> None:
        """An accepted request counts as a user until it leaves. Raises AdapterUnavailable for a retired adapter."""
        digest = request.submit.adapter
        if digest is None:
            return
        if digest in self._retired:
            raise AdapterUnavailable("adapter", _ANSWERS[Outcome.RETIRED])
        self._users[digest] = self._users.get(digest, 0) + 1

    def held(self, request: Request) -> bool:
        """False while it loads or waits for bytes. A claim stays until `leave`: no eviction while pages are short.

        Raises AdapterUnavailable when it can never be held.
        """
        digest = request.submit.adapter
        if digest is None:
            return True
        request.claims = True
        try:
            outcome = self._residency.acquire(digest, request.footprint, request.id)
        except ResidencyError as error:
            raise AdapterUnavailable("adapter", str(error)) from error
        if outcome in _ANSWERS:
            raise AdapterUnavailable("adapter", _ANSWERS[outcome])
        if outcome is Outcome.HELD:
            self._askers.pop(digest, None)
            return True
        self._askers.setdefault(digest, request)
        return False

    def prefetch(self, request: Request) -> None:
        """Bring its adapter in before its turn, where that harms nobody. Then it is claimed, and stays."""
        digest = request.submit.adapter
        if digest is not None and not request.claims:
            with suppress(ResidencyError):  # told when its turn comes
                request.claims = self._residency.prefetch(digest, request.footprint, request.id)
                if request.claims:
                    self._askers.setdefault(digest, request)

    def leave(self, request: Request) -> bytes | None:
        """The request has ended. Returns a retired digest whose last user it was."""
        digest = request.submit.adapter
        if digest is None:
            return None
        self._residency.release(digest, request.id)
        if self._askers.get(digest) is request:
            del self._askers[digest]
        self._users[digest] -= 1
        if self._users[digest]:
            return None
        del self._users[digest]
        if digest not in self._retired:
            return None
        self._retired.discard(digest)
        return digest

    def serve(self) -> None:
        """Whatever has become possible since the last step."""
        self._residency.serve()

    def warm(self, digest: bytes, footprint: Footprint) -> Outcome:
        return self._residency.warm(digest, footprint)

    def drop(self, digest: bytes) -> None:
        """Retire it; what waits for it has left before."""
        self._residency.drop(digest)
        if digest in self._users:
            self._retired.add(digest)

    def asker(self, digest: bytes) -> Request | None:
        """For whom it is loaded: who asked first. None for what was warmed, or once it was told."""
        return self._askers.pop(digest, None)

    def actions(self) -> tuple[tuple[Load, ...], tuple[bytes, ...]]:
        """(loads, evictions) for the plan being made."""
        loads, evictions = self._residency.take_actions()
        self._loading.update(loads)
        return tuple(Load(digest, self._residency.extents(digest)) for digest in loads), evictions

    def ended(self, result: StepResult) -> list[tuple[str, AdapterUnavailable]]:
        """Take in loads that ended. Returns the requests that counted on a failed one, each with its refusal."""
        refused = []
        for digest in result.loaded:
            self._loading.discard(digest)
            pieces = result.held.get(digest)
            self._residency.loaded(digest, None if pieces is None else Footprint(pieces))
        for digest, reason in result.failed:
            self._loading.discard(digest)
            refusal = AdapterUnavailable("adapter", f"the adapter could not be loaded: {reason}")
            refused += [(owner, refusal) for owner in sorted(self._residency.failed(digest))]
        return refused

    @property
    def bytes_used(self) -> int:
        return self._residency.used

    @property
    def bytes_idle(self) -> int:
        return self._residency.idle_bytes

    @property
    def evicted(self) -> int:
        return self._residency.evicted

    @property
    def bytes_limit(self) -> int:
        return self._residency.limit

    def states(self) -> tuple[AdapterState, ...]:
        occupants = self._residency.occupants()
        return tuple(AdapterState(o.digest, o.state.value, o.bytes, o.users) for o in occupants)

    def check(self, requests: list[Request]) -> None:
        """Assert that what has started holds its adapter, and that users are counted right."""
        self._residency.check()
        users: dict[bytes, int] = {}
        for request in requests:
            digest = request.submit.adapter
            if digest is None:
                continue
            users[digest] = users.get(digest, 0) + 1
            if request.sequences:
                outcome = self._residency.acquire(digest, request.footprint, request.id)
                assert outcome is Outcome.HELD, "runs without its adapter"
        assert users == self._users, "users of adapters miscounted"
        assert self._retired <= self._users.keys(), "retired, unused, and remembered"
