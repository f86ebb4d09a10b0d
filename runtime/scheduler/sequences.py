"""Started sequences: which hold pages, which wait for them, and who gives way when pages run out.

Owns leases of running sequences, order of service and preemption. It must not know adapters, budgets or events.
"""

from bisect import insort
from collections import Counter
from collections.abc import Iterable

from tenantry.runtime.cache.leases import KvCache, Lease
from tenantry.runtime.scheduler.fairness import Flow
from tenantry.runtime.scheduler.request import Phase, Request, Sequence


class Sequences:
    """running: those with a lease, ready: those to be given one, preempted or new; both by rank, oldest first.

    What fits the pool alone ends: of those that run one always goes on, and each time that one gives way for pages, a
    page of tokens was drawn since the last time. preemptions: of these. yielded: of places (see overdrawn).
    """

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self.running: list[Sequence] = []
        self.ready: list[Sequence] = []
        self.by_id: dict[int, Sequence] = {}
        self.preemptions = 0
        self.yielded = 0
        self._made = 0

    def make(self, request: Request, choice: int) -> Sequence:
        """A sequence in no queue yet."""
        self._made += 1
        return Sequence(self._made, request, choice)

    def fork(self, request: Request) -> None:
        """The first choice's prompt is committed: the others follow, and find it in the tree."""
        for choice in range(1, request.submit.sampling.n):
            sequence = self.make(request, choice)
            request.sequences.append(sequence)
            self.queue(sequence)

    def queue(self, sequence: Sequence) -> None:
        sequence.phase, sequence.computed = Phase.WAITING, 0
        insort(self.ready, sequence, key=_rank)

    def run(self, sequence: Sequence) -> bool:
        """Lease pages for all its tokens, leaving one for each running sequence to grow into; or nothing at all.

        Raises InvalidNamespace. The sequence is in no queue before, and in `running` after True.
        """
        submit, tokens, cache = sequence.request.submit, sequence.tokens, self._cache
        lease = cache.lease(submit.namespace, tokens, submit.adapter, submit.tenant)
        missing = cache.pages_for(len(tokens)) - len(lease.pages)
        if missing + len(self.running) > cache.startable or not cache.admit(lease, len(tokens)):
            cache.rollback(lease)
            return False
        sequence.lease, sequence.computed, sequence.phase = lease, lease.matched, Phase.RUNNING
        self.by_id[sequence.id] = sequence
        insort(self.running, sequence, key=_rank)
        sequence.tenant.running += 1
        return True

    def grow(self, sequence: Sequence) -> bool:
        """Pages for all its tokens, taken from the last of the tenant that was served most, if there are none. False:
        that was the sequence itself."""
        lease = sequence.lease
        assert lease is not None
        while not self._cache.extend(lease, len(sequence.tokens)):
            victim = max(self.running, key=_served)
            self.preempt(victim)
            self.preemptions += 1
            if victim is sequence:
                return False
        return True

    def spread(self, sequence: Sequence, positions: int) -> bool:
        """Pages for so many positions after its last token, from free ones alone: nobody gives way to a guess."""
        lease, cache = sequence.lease, self._cache
        assert lease is not None
        need = len(sequence.tokens) + positions
        missing = cache.pages_for(need) - len(lease.pages)
        return missing <= min(cache.arena.free_count, cache.startable) and cache.extend(lease, need)

    def overdrawn(self, flow: Flow) -> Sequence | None:
        """Whose place this tenant may have: of the tenant with most places for its weight, if that was served more
        and still has as many as this one when it has given one; the sequence that loses least by it, and of equals
        the last."""
        most = max((s.tenant for s in self.running), key=_places, default=flow)
        if most.order <= flow.order or (most.running - 1) / most.weight < (flow.running + 1) / flow.weight:
            return None
        theirs = (s for s in reversed(self.running) if s.tenant is most)
        return min(theirs, key=self._unsealed)

    def yield_place(self, sequence: Sequence) -> None:
        """See overdrawn. Only somebody new may take it, so there is an end to it."""
        self.preempt(sequence)
        self.yielded += 1

    def preempt(self, sequence: Sequence) -> None:
        """Give its pages back; what the tree does not keep is computed again, to the same tokens."""
        self.leave(sequence)
        self.queue(sequence)

    def _unsealed(self, sequence: Sequence) -> int:
        """Tokens that would be computed again."""
        assert sequence.lease is not None
        return sequence.computed - sequence.lease.sealed * self._cache.page_size

    def leave(self, sequence: Sequence) -> None:
        """Out of every queue, without pages. Repeating it is a no-op."""
        if sequence.phase is Phase.RUNNING:
            assert sequence.lease is not None
            self._cache.release(sequence.lease)
            sequence.lease = None
            self.running.remove(sequence)
            sequence.tenant.running -= 1
            del self.by_id[sequence.id]
        elif sequence.phase is Phase.WAITING:
            self.ready.remove(sequence)
        sequence.phase = Phase.ENDED

    def check(self, requests: Iterable[Request], expected: Iterable[Lease] = ()) -> None:
        """Assert that every live sequence is in exactly one queue, in order, with the pages it ought to have; and
        that there are no leases but theirs and those expected."""
        live = sorted((s for r in requests for s in r.sequences if s.phase is not Phase.ENDED), key=_rank)
        assert sorted(self.running + self.ready, key=_rank) == live, "a live sequence is in no queue, or in two"
        assert self.running == sorted(self.running, key=_rank), "running out of order"
        assert self.ready == sorted(self.ready, key=_rank), "ready out of order"
        assert self.by_id == {s.id: s for s in self.running}, "running sequences and their ids differ"
        running = Counter(s.tenant for s in self.running)
        assert all(flow.running == count for flow, count in running.items()), "a tenant's places are miscounted"
        leases = [s.lease for s in self.running if s.lease is not None]
        assert len(leases) == len(self.running), "runs without pages"
        assert all(s.lease is None for s in self.ready), "waits with pages"
        self._cache.check_leases([*leases, *expected])
        for sequence, lease in zip(self.running, leases, strict=True):
            assert sequence.computed < len(sequence.tokens), "nothing left to compute"
            assert lease.sealed * self._cache.page_size <= sequence.computed, "a page sealed before its tokens"


def _rank(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.rank


def _served(sequence: Sequence) -> tuple[float, tuple[int, int, int]]:
    return sequence.tenant.counter, sequence.rank


def _places(flow: Flow) -> float:
    return flow.running / flow.weight
