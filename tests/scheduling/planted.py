"""Known defects, most of them peers' real ones, planted by monkeypatching: each must be caught by the simulator.

Numbers in brackets are the items of the field's failures that a defect repeats; a simulator that lets one pass is
itself the defect.
"""

from collections.abc import Callable
from hashlib import blake2b
from itertools import islice

import pytest

from tenantry.adapters.residency import Residency
from tenantry.runtime.cache import radix
from tenantry.runtime.cache.arena import Arena
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.radix import RadixTree
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.scheduler import scheduler as scheduler_module
from tenantry.runtime.scheduler.batch import Batch
from tenantry.runtime.scheduler.farewells import Farewells
from tenantry.runtime.scheduler.finish import Ending, ending
from tenantry.runtime.scheduler.request import Request
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.scheduler.sequences import Sequences
from tenantry.runtime.scheduler.waiting import WaitingQueue, nothing_known

Plant = Callable[[pytest.MonkeyPatch], None]
DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    DEFECTS[plant.__name__] = plant
    return plant


@defect
def tenant_dropped_from_the_key(patch):
    """[28] One layer forgets the tenant: prefixes are shared across tenants."""
    patch.setattr(Namespace, "key", property(lambda self: blake2b(self.weights, digest_size=32).digest()))


@defect
def adapter_dropped_from_the_key(patch):
    """[19] KV of another adapter, or of its last version, is reused."""
    patch.setattr(Namespace, "key", property(lambda self: blake2b(self.scope, digest_size=32).digest()))


@defect
def weights_of_a_namespace_not_compared(patch):
    """[19] The same, with the engine's own second look switched off as well."""
    adapter_dropped_from_the_key(patch)
    original = RadixTree.plant

    def plant(self, namespace, weights, *rest):
        root = original(self, namespace, weights, *rest)
        root.weights = AnyWeights()
        return root

    patch.setattr(RadixTree, "plant", plant)


class AnyWeights:
    __hash__ = None

    def __eq__(self, other):
        return True


@defect
def inserted_before_commit(patch):
    """[32] A chunk's pages enter the tree when it is planned."""
    original = Batch.add

    def add(self, sequence, *rest):
        count = original(self, sequence, *rest)
        if self.rows and self.rows[-1].sequence == sequence.id:
            row = self.rows[-1]
            KvCache.seal(CACHES[-1], sequence.lease, sequence.tokens, row.start + len(row.tokens))
        return count

    remember = KvCache.__init__

    def init(self, *args, **named):
        remember(self, *args, **named)
        CACHES.append(self)

    patch.setattr(KvCache, "__init__", init)
    patch.setattr(Batch, "add", add)


CACHES: list[KvCache] = []


@defect
def freed_before_commit(patch):
    """[34] An abort frees pages that the step in flight still writes."""
    original = Arena.free

    def free(self, page):
        in_flight, self.in_flight = self.in_flight, False
        original(self, page)
        self.in_flight = in_flight

    patch.setattr(Arena, "free", free)


@defect
def released_twice(patch):
    """[39] Two release paths for one lease."""
    original = KvCache.release

    def release(self, lease):
        original(self, lease)
        for page in lease.pages[lease.sealed :]:
            self.arena.free(page)

    patch.setattr(KvCache, "release", release)


@defect
def pages_never_freed(patch):
    """[59] An ended sequence keeps its last page."""
    original = KvCache.release

    def release(self, lease):
        lease.pages = lease.pages[: max(lease.sealed, len(lease.pages) - 1)]
        original(self, lease)

    patch.setattr(KvCache, "release", release)


@defect
def lock_skipped(patch):
    """[34] A matched path is not pinned."""
    patch.setattr(RadixTree, "lock", lambda self, node: None)
    patch.setattr(RadixTree, "unlock", lambda self, node, used=True: None)
    patch.setattr(RadixTree, "check", lambda self, leases: {node.page for node in self})


@defect
def eviction_ignores_pins(patch):
    """[34] The least recently used leaf goes, leased or not."""

    def evict(self, count):
        freed = 0
        for node in [n for n in self if not n.children][:count]:
            self._detach(node)
            freed += 1
        return freed

    patch.setattr(RadixTree, "evict", evict)


@defect
def adapter_released_per_choice(patch):
    """[23] The claim is counted per choice, and the first to end lets go of it."""
    original = Scheduler._end

    def end(self, sequence, reason, matched):
        if sequence.request.submit.adapter is not None:
            self._claims._residency.release(sequence.request.submit.adapter, sequence.request.id)
        original(self, sequence, reason, matched)

    patch.setattr(Scheduler, "_end", end)


@defect
def adapter_evicted_in_use(patch):
    """[23] Who owns an adapter does not matter."""
    patch.setattr(Residency, "_idle", lambda self: [d for d, e in self._entries.items() if e.loaded])


@defect
def adapter_not_waited_for(patch):
    """[20] A request runs while its adapter is still loading."""
    patch.setattr("tenantry.runtime.scheduler.claims.Claims.held", lambda self, request: True)


@defect
def match_includes_the_last_token(patch):
    """A full hit leaves nothing to compute, hence no logits."""
    original = KvCache.lease
    patch.setattr(KvCache, "lease", lambda self, ns, tokens, *rest: original(self, ns, [*tokens, 0], *rest))


