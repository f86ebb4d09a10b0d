"""LoRA in Triton, through the interpreter without a GPU (fp16 and fp32: its bf16 products are wrong)."""

import pytest
import torch

from tenantry.kernels.lora import gpu as lora
from tenantry.kernels.lora import reference as lora_reference
from tenantry.kernels.lora.layout import GPU_PACKING, SiteShape, SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.kernels.testing import BATCHES, RANKS, Batch, assert_close, poisoned

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SOME = (
    BATCHES if DEVICE == "cuda" else [b for b in BATCHES if b.name in ("all base", "base between", "runs", "empty")]
)
SITES = {"qkv": SiteShape(80, (64, 17, 32)), "down": SiteShape(145, (81,))}


@pytest.fixture(scope="module", params=[torch.float16, torch.float32], ids=str)
def table(request):
    torch.manual_seed(2)
    table = LoraTable(1, SITES, request.param, DEVICE, GPU_PACKING)
    for slot, rank in enumerate(RANKS):
        modules = {
            (0, site, part): SliceWeights(
                torch.randn(rank, shape.in_features) / 9, torch.randn(out, rank) / 9, rank, 0.5 + part
            )
            for site, shape in SITES.items()
            for part, out in enumerate(shape.slices)
            if (slot, site, part) != (2, "qkv", 1)
        }
        table.set_slot(slot, table.prepare(modules))
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


def test_lora_gives_a_row_the_same_bits_in_any_company(table):
    batch = BATCHES[4]
    x, y = torch.randn(batch.tokens, 80, device=DEVICE), torch.randn(batch.tokens, 113, device=DEVICE)
    x, together, alone = x.to(table.dtype), y.clone(), y[-1:].clone()
    lora.apply_lora(x, together, 0, "qkv", table.plan(batch.slots, batch.q_lens), table)
    lora.apply_lora(x[-1:].contiguous(), alone, 0, "qkv", table.plan(batch.slots[-1:], [1]), table)
    assert torch.equal(alone[0], together[-1])
