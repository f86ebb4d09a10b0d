"""The Triton kernels, through the interpreter without a GPU (fp16 and fp32: its bf16 products are wrong)."""

import pytest
import torch

from tenantry.kernels.attention import gpu as attention
from tenantry.kernels.attention import reference as attention_reference
from tenantry.kernels.attention.layout import AttentionPlan, PageLayout
from tenantry.kernels.lora import gpu as lora
from tenantry.kernels.lora import reference as lora_reference
from tenantry.kernels.lora.table import GPU_PADDING, LoraTable, SiteShape, SliceWeights
from tenantry.kernels.testing import BATCHES, RANKS, Batch, arena_pages, assert_close, poisoned

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SOME = (
    BATCHES if DEVICE == "cuda" else [b for b in BATCHES if b.name in ("all base", "base between", "runs", "empty")]
)
SITES = {"qkv": SiteShape(80, (64, 17, 32)), "down": SiteShape(145, (81,))}


@pytest.fixture(scope="module", params=[torch.float16, torch.float32], ids=str)
def table(request):
    torch.manual_seed(2)
    table = LoraTable(1, SITES, request.param, DEVICE, GPU_PADDING)
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


@pytest.mark.parametrize(
    ("heads", "layout"),
    [
        (4, PageLayout(4, 32, 16)),
        (14, PageLayout(2, 64, 16, 32)),
        (8, PageLayout(1, 128, 8)),
        (8, PageLayout(2, 80, 16, dtype=torch.float16)),
    ],
)
def test_attention_matches_the_reference(heads: int, layout: PageLayout):
    p = layout.page_size
    lengths, q_lens = [1, p + 1, 257, 262], [1, 2, 1, 9]
    pages, tables, free = arena_pages(layout, 140, DEVICE), [], list(range(140))
    for length in lengths:
        tables.append([free.pop() for _ in range(-(-length // p))])
        slots = torch.tensor([tables[-1][i // p] * p + i % p for i in range(length)], device=DEVICE)
        k, v = torch.randn(2, length, layout.kv_heads, layout.head_dim, device=DEVICE)
        attention_reference.write_kv(k, v, pages, slots)
    plan = AttentionPlan.build(q_lens, lengths, tables, p, DEVICE)
    q = torch.randn(sum(q_lens), heads, layout.head_dim, device=DEVICE)
    scale = layout.head_dim**-0.5
    together = attention.attention(q, pages, plan, scale)
    assert_close(together, attention_reference.attention(q, pages, plan, scale))
    alone = AttentionPlan.build([1], [257], [tables[2]], p, DEVICE)
    assert_close(attention.attention(q[3:4].contiguous(), pages, alone, scale)[0], together[3])


@pytest.mark.parametrize("group", [0, 32])
def test_writing_quantises_as_the_reference_does(group: int):
    layout = PageLayout(2, 64, 4, group)
    mine, theirs = arena_pages(layout, 5, DEVICE), arena_pages(layout, 5, DEVICE)
    k, v = torch.randn(2, 9, 2, 64, device=DEVICE)
    k[4] = 0
    k[5, 0, :6] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5], device=DEVICE)
    slots = torch.randperm(20)[:9].to(DEVICE)
    attention.write_kv(k, v, mine, slots)
    attention_reference.write_kv(k, v, theirs, slots)
    assert torch.equal(mine.k, theirs.k)
    assert torch.equal(mine.v, theirs.v)
    assert mine.k_scale.allclose(theirs.k_scale, 0, 0, equal_nan=True)
