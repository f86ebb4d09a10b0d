"""Triton's paged attention and its writes, through the interpreter without a GPU (its bf16 products are wrong)."""

import pytest
import torch

from tenantry.kernels.attention import gpu, gpu_write, reference, rotary
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.attention.plan import AttentionPlan, Capacity
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.testing import arena_pages, assert_close

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Cache:
    """Rows of random keys and values in shuffled pages of an arena; everything else is poison."""

    def __init__(self, layout: PageLayout, lengths: list[int]) -> None:
        p = layout.page_size
        free = torch.randperm(sum(-(-n // p) for n in lengths) + 3).tolist()
        self.layout, self.lengths = layout, lengths
        self.pages = arena_pages(layout, len(free), DEVICE)
        self.tables = [[free.pop() for _ in range(-(-n // p))] for n in lengths]
        for table, n in zip(self.tables, lengths, strict=True):
            slots = torch.tensor([table[i // p] * p + i % p for i in range(n)], device=DEVICE)
            k, v = torch.randn(2, n, layout.kv_heads, layout.head_dim, device=DEVICE)
            reference.write_kv(k, v, self.pages, slots)

    def plan(self, q_lens: list[int], rows: list[int] | None = None, **more) -> AttentionPlan:
        rows = list(range(len(q_lens))) if rows is None else rows
        lengths, tables = [self.lengths[r] for r in rows], [self.tables[r] for r in rows]
        return AttentionPlan.build(q_lens, lengths, tables, self.layout.page_size, DEVICE, **more)

    def q(self, tokens: int, heads: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(tokens, heads, self.layout.head_dim, device=DEVICE).to(dtype)


@pytest.mark.parametrize(
    ("heads", "layout"),
    [
        (2, PageLayout(2, 32, 16)),
        (14, PageLayout(2, 64, 16, 32)),
        (8, PageLayout(1, 128, 8)),
        (8, PageLayout(2, 80, 16, dtype=torch.float16)),
    ],
)
def test_attention_matches_the_reference(heads: int, layout: PageLayout):
    cache = Cache(layout, [1, layout.page_size + 1, 257, 262, 66])
    q_lens = [1, 2, 1, 9, 65]
    q, scale = cache.q(sum(q_lens), heads), layout.head_dim**-0.5
    plan = cache.plan(q_lens)
    together = gpu.attention(q, cache.pages, plan, scale)
    assert_close(together, reference.attention(q, cache.pages, plan, scale))
    alone = gpu.attention(q[3:4], cache.pages, cache.plan([1], [2]), scale)
    assert torch.equal(alone[0], together[3])


@pytest.mark.parametrize("group", [0, 16])
@pytest.mark.parametrize("factor", [1.0, 1e-4])
def test_fp16_queries_keep_fp16_accuracy_however_small_values_are(factor: float, group: int):
    cache = Cache(PageLayout(2, 64, 16, group), [300, 40])
    cache.pages.v_scale.mul_(factor)
    cache.pages.k_scale[..., -1] *= 9  # groups that are far apart
    cache.pages.v_scale[..., 0] /= 9
    q, plan = cache.q(6, 4, torch.float16), cache.plan([1, 5])
    expected = reference.attention(q.float(), cache.pages, plan, 0.125)
    assert_close(gpu.attention(q, cache.pages, plan, 0.125) / factor, expected / factor, torch.float16)


def test_a_tree_matches_the_reference_beside_causal_rows():
    cache = Cache(PageLayout(2, 32, 4), [259, 30, 90])
    q_lens, masks = [6, 1, 70], [0b1, 0b11, 0b101, 0b1011, 0b10101, 0b100001]
    plan = cache.plan(q_lens, tree=masks + [0] * 71)
    q = cache.q(77, 4)
    expected = reference.attention(q, cache.pages, plan, 0.2)
    assert_close(gpu.attention(q, cache.pages, plan, 0.2), expected)
    causal = reference.attention(q, cache.pages, cache.plan(q_lens), 0.2)
    assert torch.equal(causal[6:], expected[6:])
    assert not torch.allclose(causal[2:6], expected[2:6])


def test_a_captured_plan_takes_more_work_than_it_was_built_with():
    """What a CUDA graph does: the launch of a small plan, over memory refilled with a larger one."""
    cache = Cache(PageLayout(1, 32, 16), [3, 700, 256, 257])
    capacity = Capacity(4, 1, 700)
    captured = cache.plan([1], [0], capacity=capacity)
    q = cache.q(4, 2)
    first = gpu.attention(q, cache.pages, captured, 0.2)
    assert_close(first[:1], reference.attention(q[:1], cache.pages, cache.plan([1], [0]), 0.2))
    assert not first[1:].any()
    for rows in ([1, 2, 3], [3, 1, 0, 2], []):
        plan = cache.plan([1] * len(rows), rows, capacity=capacity)
        captured.refill(plan)
        result = gpu.attention(q, cache.pages, captured, 0.2)
        exact = cache.plan([1] * len(rows), rows)
        assert torch.equal(result[: len(rows)], gpu.attention(q[: len(rows)], cache.pages, exact, 0.2))
        assert not result[len(rows) :].any()
    with pytest.raises(ValueError, match="capacities"):
        captured.refill(cache.plan([1]))


def stored(pages: LayerPages) -> list[torch.Tensor]:
    tensors = [pages.k, pages.v, pages.k_scale, pages.v_scale]
    return [t.float().nan_to_num(-1.0) for t in tensors if t is not None]


@pytest.mark.parametrize("group", [0, 32])
def test_writing_quantises_as_the_reference_does(group: int):
    layout = PageLayout(2, 64, 4, group)
    mine, theirs = arena_pages(layout, 5, device=DEVICE), arena_pages(layout, 5, device=DEVICE)
    k, v = torch.randn(2, 9, 2, 64, device=DEVICE)
    k[4] = 0
    k[5, 0, :6] = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5], device=DEVICE)
    slots = torch.randperm(20)[:9].to(DEVICE)
    slots[3] = -1
    gpu_write.write_kv(k, v, mine, slots)
    reference.write_kv(k, v, theirs, slots)
    for a, b in zip(stored(mine), stored(theirs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "layout", [PageLayout(2, 80, 4), PageLayout(2, 64, 4, 32), PageLayout(1, 32, 4, 0, torch.float32)]
)
@pytest.mark.parametrize("normed", [False, True])
def test_rotating_and_writing_is_the_reference(layout: PageLayout, normed: bool):
    width, tokens = layout.head_dim, 5
    norms = HeadNorms(*torch.rand(2, width, device=DEVICE), 1e-6) if normed else None
    qkv = torch.randn(tokens, (4 + 2 * layout.kv_heads) * width, device=DEVICE)
    cos, sin = torch.randn(2, tokens, width, device=DEVICE)
    slots = torch.tensor([7, 0, -1, 19, 8], device=DEVICE)
    mine, theirs = arena_pages(layout, 5, device=DEVICE), arena_pages(layout, 5, device=DEVICE)
    q = gpu_write.rotate_and_write(qkv, cos, sin, mine, slots, norms)
    assert_close(q, rotary.rotate_and_write(qkv, cos, sin, theirs, slots, norms))
    for a, b in zip(stored(mine), stored(theirs), strict=True):
        assert (a - b).abs().max() <= (1 if layout.dtype == torch.int8 else 1e-5)
    for a, b in zip(stored(mine)[2:], stored(theirs)[2:], strict=True):
        assert torch.allclose(a, b, rtol=1e-3)


def test_poison_shows():
    """A query that sees an unwritten position would be NaN: the tests above would fail."""
    cache = Cache(PageLayout(1, 32, 16), [17])
    plan = AttentionPlan.build([1], [18], cache.tables, 16, DEVICE)
    assert gpu.attention(cache.q(1, 1), cache.pages, plan, 0.2).isnan().all()
