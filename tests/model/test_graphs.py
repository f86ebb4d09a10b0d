"""Decode from graphs sees what eager decode sees: any mix in one bucket's buffers, and nothing of its padding.

The graph is a stand-in that calls the captured function again; the model one that answers with what it reads of the
step's tensors, and only of them: whatever was frozen at capture, or left over from another step, shows.
"""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

from tenantry.kernels.attention.plan import AttentionPlan
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.runtime.messages import Sampling
from tenantry.runtime.model.decoder import Output
from tenantry.runtime.model.errors import AdapterNotResident
from tenantry.runtime.model.forward import SHORTEST, Captured, Eager, Graphed, buckets
from tenantry.runtime.plan import Draw, Row

PAGE, LONGEST = 16, 5000
DRAW = Draw(Sampling(max_tokens=1), 0, 0, 0, ())


class Again:
    """A graph that computes into the memory of its first output by calling what it captured."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, run) -> Captured:
        self.captures += 1
        output = run()

        def replay() -> None:
            self.replays += 1
            for mine, new in zip(output, run(), strict=True):
                mine.copy_(new)

        return Captured(replay, output)


class Mirror:
    """In a decoder's place. logits: token, position, tokens in pages, a number made of the pages, adapter's slot + 1.
    stored: token by slot."""

    def __init__(self) -> None:
        self.ops = SimpleNamespace(device="cpu")
        self.stored: dict[int, int] = {}

    def forward(self, batch) -> Output:
        plan, out = batch.attention, torch.zeros(len(batch.tokens), 5)
        out[:, 0], out[:, 1] = batch.tokens, batch.positions
        for row, (first, past) in enumerate(zip(plan.cu_q[:-1].tolist(), plan.cu_q[1:].tolist(), strict=True)):
            if past > first:
                length = int(plan.lengths[row])
                pages = plan.block_table[row, : -(-length // PAGE)].tolist()
                out[first:past, 2], out[first:past, 3] = length, sum(i * page for i, page in enumerate(pages, 1))
        if batch.lora is not None:
            for slot, first, past in batch.lora.tiles[: int(batch.lora.counts[0])].tolist():
                out[batch.lora.tokens[first:past].long(), 4] = slot + 1
        self.stored.update((s, t) for s, t in zip(batch.slots.tolist(), batch.tokens.tolist(), strict=True) if s >= 0)
        return Output(out[batch.last], torch.ones(len(out), dtype=torch.bool), out[:, :0])


class Table:
    def __init__(self) -> None:
        self.ranks, self.epoch, self.on_device = np.full(8, 16, np.int32), 0, object()
        self.awaited: list[list[int | None]] = []

    def tensors(self) -> object:
        return self.on_device

    def wait(self, slots: list[int | None]) -> None:
        self.awaited.append(slots)


class Slots:
    """Adapters whose digest is their slot."""

    def __init__(self) -> None:
        self.table = Table()

    def slots(self, digests) -> list[int | None]:
        if any(digest and digest[0] > 7 for digest in digests):
            raise AdapterNotResident("not here")
        return [None if digest is None else digest[0] for digest in digests]

    def plan(self, digests, q_lens) -> LoraPlan | None:
        table = self.table
        return LoraPlan.build(self.slots(digests), q_lens, table.ranks, table.epoch) if any(digests) else None


@pytest.fixture
def eager():
    return Eager(Mirror(), Slots(), PAGE)


def rows_of(*what: tuple[int, int, int | None]) -> list[Row]:
    """(token, position, slot) of each row; every row has pages of its own."""
    return [
        Row(
            i,
            (token,),
            at,
            [7 + 1000 * i + p for p in range(at // PAGE + 1)],
            None if s is None else bytes([s]),
            DRAW,
        )
        for i, (token, at, s) in enumerate(what)
    ]


MIXES = [
    rows_of((5, 17, None), (9, 4, 1), (77, 39, 2)),
    rows_of((5, 17, 0), (9, 3, 0), (77, 0, 0), (3, 800, 0)),
    rows_of((50, 1, 2)),
    rows_of((50, 15, None), (51, 16, None)),
    rows_of((1, 20, 2), (2, 21, 1), (3, 22, 0), (4, 23, None), (5, 24, 2)),
    rows_of((1, SHORTEST - 1, 4), (6, 2, None)),
    rows_of((1, SHORTEST, 4), (6, 2, None), (8, LONGEST - 1, 3)),
]


def test_replays_of_any_mix_read_what_eager_reads(eager):
    graphs = Graphed(eager, 5, LONGEST, Again())
    for mix in (*MIXES, *reversed(MIXES)):
        expected = eager(mix)
        eager.decoder.stored.clear()
        output = graphs(mix)
        assert torch.equal(output.logits, expected.logits)
        assert len(output.finite) == len(mix)
        assert eager.adapters.table.awaited[-1] == [None if r.adapter is None else r.adapter[0] for r in mix]
        own = {r.pages[r.start // PAGE] * PAGE + r.start % PAGE: r.tokens[0] for r in mix}
        assert eager.decoder.stored == own  # padding stores nothing


def test_what_was_prepared_ahead_changes_nothing(eager):
    """Right in all but a page, and wrong in each way that a step can come out otherwise."""
    graphs, table = Graphed(eager, 5, LONGEST, Again()), eager.adapters.table
    first = rows_of((5, 16, None), (9, PAGE - 1, 1), (77, 39, 2))
    longer = rows_of((6, 17, None), (10, PAGE, 1), (78, 40, 2))  # the second one has got a page
    moved = [msgspec.structs.replace(row, pages=[page + 500 for page in row.pages]) for row in longer]
    others = rows_of((6, 17, 3), (10, PAGE, 1), (78, 40, 2))
    shifted = rows_of((6, 17, None), (10, PAGE, 1), (78, 41, 2))
    for rows in (longer, moved, longer[1:], others, shifted, [], longer[::-1]):
        for changed in (False, True):
            graphs(first)
            graphs.ahead(first)
            if changed:  # the tables, by an adapter that came meanwhile
                table.epoch += 1
            if not rows:
                graphs.ahead(longer)
                continue
            expected = eager(rows)
            eager.decoder.stored.clear()
            assert torch.equal(graphs(rows).logits, expected.logits)
            own = {(r.pages[r.start // PAGE] * PAGE + r.start % PAGE, r.tokens[0]) for r in rows}
            assert eager.decoder.stored.items() == own


def test_what_was_prepared_ahead_is_used(eager, monkeypatch):
    graphs = Graphed(eager, 5, LONGEST, Again())
    first, longer = rows_of((5, 16, None), (9, 15, 1)), rows_of((6, 17, None), (10, 16, 1))
    graphs(first)
    graphs.ahead(first)
    monkeypatch.setattr(AttentionPlan, "build", None)
    graphs(longer)


def test_graphs_of_short_rows_are_captured_before_they_are_needed_and_long_ones_once(eager):
    capture = Again()
    graphs = Graphed(eager, 5, LONGEST, capture)
    assert capture.captures == 2 * len(buckets(5))
    for mix in MIXES[:6]:
        graphs(mix)
    assert capture.captures == 2 * len(buckets(5))
    for _ in range(3):
        graphs(MIXES[6])
    assert capture.captures == 2 * len(buckets(5)) + 1
    assert eager.decoder.stored.keys() == {
        r.pages[r.start // PAGE] * PAGE + r.start % PAGE for mix in MIXES for r in mix
    }


def test_a_longest_row_below_the_smallest_graph_is_what_graphs_hold(eager):
    graphs = Graphed(eager, 1, 100, Again())
    assert torch.equal(graphs(rows_of((3, 99, 1))).logits, eager(rows_of((3, 99, 1))).logits)


def test_tables_that_moved_are_captured_anew_and_changed_ones_are_not(eager):
    capture = Again()
    graphs = Graphed(eager, 2, 100, capture)
    captures, table = capture.captures, eager.adapters.table
    table.epoch += 1
    graphs(MIXES[2])
    assert capture.captures == captures
    table.on_device = object()
    for _ in range(2):
        assert torch.equal(graphs(MIXES[2]).logits, eager(MIXES[2]).logits)
    assert capture.captures == captures + 1
    with pytest.raises(AdapterNotResident):
        graphs(rows_of((9, 12, 9)))


def test_steps_that_are_no_decode_run_as_they_come(eager):
    capture = Again()
    graphs = Graphed(eager, 2, LONGEST, capture)
    replays = capture.replays
    prompt, part = Row(0, (4, 5, 6), 0, [1], None, DRAW), Row(0, (4,), 0, [1], None, None)
    for rows in ([prompt], [part], [*MIXES[3], prompt], MIXES[4]):
        assert torch.equal(graphs(rows).logits, eager(rows).logits)
    assert capture.replays == replays


def test_rows_go_to_the_next_bucket():
    assert buckets(1) == (1,)
    assert buckets(5) == (1, 2, 4, 8)
    assert buckets(64) == (1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64)
    assert buckets(65)[-2:] == (64, 96)
