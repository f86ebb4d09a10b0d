"""LoRA in Triton, through the interpreter without a GPU (fp16 and fp32: its bf16 products are wrong)."""

import copy

import pytest
import torch

from tenantry.kernels.lora import gpu as lora
from tenantry.kernels.lora import reference as lora_reference
from tenantry.kernels.lora.int8 import quantised
from tenantry.kernels.lora.layout import GPU_PACKING, SiteShape, SliceWeights
from tenantry.kernels.lora.plan import LoraPlan
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.quant.linear import TorchLinear, prepare_reference, prepare_triton
from tenantry.kernels.testing import BATCHES, RANKS, Batch, assert_close, poisoned

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SOME = (
    BATCHES if DEVICE == "cuda" else [b for b in BATCHES if b.name in ("all base", "base between", "runs", "empty")]
)
SITES = {"qkv": SiteShape(80, (64, 17, 32)), "down": SiteShape(145, (81,))}


@pytest.fixture(autouse=True)
def memory_begins_as_nan(monkeypatch):
    """The planes between the two kernels are never zeroed: what is read of them must have been written."""
    empty = torch.empty

    def poison(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poison)


def adapter(rank: int, skip: tuple[str, int] | None = None) -> dict[tuple[int, str, int], SliceWeights]:
    return {
        (0, site, part): SliceWeights(
            torch.randn(rank, shape.in_features) / 9, torch.randn(out, rank) / 9, rank, 0.5 + part
        )
        for site, shape in SITES.items()
        for part, out in enumerate(shape.slices)
        if (site, part) != skip
    }


@pytest.fixture(scope="module", params=[torch.float16, torch.float32], ids=str)
def table(request):
    torch.manual_seed(2)
    table = LoraTable(1, SITES, request.param, DEVICE, GPU_PACKING)
    for slot, rank in enumerate(RANKS):
        table.set_slot(slot, table.prepare(adapter(rank, ("qkv", 1) if slot == 2 else None)))
    return table


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("batch", SOME, ids=lambda b: b.name)
def test_lora_matches_the_reference(table, batch: Batch, site: str):
    shape = SITES[site]
    x = torch.randn(batch.tokens, shape.in_features, device=DEVICE).to(table.dtype)
    y = poisoned(batch.tokens, shape.out_features, device=DEVICE)
    plan = table.plan(batch.slots, batch.q_lens)
    y[plan.tokens] = torch.randn(len(plan.tokens), shape.out_features, device=DEVICE)
    expected, once = y.clone(), y.clone()
    lora_reference.apply_lora(x, expected, 0, site, plan, table)
    lora.apply_lora(x, once, 0, site, plan, table)
    assert_close(once[plan.tokens], expected[plan.tokens], table.dtype)
    base = torch.ones(batch.tokens, dtype=torch.bool, device=DEVICE)
    base[plan.tokens] = False
    assert once[base].isnan().all()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("batch", [b for b in SOME if b.tokens], ids=lambda b: b.name)
def test_writing_first_and_accumulating_the_product_is_the_same(table, batch: Batch, site: str):
    """What was in y is not read: for addmm with beta 1 to follow."""
    shape = SITES[site]
    x = torch.randn(batch.tokens, shape.in_features, device=DEVICE).to(table.dtype)
    expected = torch.zeros(batch.tokens, shape.out_features, device=DEVICE)
    first, plan = poisoned(*expected.shape, device=DEVICE), table.plan(batch.slots, batch.q_lens)
    lora_reference.apply_lora(x, expected, 0, site, plan, table)
    lora.write_lora(x, first, 0, site, plan, table)
    assert_close(first, expected, table.dtype)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("batch", [([0, None, 1], [1, 3, 40]), ([2, None, 4], [230, 5, 60])], ids=["few", "many"])
def test_a_product_and_its_adapters_are_the_same_in_either_order(table, batch, biased: bool):
    """Many adapted tokens: adapters are written first and the product adds itself, unless there is a bias."""
    slots, q_lens = batch
    shape, plan = SITES["qkv"], table.plan(slots, q_lens)
    weight = torch.randn(shape.out_features, 80, device=DEVICE) / 9
    bias = torch.randn(shape.out_features, device=DEVICE) if biased else None
    linear = prepare_triton(weight.to(table.dtype), bias)
    x = torch.randn(sum(q_lens), 80, device=DEVICE).to(table.dtype)
    expected = prepare_reference(weight.to(table.dtype).float(), bias)(x.float())
    lora_reference.apply_lora(x, expected, 0, "qkv", plan, table)
    assert_close(lora.project(linear, x, 0, "qkv", plan, table), expected, table.dtype)


