"""Prompts that are being computed, and who had better wait for one of them: single flight for a shared prefix.

Owns that question for the length of one plan. A namespace is a tenant's own, so nobody waits for another tenant, and
nobody's waiting tells one what another computes. It must not know queues, budgets or adapters.
"""

from collections import defaultdict

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.scheduler.request import Phase, Request, Sequence

WORTH_PAGES = 4  # that waiting saves: for less, a step of delay costs more


class Flights:
    """A popular prefix that is cold would be computed by everybody who comes before the first has shared it: pages
    are shared when the first token proves them finite. So the others wait, until the first has drawn or gives way."""

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._size = cache.page_size
        self._leaders: dict[bytes, list[Sequence]] = {}
        self._known: dict[int, int] = {}

    def begin(self, running: list[Sequence]) -> None:
        """A plan is being made, in which these go on as far as they do not give way."""
        self._known = {}
        self._leaders = defaultdict(list)
        for sequence in running:
            self.leads(sequence)

    def leads(self, sequence: Sequence) -> None:
        """It computes a prompt, whose pages nobody else finds yet."""
        if sequence.request.prompt_length - sequence.computed > self._size:
            self._leaders[sequence.request.submit.namespace].append(sequence)

    def waits(self, request: Request) -> bool:
        """Whether one that is under way computes so much of this prompt that waiting for it is no loss.

        Both by turns would be ready when all is computed: what the leader has left, and all of this prompt. Waiting
        saves what they share; where the leader has more left than this prompt would take twice, it is not waited for.
        """
        prompt = request.submit.prompt
        for leader in self._under_way(request.submit.namespace):
            shared = self._shared(prompt, leader)
            known = min(shared, self._found(leader)) if shared else 0
            saved, own = shared - known, len(prompt) - known
            left = leader.request.prompt_length - leader.computed
            if saved >= WORTH_PAGES * self._size and left <= own + saved:
                return True
        return False

    def _under_way(self, namespace: bytes) -> list[Sequence]:
        """Leaders that have not given way since."""
        return [leader for leader in self._leaders.get(namespace, ()) if leader.phase is Phase.RUNNING]

    def _shared(self, prompt: tuple[int, ...], leader: Sequence) -> int:
        """Tokens in whole pages at the beginning of both, but for this one's last, which is always computed."""
        other, size = leader.request.submit.prompt, self._size
        if prompt[:size] != other[:size]:
            return 0
        low, high = 0, min(len(prompt) - 1, len(other)) // size
        while low < high:
            middle = (low + high + 1) // 2
            if prompt[low * size : middle * size] == other[low * size : middle * size]:
                low = middle
            else:
                high = middle - 1
        return low * size

    def _found(self, leader: Sequence) -> int:
        """Tokens of the leader's prompt that anybody finds: it did itself, in some tier, or the tree has them now."""
        found = self._known.get(leader.id)
        if found is None:
            submit, lease = leader.request.submit, leader.lease
            assert lease is not None
            pages = self._cache.tree.match(submit.namespace, submit.prompt).pages
            found = self._known[leader.id] = max(lease.matched, len(pages) * self._size)
        return found
