"""Mixed-adapter LoRA: fp64 oracle over the batch vocabulary, equal bits in any company, no stale plans."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernels.lora import reference
from tenantry.kernels.lora.int8 import quantised
from tenantry.kernels.lora.layout import ALIGNMENT, CPU_PACKING, GPU_PACKING, SiteShape, SliceWeights, up
from tenantry.kernels.lora.plan import CPU_TILE, LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.testing import BATCHES, RANKS, Batch, assert_close, poisoned

SITES = {"qkv": SiteShape(96, (96, 32, 32)), "odd": SiteShape(113, (81, 17)), "down": SiteShape(256, (64,))}


def weights(table: LoraTable, rank: int, skip: tuple[str, int] | None = None):
    """Random weights for every slice but one; ranks differ by slice and matrices are wider than the rank."""
    modules = {}
    for layer in range(table.layers):
        for site, shape in table.sites.items():
            for part, out in enumerate(shape.slices):
                if (site, part) != skip:
                    true, stored = max(1, rank - part), -(-rank // 16) * 16
                    a, b = poisoned(stored, shape.in_features), poisoned(out, stored)
                    a[:true], b[:, :true] = torch.randn(true, shape.in_features), torch.randn(out, true)
                    modules[layer, site, part] = SliceWeights(a, b, true, 0.5 + part)
    return modules


def adapter(table: LoraTable, rank: int, skip: tuple[str, int] | None = None):
    return table.prepare(weights(table, rank, skip))


def make_table(dtype: torch.dtype) -> LoraTable:
    table = LoraTable(2, SITES, dtype)
    for slot, rank in enumerate(RANKS):
        table.set_slot(slot, adapter(table, rank, ("qkv", 1) if slot == 2 else None))
    return table


@cache
def shared_table() -> LoraTable:
    torch.manual_seed(4)
    return make_table(torch.bfloat16)


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float32], ids=str)
def table(request):
    torch.manual_seed(1)
    return make_table(request.param)


def oracle(x, y, layer: int, site: str, batch: Batch, table: LoraTable):
    """Row by row in fp64."""
    out, begin = y.double().clone(), 0
    for slot, q_len in zip(batch.slots, batch.q_lens, strict=True):
        column = 0
        for part, width in enumerate(table.sites[site].slices):
            held = None if slot is None else table.slice_weights(slot, layer, site, part)
            if held is not None:
                bridge = x[begin : begin + q_len].double() @ held.a.double().T * held.factors.double()
                out[begin : begin + q_len, column : column + width] += bridge @ held.b.double().T
            column += width
        begin += q_len
    return out


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("batch", BATCHES, ids=lambda b: b.name)
def test_matches_fp64(ops, table, batch: Batch, site: str):
    shape = SITES[site]
    x, y = torch.randn(batch.tokens, shape.in_features), torch.randn(batch.tokens, shape.out_features)
    expected = oracle(x, y, 1, site, batch, table)
    plan = table.plan(batch.slots, batch.q_lens)
    for apply in (ops.apply_lora, reference.apply_lora):
        actual = y.clone()
        apply(x, actual, 1, site, plan, table)
        assert_close(actual, expected, table.dtype)


def test_base_rows_are_neither_read_nor_written(ops, table):
    x, y = torch.randn(6, 96), poisoned(6, 160)
    x[[0, 1, 4]] = float("nan")
    y[[2, 3, 5]] = 0
    ops.apply_lora(x, y, 0, "qkv", table.plan([None, 1, None, 0], [2, 2, 1, 1]), table)
    assert y[[0, 1, 4]].isnan().all()
    assert y[[2, 3, 5]].isfinite().all()


def test_a_row_has_the_same_bits_in_any_company(ops, table):
    batch = BATCHES[5]
    x, y = torch.randn(batch.tokens, 96), torch.randn(batch.tokens, 160)
    together = y.clone()
    ops.apply_lora(x, together, 0, "qkv", table.plan(batch.slots, batch.q_lens), table)
    begin = 0
    for slot, q_len in zip(batch.slots, batch.q_lens, strict=True):
        alone = y[begin : begin + q_len].clone()
        ops.apply_lora(x[begin : begin + q_len].contiguous(), alone, 0, "qkv", table.plan([slot], [q_len]), table)
        assert torch.equal(alone, together[begin : begin + q_len])
        single = y[begin : begin + 1].clone()
        ops.apply_lora(x[begin : begin + 1].contiguous(), single, 0, "qkv", table.plan([slot], [1]), table)
        assert torch.equal(single[0], together[begin])
        begin += q_len


def test_a_plan_older_than_the_table_is_refused(ops):
    table = make_table(torch.float32)
    plan = table.plan([0], [1])
    table.set_slot(0, adapter(table, 8))
    with pytest.raises(RuntimeError, match="epoch"):
        ops.apply_lora(torch.zeros(1, 96), torch.zeros(1, 160), 0, "qkv", plan, table)
    with pytest.raises(RuntimeError, match="epoch"):
        reference.apply_lora(torch.zeros(1, 96), torch.zeros(1, 160), 0, "qkv", plan, table)


def test_cleared_and_unknown_slots_are_refused():
    table = make_table(torch.float32)
    table.clear_slot(1)
    for slot in (1, 77):
        with pytest.raises(ValueError, match=f"slot {slot}"):
            table.plan([slot], [1])


def test_slots_beyond_the_tables_make_them_grow(ops):
    table = make_table(torch.float32)
    x, y = torch.randn(2, 256), torch.zeros(2, 64)
    table.set_slot(41, adapter(table, 8))
    batch = Batch("far", (41, 3), (1, 1))
    ops.apply_lora(x, y, 1, "down", table.plan(batch.slots, batch.q_lens), table)
    assert_close(y, oracle(x, torch.zeros(2, 64), 1, "down", batch, table))


@pytest.mark.parametrize(
    "wrong",
    [
        SliceWeights(torch.zeros(4, 95), torch.zeros(96, 4), 4, 1.0),
        SliceWeights(torch.zeros(4, 96), torch.zeros(95, 4), 4, 1.0),
        SliceWeights(torch.zeros(4, 96), torch.zeros(96, 4), 5, 1.0),
        SliceWeights(torch.zeros(4, 96), torch.zeros(96, 4), 0, 1.0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="qkv"):
        LoraTable(1, SITES).prepare({(0, "qkv", 0): wrong})


def test_memory_is_the_true_sizes():
    table = LoraTable(1, {"o": SiteShape(896, (896,))})
    slot = table.prepare({(0, "o", 0): SliceWeights(torch.zeros(16, 896), torch.zeros(896, 16), 8, 1.0)})
    assert slot.nbytes == 2 * 8 * (896 + 896) + up(4 * 8, ALIGNMENT)


def test_segments_may_lie_anywhere(ops, table):
    """One byte range of an arena per segment, in any order: the same adapter, bit for bit."""
    torch.manual_seed(5)
    modules = weights(table, 17)
    segments = table.segments(modules)
    arena = torch.full((3 * sum(s.nbytes for s in segments),), 0xA5, dtype=torch.uint8)
    first, buffers = -arena.data_ptr() % ALIGNMENT, []
    for segment in reversed(segments):
        buffers.append(arena[first : first + segment.nbytes])
        first += segment.nbytes + ALIGNMENT
    scattered, together = LoraTable(2, SITES, table.dtype), LoraTable(2, SITES, table.dtype)
    scattered.set_slot(0, scattered.prepare(modules, buffers[::-1]))
    together.set_slot(0, together.prepare(modules))
    assert scattered.slots[0].nbytes == together.slots[0].nbytes == sum(s.nbytes for s in segments)
    for site, shape in SITES.items():
        x, results = torch.randn(5, shape.in_features), []
        for one in (scattered, together):
            results.append(torch.zeros(5, shape.out_features))
            ops.apply_lora(x, results[-1], 1, site, one.plan([0], [5]), one)
        assert results[0].any()
        assert torch.equal(*results)


def test_segments_need_no_weights_only_shapes(table):
    modules = weights(table, 8)
    shapes = {
        at: SliceWeights(torch.empty(w.a.shape, device="meta"), torch.empty(w.b.shape, device="meta"), w.rank, 1.0)
        for at, w in modules.items()
    }
    assert table.segments(shapes) == table.segments(modules)


@pytest.mark.parametrize("wrong", ["short", "one less", "unaligned", "float"])
def test_memory_that_does_not_fit_is_refused(wrong: str):
    table = LoraTable(1, {"o": SiteShape(64, (64,))})
    modules = {(0, "o", 0): SliceWeights(torch.zeros(4, 64), torch.zeros(64, 4), 4, 1.0)}
    sizes = [segment.nbytes for segment in table.segments(modules)]
    whole = torch.zeros(sum(sizes) + 2 * ALIGNMENT, dtype=torch.uint8)
    whole = whole[-whole.data_ptr() % ALIGNMENT + (8 if wrong == "unaligned" else 0) :]
    buffers = list(whole[: sum(sizes)].split(sizes))
    if wrong == "short":
        buffers[1] = buffers[1][:-64]
    elif wrong == "one less":
        buffers.pop()
    elif wrong == "float":
        buffers = [b.view(torch.float32) for b in buffers]
    with pytest.raises(ValueError, match="buffers"):
        table.prepare(modules, buffers)


@pytest.mark.parametrize("packing", [CPU_PACKING, GPU_PACKING], ids=["cpu", "gpu"])
@pytest.mark.parametrize("convert", [dict, quantised], ids=["bf16", "int8"])
def test_sixty_four_adapters_of_rank_eight_take_their_true_sizes(packing, convert):
    """Bytes in use, padding and all, within a tenth of the weights' own."""
    sites = {"qkv": SiteShape(896, (896, 128, 128)), "gate_up": SiteShape(896, (4864, 4864))}
    table = LoraTable(1, sites, torch.bfloat16, "cpu", packing)
    modules = convert(
        {
            (0, site, part): SliceWeights(torch.ones(8, shape.in_features), torch.ones(out, 8), 8, 1.0)
            for site, shape in sites.items()
            for part, out in enumerate(shape.slices)
        }
    )
    for slot in range(64):
        table.set_slot(slot, table.prepare(modules))
    used = sum(weights.nbytes for weights in table.slots.values())
    item = 1 if convert is quantised else 2
    assert used <= 1.1 * 64 * sum(item * (w.a.shape[0] * w.a.shape[1] + w.b.numel()) for w in modules.values())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=12), st.data())
