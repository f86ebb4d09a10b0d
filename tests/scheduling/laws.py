"""Laws that hold over time: who got how much, how long steps take, and what the tree says is what was written.

Owns what must be remembered from step to step to judge the core from outside. Numbers in assertions refer to the
simulator's invariants.
"""

from array import array
from itertools import combinations

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.messages import MAX_REJECTED_PER_TOKEN
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.fairness import Prices
from tenantry.runtime.scheduler.flights import WORTH_PAGES
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.scheduler.steptime import looked_at
from tests.scheduling.runner import FakeRunner
from tests.scheduling.world import Client, World, mix


class Shares:
    """11: VTC's bound between any two tenants while both wait. served: virtual tokens over weight.

    It is a bound where no one waits for an adapter and where time costs nothing."""

    def __init__(self, world: World, prices: Prices) -> None:
        self.world, self.prices = world, prices
        self.bounded = not world.adapter_sizes and not world.pool_s
        self.served = [0.0] * world.tenants
        self.ranges: dict[tuple[int, int], tuple[float, float]] = {}
        self.reached: dict[str, int] = {}
        self.told: dict[str, float] = {}
        tokens = min(world.pages * world.page_size, world.max_running * world.max_context)
        each = prices.decode + (MAX_REJECTED_PER_TOKEN * prices.rejected if world.guesses else 0.0)
        self.slack = each * tokens + prices.prompt * world.budget

    def step(self, plan: StepPlan, owners: dict[int, tuple[Client, int]], live: dict[str, Client]) -> None:
        """After the commit of a step: what was computed of prompts, and drawn, and whether that was fair."""
        if not self.bounded:
            return
        for row in plan.rows:
            client, _ = owners[row.sequence]
            name, prices = client.submit.request_id, self.prices
            reached, told = self.reached.get(name, 0), self.told.get(name, 0.0)
            end = min(row.start + len(row.tokens), len(client.submit.prompt))
            drawn = prices.decode * sum(map(len, client.outputs)) + prices.rejected * (
                client.drafted - client.accepted
            )
            units = prices.prompt * max(0, end - max(reached, row.start)) + drawn - told
            self.served[client.tenant] += units / client.submit.weight
            self.reached[name], self.told[name] = max(reached, end), drawn
        waiting = {c.tenant for c in live.values() if not c.started and not _follows(c, live, self.world.page_size)}
        lightest = min(self.world.weights)
        for pair in combinations(range(self.world.tenants), 2):
            if not waiting.issuperset(pair):
                self.ranges.pop(pair, None)
                continue
            gap = self.served[pair[0]] - self.served[pair[1]]
            low, high = self.ranges.get(pair, (gap, gap))
            self.ranges[pair] = low, high = min(low, gap), max(high, gap)
            assert high - low <= 2 * self.slack / lightest + self.prices.credit, (
                "11: one tenant was served at another's cost"
            )


def _follows(client: Client, live: dict[str, Client], page: int) -> bool:
    """Whether it may be waiting for one of its own whose prompt is being computed: then it is not its turn."""
    start = client.submit.prompt[:page]
    return any(
        other.started and other.submit.namespace == client.submit.namespace and other.submit.prompt[:page] == start
        and not any(other.outputs)
        for other in live.values()
    )  # fmt: skip


def paced(world: World, plan: StepPlan, scheduler: Scheduler, decoded: set[int]) -> None:
    """8: beside rows that decode, more than a page of prompts is within the target. decoded: sequences that would
    draw, before the step was planned."""
    if world.policy != "mixed" or not world.itl_target or not scheduler.times.learned:
        return
    decoding = [row for row in plan.rows if len(row.tokens) == 1]
    prompts = [row for row in plan.rows if len(row.tokens) > 1]
    tokens = sum(len(row.tokens) for row in prompts)
    if not decoded.intersection(row.sequence for row in decoding) or tokens <= world.page_size:
        return
    nodes = sum(len(row.draft.tokens) for row in decoding if row.draft is not None)
    attended = sum(row.start + len(row.tokens) for row in plan.rows)
    pairs = sum(looked_at(row.start, len(row.tokens)) for row in prompts)
    seconds = scheduler.times.seconds(len(decoding), nodes, tokens, attended, pairs)
    assert seconds <= 1.001 * world.itl_target, "8: a step over its target"


def single_flight(world: World, plan: StepPlan, owners: dict[int, tuple[Client, int]], scheduler: Scheduler) -> int:
    """40: who begins computes nothing that another of its namespace is about to share, if waiting for that one would
    have been no loss. Returns how many pairs began beside each other for another reason."""
    beside = 0
    prompts = [(row, owners[row.sequence][0]) for row in plan.rows if len(row.tokens) > 1]
    for at, (row, client) in enumerate(prompts):
        if client.started:
            continue
        for other, leader in prompts[:at]:
            if leader.submit.namespace != client.submit.namespace or leader is client:
                continue
            mine, theirs = client.submit.prompt[:-1], leader.submit.prompt
            same = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
            shared = min(len(mine), len(theirs)) if same is None else same
            shared -= shared % world.page_size
            lease = scheduler._sequences.by_id[other.sequence].lease
            known = min(shared, max(row.start, lease.matched))
            saved, left = shared - known, len(theirs) - other.start
            no_loss = left <= len(client.submit.prompt) - known + saved
            assert not (saved >= WORTH_PAGES * world.page_size and no_loss and left > world.page_size), (
                "40: a prefix is computed twice at once"
            )
            beside += 1
    return beside


def forgotten(cache: KvCache, gone: set[bytes]) -> None:
    """22: of what was deleted nothing is left in any tier once its last request has ended."""
    for namespace in gone:
        assert namespace not in cache.tree._roots, "22: KV of what was deleted is found again"
        assert cache.tiers is None or namespace not in cache.tiers._places, "22: a lower tier has what was deleted"


def shared_pages(
    world: World, scheduler: Scheduler, runner: FakeRunner, plan: StepPlan | None, starts: dict[bytes, int],
    verified: dict[int, object],
) -> dict[int, object]:  # fmt: skip
    """3, 4, 6: what the tree says a page holds is what was written there, for that namespace, and finite.

    verified: pages that were looked at already, by what the last call returned."""
    tree, current = scheduler.cache.tree, {}
    moves = plan.moves if plan is not None else ()
    unmoved = {to: page for page, to in (*moves, *scheduler.cache.arena.pending)}
    for node in tree:
        current[node.page] = node
        if verified.get(node.page) is node:
            continue
        path, at = [], node
        while at.parent is not None:
            path.append(at.key)
            at = at.parent
        state = starts[at.root.namespace]
        expected: list[int] = []
        for key in reversed(path):
            expected = []
            for token in array("I", key):
                state = mix(state, token)
                expected.append(state)
        cells = runner.kv[unmoved.get(node.page, node.page)][: world.page_size]
        assert cells == expected, "3, 6: a shared page holds something else"
    runner.memory.pages_within_floor(current.keys())
    return current