def test_in_a_long_prefill_the_product_comes_last(table, monkeypatch):
    order = []
    linear = prepare_triton(torch.zeros(113, 80, device=DEVICE, dtype=table.dtype))
    monkeypatch.setattr(TorchLinear, "add", lambda _self, _x, y: order.append("product") or y)
    monkeypatch.setattr(lora, "write_lora", lambda *_: order.append("adapters"))
    lora.project(linear, torch.zeros(300, 80, dtype=table.dtype), 0, "qkv", table.plan([0], [300]), table)
    assert order == ["adapters", "product"]


def test_a_captured_plan_replays_with_any_mix(table):
    """More tiles than at capture, none, and fewer again: only the buffers' contents change, as under a CUDA graph.
    What the host knew at capture is frozen in a copy of the plan."""
    site, most = "qkv", 40
    plan = LoraPlan.reserve(most, most, device=DEVICE)
    table.refill(plan, [None], [most])
    captured = copy.copy(plan)
    addresses = [t.data_ptr() for t in (plan.counts, plan.tiles, plan.tokens)]
    x = torch.randn(most, 80, device=DEVICE).to(table.dtype)
    base = torch.randn(most, 113, device=DEVICE)
    mixes = (
        ([0, 1, 2, 3, 4, None] * 6, [1] * 36),
        ([None] * 40, [1] * 40),
        ([3, None, 4], [35, 1, 4]),
        ([i % 5 for i in range(40)], [1] * 40),
        ([], []),
        ([None, 2], [39, 1]),
    )
    for slots, q_lens in mixes:
        table.refill(plan, slots, q_lens)
        assert [t.data_ptr() for t in (plan.counts, plan.tiles, plan.tokens)] == addresses
        assert captured.n_tiles == 0
        actual, expected = base.clone(), base.clone()
        lora.apply_lora(x, actual, 0, site, captured, table)
        lora_reference.apply_lora(x, expected, 0, site, plan, table)
        assert_close(actual, expected, table.dtype)
        idle = torch.ones(most, dtype=torch.bool, device=DEVICE)
        idle[plan.tokens[: int(plan.counts[1])]] = False
        assert torch.equal(actual[idle], base[idle])


def test_device_tables_keep_their_addresses_until_something_outgrows_them():
    table = LoraTable(1, SITES, torch.float32, DEVICE, GPU_PACKING)
    first = table.tensors()
    table.set_slot(3, table.prepare(adapter(8)))
    assert table.tensors() is first
    assert int(first.padded[0, 0, 3].sum()) == 24
    table.set_slot(3, table.prepare(adapter(64)))
    second = table.tensors()
    assert second is not first
    assert second.bridge_width == {"qkv": 192, "down": 64}
    table.clear_slot(3)
    assert table.tensors() is second
    assert not second.padded.any()
    table.set_slot(8, table.prepare(adapter(8)))
    assert table.tensors() is not second


def test_int8_and_float_adapters_lie_side_by_side(table):
    mixed = LoraTable(1, SITES, table.dtype, DEVICE, GPU_PACKING)
    mixed.set_slot(0, mixed.prepare(quantised(adapter(24))))
    mixed.set_slot(1, mixed.prepare(adapter(8)))
    mixed.set_slot(2, mixed.prepare(quantised(adapter(72)) | {(0, "down", 0): adapter(8)[0, "down", 0]}))
    for site, shape in SITES.items():
        x = torch.randn(9, shape.in_features, device=DEVICE).to(table.dtype)
        actual = torch.randn(9, shape.out_features, device=DEVICE)
        expected, plan = actual.clone(), mixed.plan([2, 0, None, 1], [3, 2, 1, 3])
        lora.apply_lora(x, actual, 0, site, plan, mixed)
        lora_reference.apply_lora(x, expected, 0, site, plan, mixed)
        assert_close(actual, expected, table.dtype)


def test_a_rank_of_eight_is_not_padded_to_sixteen():
    table = LoraTable(1, {"o": SiteShape(4096, (4096,))}, torch.float16, DEVICE, GPU_PACKING)
    modules = {(0, "o", 0): SliceWeights(torch.zeros(8, 4096), torch.zeros(4096, 8), 8, 1.0)}
    assert table.prepare(modules).nbytes <= 1.01 * 2 * 8 * (4096 + 4096)


def test_lora_gives_a_row_the_same_bits_in_any_company(table):
    batch = BATCHES[4]
    x, y = torch.randn(batch.tokens, 80, device=DEVICE), torch.randn(batch.tokens, 113, device=DEVICE)
    x, together, alone = x.to(table.dtype), y.clone(), y[-1:].clone()
    lora.apply_lora(x, together, 0, "qkv", table.plan(batch.slots, batch.q_lens), table)
    lora.apply_lora(x[-1:].contiguous(), alone, 0, "qkv", table.plan(batch.slots[-1:], [1]), table)
    assert torch.equal(alone[0], together[-1])