def test_any_step_matches_the_reference_and_any_order_gives_the_same_bits(ops, rows, data):
    table = shared_table()
    site = data.draw(st.sampled_from(sorted(SITES)))
    slots, q_lens = [r[0] for r in rows], [r[1] for r in rows]
    shape, total = SITES[site], sum(q_lens)
    x, y = torch.randn(total, shape.in_features), torch.randn(total, shape.out_features)
    actual, expected, plan = y.clone(), y.clone(), table.plan(slots, q_lens)
    ops.apply_lora(x, actual, 1, site, plan, table)
    reference.apply_lora(x, expected, 1, site, plan, table)
    assert_close(actual, expected, table.dtype)
    order = data.draw(st.permutations(range(len(rows))))
    begins = [sum(q_lens[:i]) for i in range(len(rows))]
    moved = torch.tensor([begins[i] + j for i in order for j in range(q_lens[i])])
    again = y[moved].clone()
    plan = table.plan([slots[i] for i in order], [q_lens[i] for i in order])
    ops.apply_lora(x[moved], again, 1, site, plan, table)
    assert torch.equal(again, actual[moved])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(st.none() | st.integers(0, 5), st.integers(1, 12)), max_size=9), max_size=5))
def test_a_refilled_plan_is_a_built_one(steps):
    ranks, plan = np.full(6, 8, np.int32), LoraPlan.reserve(108, 9)
    addresses = [plan.counts.data_ptr(), plan.tiles.data_ptr(), plan.tokens.data_ptr()]
    for epoch, rows in enumerate(steps):
        slots, q_lens = [r[0] for r in rows], [r[1] for r in rows]
        plan.refill(slots, q_lens, ranks, epoch)
        built = LoraPlan.build(slots, q_lens, ranks, epoch, tile=plan.tile)
        assert [plan.counts.data_ptr(), plan.tiles.data_ptr(), plan.tokens.data_ptr()] == addresses
        n_tiles, n_tokens = plan.counts[:2].tolist()
        assert torch.equal(plan.tiles[:n_tiles], built.tiles)
        assert torch.equal(plan.tokens[:n_tokens], built.tokens)
        assert (plan.runs, plan.epoch, plan.work) == (built.runs, epoch, built.work)


