"""int8 adapters: half the bytes, rounding as stated, outliers kept, the same kernel laws as in full precision."""

import pytest
import torch

from tenantry.kernels.lora.int8 import OUTLIER, quantise, quantised
from tenantry.kernels.lora.layout import SiteShape, SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.testing import BATCHES, RANKS, Batch, assert_close, poisoned

SITES = {"qkv": SiteShape(96, (96, 32, 32)), "odd": SiteShape(113, (81, 17)), "down": SiteShape(1312, (64,))}


def adapter(rank: int, sites=SITES) -> dict[tuple[int, str, int], SliceWeights]:
    return {
        (0, site, part): SliceWeights(torch.randn(rank, shape.in_features), torch.randn(out, rank), rank, 0.5 + part)
        for site, shape in sites.items()
        for part, out in enumerate(shape.slices)
    }


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float32], ids=str)
def table(request):
    """Slot 3 keeps one site as it was, beside int8 ones."""
    torch.manual_seed(3)
    table = LoraTable(1, SITES, request.param)
    for slot, rank in enumerate(RANKS):
        modules = adapter(rank)
        small = quantised(modules)
        if slot == 3:
            small |= {place: weights for place, weights in modules.items() if place[1] == "odd"}
        table.set_slot(slot, table.prepare(small))
    return table


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("batch", BATCHES, ids=lambda b: b.name)
def test_matches_fp64_over_the_stored_values(ops, table, batch: Batch, site: str):
    shape = SITES[site]
    x, y = torch.randn(batch.tokens, shape.in_features), torch.randn(batch.tokens, shape.out_features)
    expected, begin = y.double(), 0
    for slot, q_len in zip(batch.slots, batch.q_lens, strict=True):
        column = 0
        for part, width in enumerate(shape.slices):
            if slot is not None:
                held = table.slice_weights(slot, 0, site, part)
                assert held.a.dtype == (table.dtype if (slot, site) == (3, "odd") else torch.int8)
                bridge = x[begin : begin + q_len].double() @ held.a.double().T * held.factors.double()
                expected[begin : begin + q_len, column : column + width] += bridge @ held.b.double().T
            column += width
        begin += q_len
    ops.apply_lora(x, y, 0, site, table.plan(batch.slots, batch.q_lens), table)
    assert_close(y, expected, torch.int8)


def test_a_row_has_the_same_bits_in_any_company(ops, table):
    batch = BATCHES[5]
    for site in SITES:
        x, y = (torch.randn(batch.tokens, n) for n in (SITES[site].in_features, SITES[site].out_features))
        together, begin = y.clone(), 0
        ops.apply_lora(x, together, 0, site, table.plan(batch.slots, batch.q_lens), table)
        for slot, q_len in zip(batch.slots, batch.q_lens, strict=True):
            alone = y[begin : begin + 1].clone()
            ops.apply_lora(x[begin : begin + 1].clone(), alone, 0, site, table.plan([slot], [1]), table)
            assert torch.equal(alone[0], together[begin])
            begin += q_len


def test_rounding_is_to_the_nearest_and_to_even():
    a = torch.tensor([[127.0, 0.5, 1.5, -0.5, -2.5, 2.6], [0.0] * 6, [-254.0, 1.0, 3.0, 5.0, 0.0, 2.0]])
    small, _ = quantise(SliceWeights(a, torch.eye(3) * 127, 3, 2.0))
    assert small.a.tolist() == [[127, 0, 2, 0, -2, 3], [0] * 6, [-127, 0, 2, 2, 0, 1]]
    assert small.channels.tolist() == [1, 0, 2]
    assert small.factors.tolist() == [2, 0, 4]


def test_what_is_lost_is_what_the_product_loses():
    for rank in (4, 16, 64):
        whole = SliceWeights(torch.randn(rank, 300), torch.randn(500, rank), rank, 1.0)
        small, lost = quantise(whole)
        near = (small.b.double() * small.channels.double()) @ small.a.double()
        true = whole.b.double() @ whole.a.double()
        assert lost == pytest.approx(float((near - true).norm() / true.norm()), rel=0.05)
        assert 0.005 < lost < OUTLIER


def test_outliers_keep_their_precision_site_by_site():
    modules = adapter(8)
    modules[0, "qkv", 1].a[3, 7] = 300  # one value sets the step of a whole row
    small = quantised(modules)
    assert {site for (_, site, _), w in small.items() if w.a.dtype != torch.int8} == {"qkv"}
    assert all(small[place] is modules[place] for place in small if place[1] == "qkv")
    assert not any(w.a.dtype == torch.int8 for w in quantised(modules, 0.001).values())


def test_zeros_lose_nothing_and_nan_is_never_quantised():
    nothing = SliceWeights(torch.randn(4, 96), torch.zeros(96, 4), 4, 1.0)
    assert quantise(nothing)[1] == 0
    broken = SliceWeights(torch.randn(4, 96), poisoned(96, 4), 4, 1.0)
    assert quantised({(0, "qkv", 0): broken})[0, "qkv", 0] is broken


def test_int8_and_float_slices_cannot_share_a_site():
    modules = {(0, "qkv", part): adapter(8)[0, "qkv", part] for part in (0, 1)}
    modules[0, "qkv", 1] = quantise(modules[0, "qkv", 1])[0]
    with pytest.raises(ValueError, match="qkv"):
        LoraTable(1, SITES).prepare(modules)


def test_bytes_are_half():
    sites = {"o": SiteShape(896, (896,)), "gate_up": SiteShape(896, (4864, 4864))}
    modules, table = adapter(8, sites), LoraTable(1, sites)
    assert table.prepare(quantised(modules)).nbytes <= 0.505 * table.prepare(modules).nbytes
