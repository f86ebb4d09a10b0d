"""Who starts next: requests that have not run yet, by tenant.

Owns the queue's bounds and deadlines, and the order inside of one tenant: priority, then the key that is owed most,
then whose prompt is known longest. Which tenant's turn it is, the ledger's counters say. It must not know pages,
adapters' states or what a tenant is.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice, zip_longest

from tenantry.runtime.errors import QueueFull, ShareFull
from tenantry.runtime.scheduler.fairness import Flow, Ledger
from tenantry.runtime.scheduler.request import Request

LOOKAHEAD = 64  # requests of one tenant looked at in one turn
WINDOW = 4  # requests of one key and priority among which the best known prompt goes first
PATIENCE = 16  # turns of its tenant that the oldest request may be passed over

Known = Callable[[Request], int]
"""Tokens of a request's prompt whose KV is there."""


def nothing_known(request: Request) -> int:
    return 0


class Lane:
    """What one tenant has waiting. requests: by arrival. keys: the same, each key's by rank."""

    def __init__(self) -> None:
        self.requests: OrderedDict[str, Request] = OrderedDict()
        self.keys: dict[Flow, list[Request]] = {}
        self.passed = 0  # turns since the oldest became the oldest

    def offers(self, known: Known) -> Iterator[Request]:
        """In the order in which they should start. The caller starts at most one, or asks for another."""
        if self.passed >= PATIENCE:
            yield next(iter(self.requests.values()))
        ranks = {key: queue[0].rank[0] for key, queue in self.keys.items()}
        for key in sorted(ranks, key=lambda key: (ranks[key], key.order)):
            queue = self.keys.get(key, [])[:LOOKAHEAD]  # a copy: who is offered may leave
            if len(queue) > 1:
                window = [r for r in queue[:WINDOW] if r.rank[0] == ranks[key]]
                queue[: len(window)] = sorted(window, key=lambda request: -known(request))
            yield from (request for request in queue if request.id in self.requests)

    def add(self, request: Request) -> None:
        self.requests[request.id] = request
        insort(self.keys.setdefault(request.key, []), request, key=_rank)

    def remove(self, request: Request) -> None:
        """Raises KeyError if it is not here."""
        if request is next(iter(self.requests.values())):
            self.passed = 0
        del self.requests[request.id]
        queue = self.keys[request.key]
        del queue[bisect_left(queue, request.rank, key=_rank)]
        if not queue:
            del self.keys[request.key]


class WaitingQueue:
    """limit: most requests that may wait, share: of one tenant. A flooding tenant costs another's request one turn,
    never its whole queue."""

    def __init__(self, limit: int, share: int, ledger: Ledger) -> None:
        self._limit, self._share = limit, share
        self._ledger = ledger
        self._lanes: dict[Flow, Lane] = {}
        self._deadlines: list[tuple[float, int, Request]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, request: Request) -> bool:
        lane = self._lanes.get(request.tenant)
        return lane is not None and lane.requests.get(request.id) is request

    @property
    def tenants(self) -> list[Flow]:
        """Those that have something waiting, in the order in which they first had."""
        return list(self._lanes)

    def refuse_full(self, tenant: Flow | None) -> None:
        """Raises QueueFull if one more request (of this tenant; None has nothing waiting) would be too many."""
        if self._count >= self._limit:
            raise QueueFull(None, f"{self._limit} requests are waiting")
        if tenant is not None and tenant.waiting >= self._share:
            raise ShareFull(None, f"{self._share} of your requests are waiting")

    def push(self, request: Request) -> None:
        """The request's flows are known (Ledger.opened)."""
        self._ledger.waits(request)
        self._lanes.setdefault(request.tenant, Lane()).add(request)
        self._count += 1
        if request.expires is not None:
            heappush(self._deadlines, (request.expires, request.order, request))
            if len(self._deadlines) > 2 * self._count + 64:  # most of them have left meanwhile
                self._deadlines = [entry for entry in self._deadlines if entry[2] in self]
                heapify(self._deadlines)

    def offers(self, tenant: Flow, known: Known = nothing_known) -> Iterator[Request]:
        """A tenant's requests in the order in which they may start.

        One that the caller neither starts nor removes before asking on is passed over in favour of the next one, so
        that its wait holds up no one; it is offered again by the next call.
        """
        lane = self._lanes.get(tenant)
        return islice(lane.offers(known), LOOKAHEAD) if lane is not None else iter(())

    def oldest(self, tenant: Flow) -> Request:
        return next(iter(self._lanes[tenant].requests.values()))

    def soon(self, most: int) -> list[Request]:
        """The next to start if all of them can, every tenant in turn."""
        flows = sorted(self._lanes, key=lambda flow: flow.order)
        rounds = zip_longest(*(list(islice(self.offers(flow), most)) for flow in flows[:most]))
        return [request for turn in rounds for request in turn if request is not None][:most]

    def started(self, request: Request) -> None:
        """It leaves the queue, and its tenant has had its turn, which is charged already."""
        lane = self._lanes[request.tenant]
        lane.passed += 1
        self.remove(request)
        self._ledger.turned(request)

    def remove(self, request: Request) -> None:
        """It leaves without having started. Raises KeyError if it is not waiting."""
        lane = self._lanes[request.tenant]
        lane.remove(request)
        self._ledger.waits_no_more(request)
        self._count -= 1
        if not lane.requests:
            del self._lanes[request.tenant]

    def expire(self, now: float) -> list[Request]:
        """Take out those whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            request = heappop(self._deadlines)[2]
            if request in self:
                self.remove(request)
                late.append(request)
        return late

    def crowding(self) -> Request | None:
        """The newest request of the tenant with most of them."""
        lane = max(self._lanes.values(), key=lambda lane: len(lane.requests), default=None)
        return None if lane is None else next(reversed(lane.requests.values()))

    def of_adapter(self, digest: bytes) -> list[Request]:
        return [r for lane in self._lanes.values() for r in lane.requests.values() if r.submit.adapter == digest]

    def check(self) -> None:
        assert self._count == sum(len(lane.requests) for lane in self._lanes.values()), "waiting requests miscounted"
        assert self._count <= self._limit, "more wait than may"
        for flow, lane in self._lanes.items():
            assert lane.requests, "an empty queue was kept"
            assert flow.waiting == len(lane.requests) == sum(map(len, lane.keys.values())), (
                "a tenant's are miscounted"
            )
            assert flow.prompt == sum(r.prompt_length for r in lane.requests.values()), "prompts miscounted"
            assert all(key.waiting == len(queue) for key, queue in lane.keys.items()), "a key's are miscounted"
            assert all(queue == sorted(queue, key=_rank) for queue in lane.keys.values()), "out of order"


def _rank(request: Request) -> tuple[int, int]:
    return request.rank
