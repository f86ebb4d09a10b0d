"""Who starts next: requests that have not run yet, in turn over share keys and in order of arrival inside one.

Owns order, bound and deadlines of the queue. It must not know pages, adapters' states or what a tenant is. Its
methods are the seam for other policies: a queue that charges work needs no more of the scheduler than this.
"""

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import islice, zip_longest

from tenantry.runtime.errors import QueueFull
from tenantry.runtime.scheduler.request import Request

LOOKAHEAD = 64  # keys, and requests of one key, looked at per step


class WaitingQueue:
    """limit: most requests that may wait. A flooding key costs another's request one turn, never its whole queue."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queues: OrderedDict[str, OrderedDict[str, Request]] = OrderedDict()  # next turn first
        self._deadlines: list[tuple[float, int, Request]] = []
        self._count = 0
        self._turns_taken = 0

    def __len__(self) -> int:
        return self._count

    def push(self, request: Request) -> None:
        """Raises QueueFull."""
        if self._count >= self._limit:
            raise QueueFull(None, f"{self._limit} requests are waiting")
        self._queues.setdefault(request.submit.share_key, OrderedDict())[request.id] = request
        self._count += 1
        if request.expires is not None:
            heappush(self._deadlines, (request.expires, request.order, request))
            if len(self._deadlines) > 2 * self._count + 64:  # most of them have left meanwhile
                self._deadlines = [entry for entry in self._deadlines if entry[2] in self]
                heapify(self._deadlines)

    def __contains__(self, request: Request) -> bool:
        queue = self._queues.get(request.submit.share_key)
        return queue is not None and queue.get(request.id) is request

    def turns(self) -> Iterator[Request]:
        """Requests in the order in which they may start: every key in turn, with its first that can.

        A request that the caller neither starts nor removes before asking on is passed over in favour of the next
        one of its own key, so that its wait holds up no one; it is offered again by the next call.
        """
        queues = [iter(list(islice(q.values(), LOOKAHEAD))) for q in list(self._queues.values())[:LOOKAHEAD]]
        while queues:
            alive = []
            for queue in queues:
                for request in queue:
                    taken = self._turns_taken
                    yield request
                    if self._turns_taken > taken:
                        alive.append(queue)
                        break
            queues = alive

    def soon(self, most: int) -> list[Request]:
        """The next to start if all of them can, every key in turn."""
        queues = (islice(queue.values(), most) for queue in islice(self._queues.values(), most))
        rounds = zip_longest(*queues)
        return [request for turn in rounds for request in turn if request is not None][:most]

    def started(self, request: Request) -> None:
        """It leaves the queue, and its key has had its turn."""
        self.remove(request)
        self._turns_taken += 1
        if request.submit.share_key in self._queues:
            self._queues.move_to_end(request.submit.share_key)

    def remove(self, request: Request) -> None:
        """It leaves without having started. Raises KeyError if it is not waiting."""
        queue = self._queues[request.submit.share_key]
        del queue[request.id]
        self._count -= 1
        if not queue:
            del self._queues[request.submit.share_key]

    def expire(self, now: float) -> list[Request]:
        """Take out those whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            request = heappop(self._deadlines)[2]
            if request in self:
                self.remove(request)
                late.append(request)
        return late

    def of_adapter(self, digest: bytes) -> list[Request]:
        return [r for queue in self._queues.values() for r in queue.values() if r.submit.adapter == digest]

    def check(self) -> None:
        assert self._count == sum(map(len, self._queues.values())) <= self._limit, "waiting requests miscounted"
        assert all(self._queues.values()), "an empty queue was kept"
