"""Prompts that other engines compute for this one: expected, fetched, taken, or computed here after all.

Owns expected requests until the scheduler gets them, and the pages that are reserved for them. It must not know the
scheduler, steps or sockets. Nothing here decodes: a hand-off only puts whole pages into the prefix tree, each under
the tokens that this engine's own request has and after its checksum was verified; then the request starts like any
other and finds them there. What is missing, late, damaged or foreign is simply not found, and computed.
"""

from dataclasses import dataclass, field

from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.leases import KvCache, Lease
from tenantry.runtime.disagg.names import names
from tenantry.runtime.disagg.transport import Receiver
from tenantry.runtime.errors import InvalidNamespace
from tenantry.runtime.messages import HandOff, Submit
from tenantry.runtime.plan import Arrival


@dataclass(frozen=True, slots=True)
class Ready:
    """For the scheduler. elsewhere: tokens of the prompt that it will find, though they were computed for it. since:
    when it came."""

    submit: Submit
    footprint: Footprint
    elsewhere: int
    since: float


@dataclass(slots=True)
class _Expected:
    submit: Submit
    footprint: Footprint
    since: float
    pages: int
    lease: Lease | None
    hand_off: HandOff | None = None
    source: memoryview | None = None


@dataclass(slots=True)
class Counts:
    taken: int = 0
    late: int = 0
    refused: int = 0
    damaged: int = 0
    no_room: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Intake:
    """wait_s: how long a prompt is waited for. share: most of the sure pages that are reserved at once, as a part."""

    cache: KvCache
    receiver: Receiver
    page_format: str
    page_bytes: int
    wait_s: float
    share: float = 0.5
    counts: Counts = field(default_factory=Counts)
    _expected: dict[str, _Expected] = field(default_factory=dict)
    _ready: list[Ready] = field(default_factory=list)
    _reserved: int = 0

    def __len__(self) -> int:
        return len(self._expected)

    def expected(self) -> list[Submit]:
        """Requests that the scheduler has not got yet."""
        return [entry.submit for entry in self._expected.values()] + [ready.submit for ready in self._ready]

    @property
    def leases(self) -> list[Lease]:
        return [entry.lease for entry in self._expected.values() if entry.lease is not None]

    @property
    def reserved(self) -> int:
        """Pages that no sequence has yet."""
        return self._reserved

    def expect(self, submit: Submit, footprint: Footprint, now: float) -> None:
        """A prompt is on its way: reserve the pages that it will need, as far as there is room."""
        pages = (len(submit.prompt) - 1) // self.cache.page_size
        one = self._expected[submit.request_id] = _Expected(submit, footprint, now, pages, None)
        self._reserve(one)

    def take(self, request_id: str, hand_off: HandOff) -> None:
        """It has been computed. One that nobody expects any more came too late, and was counted when it did not."""
        one = self._expected.get(request_id)
        if one is None or one.hand_off is not None:
            return
        if not self._fits(one.submit, hand_off):
            self.counts.refused += 1
            self._begin(one)
            return
        one.hand_off = hand_off
        if one.lease is None:
            self._reserve(one)
        if one.lease is None:
            self.counts.no_room += 1
            self._begin(one)
            return
        self.receiver.fetch(request_id, hand_off, one.lease.sealed)

    def compute(self, request_id: str) -> None:
        """Nothing will come. Unknown ids are ignored, and those whose pages are here already."""
        one = self._expected.get(request_id)
        if one is not None and one.hand_off is None:
            self.counts.late += 1
            self._begin(one)

    def abort(self, request_id: str) -> bool:
        """Whether it was here: it is not any more, and holds nothing."""
        one = self._expected.pop(request_id, None)
        if one is not None:
            self._release(one)
            return True
        before = len(self._ready)
        self._ready = [ready for ready in self._ready if ready.submit.request_id != request_id]
        return len(self._ready) < before

    def turn(self, now: float) -> None:
        """Before a step is planned: what was fetched, and what is waited for no longer."""
        for request_id, source in self.receiver.ended():
            one = self._expected.get(request_id)
            if one is None:
                continue
            one.source = source
            if source is None:
                self.counts.damaged += 1
                self._begin(one)
        for one in [one for one in self._expected.values() if one.hand_off is None]:
            if now - one.since > self.wait_s:
                self.counts.late += 1
                self._begin(one)

    def ready(self) -> list[Ready]:
        """Whose turn has come since the last call."""
        ready, self._ready = self._ready, []
        return ready

    @property
    def has_work(self) -> bool:
        return bool(self._expected or self._ready)

    def give_way(self, wanted: int) -> None:
        """Sequences that run want so many pages: reservations that nothing has come for are the first to go."""
        for one in list(self._expected.values()):
            if self.cache.available >= wanted:
                return
            if one.source is None:
                self._release(one)
                if one.hand_off is not None:  # its bytes are being checked, and would find no room
                    self.counts.no_room += 1
                    self._begin(one)

    def arrivals(self) -> tuple[Arrival, ...]:
        """What the next step is to write. Page ids are those of now: asked for after the step was planned."""
        found = []
        for request_id, one in self._expected.items():
            if one.source is not None and one.lease is not None and one.hand_off is not None:
                pages = one.lease.pages[one.lease.sealed : len(one.hand_off.pages)]
                found.append(Arrival(request_id, tuple(pages), one.source))
        return tuple(found)

    def arrived(self, planned: tuple[Arrival, ...], written: tuple[str, ...]) -> None:
        """The step has ended. What it did not write is computed here."""
        for arrival in planned:
            one = self._expected.get(arrival.request_id)
            if one is None or one.hand_off is None or one.lease is None:
                continue
            if arrival.request_id not in written:
                self.counts.damaged += 1
                self._begin(one)
                continue
            size, found, usage = self.cache.page_size, one.lease.matched, one.hand_off.usage
            end = one.pages * size
            self.cache.seal(one.lease, one.submit.prompt, end)
            self.counts.taken += 1
            self.counts.bytes += len(arrival.pages) * self.page_bytes
            self._begin(one, max(0, end - max(usage.cached, found)))

    def _fits(self, submit: Submit, hand_off: HandOff) -> bool:
        """It is this request's, and its pages are such as ours."""
        ours = names(submit.namespace, submit.prompt[:-1], self.cache.page_size)
        return (
            hand_off.page_format == self.page_format
            and hand_off.page_bytes == self.page_bytes
            and (hand_off.namespace, hand_off.adapter) == (submit.namespace, submit.adapter)
            and hand_off.sampling == submit.sampling
            and [page.name for page in hand_off.pages] == list(ours)
        )

    def _reserve(self, one: _Expected) -> None:
        """Found pages are pinned and others taken: from what is left over by sequences, or not at all."""
        cache = self.cache
        missing = one.pages
        if missing + self._reserved > cache.sure * self.share or missing > cache.startable:
            return
        try:
            submit = one.submit
            lease = cache.lease(submit.namespace, submit.prompt, submit.adapter, submit.tenant)
        except InvalidNamespace:
            return  # told when it starts
        if not cache.extend(lease, one.pages * cache.page_size):
            cache.rollback(lease)
            return
        one.lease = lease
        self._reserved += len(lease.pages)

    def _release(self, one: _Expected, used: bool = False) -> None:
        if one.lease is not None:
            self._reserved -= len(one.lease.pages)
            (self.cache.release if used else self.cache.rollback)(one.lease)
            one.lease = None

    def _begin(self, one: _Expected, elsewhere: int = 0) -> None:
        """The scheduler's turn. Its lease finds in the tree what was sealed just now."""
        self._expected.pop(one.submit.request_id)
        self._release(one, used=elsewhere > 0)
        self._ready.append(Ready(one.submit, one.footprint, elsewhere, one.since))
