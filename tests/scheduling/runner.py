"""The fake device's side of the contract: it computes rows as the plan says, in memory that remembers everything.

Owns what a real runner would do, and every check that only it can make. Numbers in assertions refer to the
simulator's invariants.
"""

from array import array
from collections import Counter
from random import Random

from tenantry.adapters.room import Footprint
from tenantry.runtime.cache.arena import Arena, BlockClass
from tenantry.runtime.plan import Arrival, Row, RowResult, StepPlan, StepResult
from tests.scheduling.device import DeviceMemory
from tests.scheduling.guessing import Cells, verdict
from tests.scheduling.world import Client, World, mix, pick, salt


class FakeRunner:
    """device: adapters that are resident. loading: steps until each of the others is. seen: what has happened."""

    def __init__(
        self, world: World, rng: Random, arena: Arena, memory: DeviceMemory, footprints: dict[bytes, Footprint],
        seen: Counter[str],
    ) -> None:  # fmt: skip
        self.world, self.rng, self.arena, self.footprints, self.seen = world, rng, arena, footprints, seen
        self.memory = memory
        self.kv = self.memory.cells
        self.device: set[bytes] = set()
        self.loading: dict[bytes, int] = {}

    def run(self, plan: StepPlan, owners: dict[int, tuple[Client, int]], now: float) -> StepResult:
        world, memory = self.world, self.memory
        self.now = now
        for digest in plan.evict:
            assert digest in self.device, "7: eviction of an adapter that is not there"
            self.device.discard(digest)
            memory.evict(digest)
        memory.move(plan)
        for load in plan.load:
            assert load.digest not in self.device, "7: load of a resident adapter"
            assert load.digest not in self.loading, "7: loaded twice"
            self.loading[load.digest] = world.load_delay
            memory.place(load)
        resident = self.device | self.loading.keys()
        total = sum((memory.held if d in self.device else self.footprints)[d].bytes for d in resident)
        assert world.arena or total <= world.adapter_limit, "7: more than its bytes"
        memory.pages_within_floor({page for row in plan.rows for page in row.pages})
        assert sum(map(computed, plan.rows)) <= world.budget, "8: over the token budget"
        assert len({r.sequence for r in plan.rows}) == len(plan.rows) <= world.max_running, "8: too many rows"
        writes: Counter[int] = Counter()
        arrived = tuple(arrival.request_id for arrival in plan.arrivals if self.arrive(arrival, writes))
        rows = tuple(self.row(row, *owners[row.sequence], writes) for row in plan.rows)
        assert not writes or max(writes.values()) == 1, "1: two rows write one page"
        for departure in plan.departures:
            cells = [cell for page in departure.pages for cell in self.kv[page][: world.page_size]]
            departure.target[:] = array("q", cells).tobytes()
        loaded, failed = [], []
        for digest in list(self.loading):
            memory.write(digest)
            if self.loading[digest] > 0:
                self.loading[digest] -= 1
                continue
            del self.loading[digest]
            if self.rng.random() < world.load_fails:
                memory.evict(digest)
                failed.append((digest, "injected"))
                self.seen["load failed"] += 1
            else:
                loaded.append(digest)
                self.device.add(digest)
                self.seen["loaded"] += 1
        held = {d: memory.held[d].pieces for d in loaded if memory.held[d] != self.footprints[d]}
        self.seen["held less"] += len(held)
        departed = tuple(departure.request_id for departure in plan.departures)
        copied = memory.settle()
        return StepResult(
            rows, tuple(loaded), tuple(failed), held=held, copied=copied, arrived=arrived, departed=departed
        )

    def arrive(self, arrival: Arrival, writes: Counter[int]) -> bool:
        """Write what another engine has computed; now and then that fails in the middle."""
        size, cells = self.world.page_size, array("q", arrival.source.tobytes())
        fails = self.rng.random() < self.world.load_fails
        assert len(cells) == size * len(arrival.pages), "3: another number of pages than were computed"
        for at, page in enumerate(arrival.pages):
            kind = self.arena.class_of(page)
            assert kind in (BlockClass.OWNED, BlockClass.FENCED), "6: an arrival overwrites what is not its own"
            writes[page] += 1
            self.kv[page][:size] = [-8] * size if fails else cells[at * size : (at + 1) * size]
        return not fails

    def row(self, row: Row, client: Client, choice: int, writes: Counter[int]) -> RowResult:
        size = self.world.page_size
        tokens, hashes = client.tokens(choice), client.hashes[choice]
        start, end = row.start, row.start + len(row.tokens)
        assert row.adapter == client.submit.adapter, "7: the wrong adapter"
        assert row.adapter is None or row.adapter in self.device, "7: the adapter is not resident"
        if row.adapter is not None:
            self.memory.read(row.adapter)
        reach = end + (len(row.draft.tokens) if row.draft is not None else 0) + max(row.ahead, row.nodes)
        assert start < end <= reach <= len(row.pages) * size, "3: positions outside of the block table"
        assert list(row.tokens) == tokens[start:end], "12: other tokens than the request's"
        assert (row.draw is not None) == (end == len(tokens)), "12: a draw elsewhere than at the end"
        if client.first_start is None:
            client.first_start = start
            client.started = True
            deadline = client.submit.deadline
            assert not deadline or self.now < client.came + deadline + 1e-9, "11: an expired request is prefilled"
            self.seen["hit" if start else "miss"] += 1
        poisoned = False
        for index in range(-(-reach // size)):
            page, low = row.pages[index], index * size
            kind = self.arena.class_of(page)
            assert kind not in (BlockClass.FREE, BlockClass.ADAPTER), "5: a page in use is not a page"
            cells = self.kv[page]
            for at in range(low, min(low + size, start)):
                if cells[at - low] == -1 - row.sequence:
                    poisoned = True
                else:
                    assert cells[at - low] == hashes[at], "3: read a page that was not written for this prefix"
            if low + size > start:
                assert kind is not BlockClass.TREE, "6: write into a shared page"
                writes[page] += 1
        if self.rng.random() < self.world.nan:
            poisoned = True
        for at in range(start, end):
            self.kv[row.pages[at // size]][at % size] = -1 - row.sequence if poisoned else hashes[at]
        if row.draw is None:
            self.seen["chunk"] += 1
            return RowResult()
        if poisoned:
            self.seen["fault"] += 1
            return RowResult(fault="non-finite logits")
        assert list(row.draw.history) == tokens, "12: another history than the request's"
        assert (row.draw.position, row.draw.prompt_length) == (len(tokens), len(client.submit.prompt))
        minimum = client.submit.sampling.min_tokens
        told = len(client.outputs[choice])

        def draw(state: int, count: int) -> int:
            forbidden = row.draw.forbidden if told + count < minimum else ()
            return pick(state, salt(client.submit, choice), self.world.vocab, forbidden)

        if row.draft is not None:
            drawn = verdict(row.draft, hashes[-1], Cells(self.kv, row.pages, size, end), draw)
            self.seen["guess"] += len(drawn) - 1
            self.seen["branch"] += not row.draft.is_chain
            client.drafted += len(row.draft.tokens)
            client.standing[choice] = len(drawn) - 1
            return RowResult(tuple(drawn), accepted=len(drawn) - 1)
        drawn, state = [draw(hashes[-1], 0)], hashes[-1]
        while told + len(drawn) > minimum and self.rng.random() < self.world.burst:
            self.seen["burst"] += 1
            state = mix(state, drawn[-1])
            drawn.append(draw(state, len(drawn)))
        return RowResult(tuple(drawn))


def computed(row: Row) -> int:
    """Tokens of a row, guesses included."""
    return len(row.tokens) + (len(row.draft.tokens) if row.draft is not None else 0)
