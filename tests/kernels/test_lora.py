"""Mixed-adapter LoRA: fp64 oracle over the batch vocabulary, equal bits in any company, no stale plans."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernels.lora import reference
from tenantry.kernels.lora.plan import TILE, LoraPlan
from tenantry.kernels.lora.table import LoraTable, SiteShape, SliceWeights
from tenantry.kernels.testing import BATCHES, RANKS, Batch, assert_close, poisoned

SITES = {"qkv": SiteShape(96, (96, 32, 32)), "odd": SiteShape(113, (81, 17)), "down": SiteShape(256, (64,))}


def adapter(table: LoraTable, rank: int, skip: tuple[str, int] | None = None):
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
    return table.prepare(modules)


def make_table(dtype: torch.dtype) -> LoraTable:
    table = LoraTable(2, SITES, dtype)
    for slot, rank in enumerate(RANKS):
        table.set_slot(slot, adapter(table, rank, ("qkv", 1) if slot == 2 else None))
    return table


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
            weights = None if slot is None else table.slice_weights(slot, layer, site, part)
            if weights is not None:
                delta = x[begin : begin + q_len].double() @ weights.a.double().T @ weights.b.double().T
                out[begin : begin + q_len, column : column + width] += delta * weights.scale
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
    "weights",
    [
        SliceWeights(torch.zeros(4, 95), torch.zeros(96, 4), 4, 1.0),
        SliceWeights(torch.zeros(4, 96), torch.zeros(95, 4), 4, 1.0),
        SliceWeights(torch.zeros(4, 96), torch.zeros(96, 4), 5, 1.0),
        SliceWeights(torch.zeros(4, 96), torch.zeros(96, 4), 0, 1.0),
    ],
)
def test_shapes_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="qkv"):
        LoraTable(1, SITES).prepare({(0, "qkv", 0): weights})


def test_memory_is_the_true_sizes():
    table = LoraTable(1, {"o": SiteShape(896, (896,))})
    slot = table.prepare({(0, "o", 0): SliceWeights(torch.zeros(16, 896), torch.zeros(896, 16), 8, 1.0)})
    assert slot.nbytes == 2 * 8 * (896 + 896)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 5), st.integers(1, 80)), max_size=20))
def test_a_plan_names_every_adapted_token_once(rows):
    slots, q_lens = [r[0] for r in rows], [r[1] for r in rows]
    plan = LoraPlan.build(slots, q_lens, dict.fromkeys(range(6), 8), 3)
    owner = [slot for slot, q_len in rows for _ in range(q_len)]
    assert sorted(plan.tokens.tolist()) == [i for i, slot in enumerate(owner) if slot is not None]
    for slot, first, past in plan.runs:
        mine = plan.tokens[first:past].tolist()
        assert mine == sorted(mine)
        assert {owner[i] for i in mine} == {slot}
    tiles = sorted(plan.tiles.tolist(), key=lambda t: t[1])
    assert [i for _, first, past in tiles for i in range(first, past)] == list(range(len(plan.tokens)))
    assert all(0 < past - first <= TILE for _, first, past in tiles)
    assert plan.run_start.tolist() == [0, *(past for _, _, past in plan.runs)]
