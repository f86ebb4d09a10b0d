"""Attention in Triton, through the interpreter without a GPU (fp16 and fp32: its bf16 products are wrong)."""

import pytest
import torch

from tenantry.kernels.attention import gpu as attention
from tenantry.kernels.attention import reference as attention_reference
from tenantry.kernels.attention.layout import AttentionPlan, PageLayout
from tenantry.kernels.testing import arena_pages, assert_close

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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