def test_a_plan_may_live_in_memory_that_a_caller_copies():
    """One pinned buffer for all of a step's inputs: the plan fills its part, the caller sends it."""
    ranks, words = np.full(2, 8, np.int32), LoraPlan.words(20, 4)
    device, host = torch.zeros(words + 7, dtype=torch.int32), torch.zeros(words + 7, dtype=torch.int32)
    plan = LoraPlan.reserve(20, 4, buffer=device[7:])
    plan.refill([1, None, 0, 1], [2, 1, 3, 1], ranks, 0, host[7:])
    assert not device.any()
    device.copy_(host)
    assert plan.counts[:2].tolist() == [2, 6]
    assert plan.tokens[:6].tolist() == [3, 4, 5, 0, 1, 6]


def test_a_step_beyond_the_reserve_is_refused_and_changes_nothing():
    ranks, plan = np.full(2, 8, np.int32), LoraPlan.reserve(20, 4)
    plan.refill([1, 0], [2, 1], ranks, 0)
    before = plan.buffer.clone()
    with pytest.raises(ValueError, match="reserve"):
        plan.refill([1], [21], ranks, 1)
    assert torch.equal(plan.buffer, before)
    assert plan.epoch == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 5), st.integers(1, 80)), max_size=20))
def test_a_plan_names_every_adapted_token_once(rows):
    slots, q_lens = [r[0] for r in rows], [r[1] for r in rows]
    plan = LoraPlan.build(slots, q_lens, np.full(6, 8, np.int32), 3)
    owner = [slot for slot, q_len in rows for _ in range(q_len)]
    assert sorted(plan.tokens.tolist()) == [i for i, slot in enumerate(owner) if slot is not None]
    for slot, first, past in plan.runs:
        mine = plan.tokens[first:past].tolist()
        assert mine == sorted(mine)
        assert {owner[i] for i in mine} == {slot}
    tiles = sorted(plan.tiles.tolist(), key=lambda t: t[1])
    assert [i for _, first, past in tiles for i in range(first, past)] == list(range(len(plan.tokens)))
    assert all(0 < past - first <= CPU_TILE for _, first, past in tiles)
    assert plan.n_tiles == len(tiles) == plan.counts[0]