@defect
def faulty_page_sealed(patch):
    """[36] Pages with non-finite KV stay findable."""
    original = Scheduler._accept

    def accept(self, sequence, row, result, *rest):
        if result.fault is not None:
            self.cache.seal(sequence.lease, sequence.tokens, row.start + len(row.tokens))
        original(self, sequence, row, result, *rest)

    patch.setattr(Scheduler, "_accept", accept)


@defect
def chunk_sealed_before_it_is_known_finite(patch):
    """[36] A chunk is shared before any logits that depend on it were seen."""
    original = Scheduler._accept

    def accept(self, sequence, row, result, *rest):
        original(self, sequence, row, result, *rest)
        if row.draw is None and sequence.lease is not None:
            self.cache.seal(sequence.lease, sequence.tokens, sequence.computed)

    patch.setattr(Scheduler, "_accept", accept)


@defect
def duplicate_page_kept_in_the_block_table(patch):
    """The newcomer's page is freed, but its sequence goes on reading it."""
    original = KvCache.seal

    def seal(self, lease, tokens, computed):
        before = list(lease.pages)
        original(self, lease, tokens, computed)
        lease.pages[:] = before

    patch.setattr(KvCache, "seal", seal)


@defect
def one_page_too_few(patch):
    """[42] Off by one at a page boundary."""
    original = KvCache.extend
    patch.setattr(KvCache, "extend", lambda self, lease, tokens: original(self, lease, tokens - 1))


@defect
def computed_one_too_far(patch):
    """The drawn token counts as computed before it was."""
    original = Scheduler._draw

    def draw(self, sequence, drawn, *rest):
        original(self, sequence, drawn, *rest)
        if sequence.lease is not None and len(sequence.tokens) - sequence.computed > 1:
            sequence.computed += 1

    patch.setattr(Scheduler, "_draw", draw)


@defect
def finished_twice(patch):
    """Two paths end one request."""
    original = Scheduler._finish

    def finish(self, request, reason, message=""):
        original(self, request, reason, message)
        self._events.append(self._events[-1])

    patch.setattr(Scheduler, "_finish", finish)


@defect
def abort_without_an_answer(patch):
    """[59] An aborted request is forgotten silently."""
    original = Scheduler.abort

    def abort(self, request_id, now):
        before = len(self._events)
        original(self, request_id, now)
        del self._events[before:]

    patch.setattr(Scheduler, "abort", abort)


@defect
def min_tokens_ignored(patch):
    """End tokens are not forbidden while the choice is too short."""
    original = Request.__init__

    def init(self, *args):
        original(self, *args)
        self.forbidden = ()

    patch.setattr(Request, "__init__", init)


@defect
def tokens_after_the_end_kept(patch):
    """[38] Several tokens at once: those after the stop token are sent and billed."""

    def keeps_all(sampling, stops, generated, drawn):
        end = ending(sampling, stops, generated, drawn)
        return end and Ending(len(drawn), end.reason, end.matched)

    patch.setattr(scheduler_module, "ending", keeps_all)


@defect
def hits_of_a_preempted_sequence_billed_as_cached(patch):
    """[54] A re-hit after preemption counts as the client's cache hit."""
    original = Sequences.run

    def run(self, sequence):
        done = original(self, sequence)
        if done and sequence.choice == 0:
            sequence.request.cached = max(sequence.request.cached, sequence.lease.matched)
        return done

    patch.setattr(Sequences, "run", run)


@defect
def every_choice_billed_for_the_prompt(patch):
    """The prompt is counted once per choice."""
    original = Sequences.fork

    def fork(self, request):
        original(self, request)
        request.prompt *= request.submit.sampling.n

    patch.setattr(Sequences, "fork", fork)


@defect
def a_blocked_request_holds_up_its_key(patch):
    """[60] Nobody starts behind a request that waits for its adapter; with two keys, each waits for the other."""
    original = WaitingQueue.offers

    def offers(self, tenant, known=nothing_known):
        others = [flow for flow in self.tenants if flow is not tenant]
        return islice(original(self, tenant, known), 1) if others else iter(())

    patch.setattr(WaitingQueue, "offers", offers)


@defect
def loads_not_asked_after(patch):
    """[61] With no rows to run, nobody asks whether a load has ended."""
    patch.setattr("tenantry.runtime.scheduler.claims.Claims.pending", property(lambda self: False))


@defect
def pinned_count_drifts(patch):
    """The books of evictable pages are wrong by one."""
    original = RadixTree.insert

    def insert(self, node, tokens, page):
        before = self.pinned
        child = original(self, node, tokens, page)
        self.pinned = before
        return child

    patch.setattr(RadixTree, "insert", insert)


@defect
def token_comparison_by_a_short_hash(patch):
    """[30] Keys are hashes that collide, and tokens are not compared."""
    original = radix.encode
    patch.setattr(radix, "encode", lambda tokens: b"".join(original([t % 2]) for t in tokens))


@defect
def deadlines_ignored(patch):
    """[61] A request starts after its deadline."""
    patch.setattr(WaitingQueue, "expire", lambda self, now: [])


@defect
def holders_passed_over_with_those_who_wait(patch):
    """[60] A request that holds its adapter is skipped because another one waits for the same: both wait for ever."""
    patch.setattr(Request, "claims", property(lambda self: False, lambda self, value: None))


@defect
def deleted_while_it_ran(patch):
    """What is deleted is forgotten once, and what still ran leaves its KV behind for whoever asks next."""
    patch.setattr(Farewells, "ended", lambda self, request, left: None)
