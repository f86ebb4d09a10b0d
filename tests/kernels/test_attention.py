"""Paged attention: fp64 oracle over GQA, sizes, groups and page boundaries; equal bits however prompts are cut."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.kernels.attention import cpu, cpu_write, reference, rotary
from tenantry.kernels.attention.layout import LayerPages, PageLayout
from tenantry.kernels.attention.plan import CHUNK, AttentionPlan, Capacity
from tenantry.kernels.attention.rotary import HeadNorms
from tenantry.kernels.testing import arena_pages, assert_close

INT8 = torch.int8
GQA = [(4, 4), (8, 2), (14, 2), (8, 1)]


@pytest.fixture(autouse=True)
def outputs_start_as_nan(monkeypatch):
    empty = torch.empty

    def poisoned_empty(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned_empty)


class Cache:
    """Rows of random keys and values in shuffled pages, written through an op; everything else is poison."""

    def __init__(self, ops, layout: PageLayout, lengths: list[int]) -> None:
        self.layout, self.lengths = layout, lengths
        need = [-(-n // layout.page_size) for n in lengths]
        ids = torch.randperm(sum(need) + 3).tolist()
        self.tables = [[ids.pop() for _ in range(n)] for n in need]
        self.pages = arena_pages(layout, sum(need) + 3)
        self.kv = [torch.randn(2, n, layout.kv_heads, layout.head_dim) for n in lengths]
        for row, (k, v) in enumerate(self.kv):
            ops.write_kv(k, v, self.pages, self.slots(row, range(len(k))))

    def slots(self, row: int, positions) -> torch.Tensor:
        size = self.layout.page_size
        return torch.tensor([self.tables[row][p // size] * size + p % size for p in positions], dtype=torch.int64)

    def plan(self, rows: list[int], q_lens: list[int], lengths: list[int], tree=None) -> AttentionPlan:
        tables = [self.tables[r] for r in rows]
        return AttentionPlan.build(q_lens, lengths, tables, self.layout.page_size, tree=tree)

    def oracle(self, q: torch.Tensor, row: int, length: int, scale: float, masks=None) -> torch.Tensor:
        """fp64 over the stored (quantised) values. q: [n, H, D], the last n of `length` positions. masks: a tree."""
        slots = self.slots(row, range(length))
        page, offset = slots // self.layout.page_size, slots % self.layout.page_size
        stored = []
        for x, s in ((self.pages.k, self.pages.k_scale), (self.pages.v, self.pages.v_scale)):
            values = x[page, :, offset].double()
            if s is not None:
                values = values * s[page, :, offset].double().repeat_interleave(values.shape[-1] // s.shape[-1], -1)
            stored.append(values.repeat_interleave(q.shape[1] // self.layout.kv_heads, 1))
        k, v = stored
        out = torch.empty(q.shape, dtype=torch.float64)
        for i in range(len(q)):
            before = length - len(q)
            bits = (1 << i + 1) - 1 if masks is None else masks[i]
            seen = [*range(before), *(before + j for j in range(len(q)) if bits >> j & 1)]
            weights = (torch.einsum("hd,thd->ht", q[i].double(), k[seen]) * scale).softmax(-1)
            out[i] = torch.einsum("ht,thd->hd", weights, v[seen])
        return out


@pytest.mark.parametrize(("heads", "kv_heads"), GQA)
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("page_size", [4, 16, 32])
def test_matches_fp64_at_page_and_block_boundaries(ops, heads: int, kv_heads: int, head_dim: int, page_size: int):
    check(ops, heads, PageLayout(kv_heads, head_dim, page_size))


@pytest.mark.parametrize("group", [32, 64, 128])
def test_matches_fp64_with_groups(ops, group: int):
    check(ops, 8, PageLayout(2, 128, 16, group))


@pytest.mark.parametrize(
    "layout", [PageLayout(2, 48, 5), PageLayout(1, 96, 16, 32), PageLayout(1, 256, 16, 64)], ids=str
)
def test_matches_fp64_at_other_sizes(ops, layout: PageLayout):
    check(ops, 4, layout)


def test_matches_fp64_at_the_boundaries_of_pieces(ops):
    layout = PageLayout(2, 32, 16)
    lengths = [n + off for n in (CHUNK, 2 * CHUNK, CHUNK + 64) for off in (-1, 0, 1)]
    cache = Cache(ops, layout, lengths)
    q_lens = [1, 2, 65, 1, 9, 3, 64, 1, 1]
    q = torch.randn(sum(q_lens), 4, 32)
    parts = ops.attention(q, cache.pages, cache.plan(list(range(9)), q_lens, lengths), 0.2).split(q_lens)
    for row, (part, query) in enumerate(zip(parts, q.split(q_lens), strict=True)):
        assert_close(part, cache.oracle(query, row, lengths[row], 0.2), layout.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_matches_fp64_with_native_pages(ops, dtype: torch.dtype):
    check(ops, 8, PageLayout(2, 64, 16, dtype=dtype))


def test_sizes_that_tiles_do_not_divide_take_the_reference(ops):
    check(ops, 6, PageLayout(3, 24, 5))


def check(ops, heads: int, layout: PageLayout) -> None:
    p = layout.page_size
    lengths = [1, p - 1, p, p + 1, 63, 64, 65, 130]
    q_lens = [1, 1, p, 2, 1, 1, 65, 17]
    cache = Cache(ops, layout, lengths)
    plan = cache.plan(list(range(len(lengths))), q_lens, lengths)
    q, scale = torch.randn(sum(q_lens), heads, layout.head_dim), layout.head_dim**-0.5
    for attention in (ops.attention, reference.attention):
        parts = attention(q, cache.pages, plan, scale).split(q_lens)
        for row, (part, query) in enumerate(zip(parts, q.split(q_lens), strict=True)):
            assert_close(part, cache.oracle(query, row, lengths[row], scale), layout.dtype)


def test_a_query_has_the_same_bits_however_its_prompt_is_cut(ops):
    cache = Cache(ops, PageLayout(2, 64, 16, 32), [150, 90])
    q = torch.randn(150, 14, 64)
    whole = ops.attention(q, cache.pages, cache.plan([0], [150], [150]), 0.125)
    for cuts in ([0, 1, 17, 64, 65, 150], [0, 100, 150], [*range(0, 150, 7), 150]):
        for first, past in itertools.pairwise(cuts):
            company = torch.cat((torch.randn(3, 14, 64), q[first:past]))
            plan = cache.plan([1, 0], [3, past - first], [90, past])
            assert torch.equal(ops.attention(company, cache.pages, plan, 0.125)[3:], whole[first:past])


def test_a_row_has_the_same_bits_in_any_company_order_and_number_of_threads(ops, monkeypatch):
    """One long row alone is split over threads piece by piece; among others, or on one thread, it is not."""
    cache = Cache(ops, PageLayout(2, 64, 16), [1500, 300, 90, 700])
    q_lens = [1, 4, 70, 2]
    q = torch.randn(sum(q_lens), 14, 64)
    parts = q.split(q_lens)
    results = []
    for serial, threads in ((1 << 60, 1), (0, 2)):
        monkeypatch.setattr(cpu, "SERIAL", serial)
        monkeypatch.setattr(cpu, "get_threads", lambda threads=threads: threads)
        monkeypatch.setattr(cpu, "get_parts", lambda threads=threads: 4 * threads if threads > 1 else 1)
        for order in ([0, 1, 2, 3], [3, 1, 0, 2], [0], [2, 0]):
            plan = cache.plan(order, [q_lens[r] for r in order], [cache.lengths[r] for r in order])
            out = ops.attention(torch.cat([parts[r] for r in order]), cache.pages, plan, 0.125)
            results.append(dict(zip(order, out.split([q_lens[r] for r in order]), strict=True)))
    for result in results:
        assert all(torch.equal(part, results[0][row]) for row, part in result.items())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_tree_matches_brute_force_masks(ops, data):
    """Random parents, beside causal rows; nodes cross pages and pieces."""
    sizes = data.draw(st.lists(st.integers(1, 64), min_size=1, max_size=3))
    before = data.draw(st.lists(st.integers(0, 270), min_size=len(sizes), max_size=len(sizes)))
    masks = []
    for size in sizes:
        mine = [1]
        for i in range(1, size):
            parent = data.draw(st.integers(-1, i - 1))
            mine.append((mine[parent] if parent >= 0 else 0) | 1 << i)
        masks.append(mine)
    lengths = [b + n for b, n in zip(before, sizes, strict=True)] + [75]
    cache = Cache(ops, PageLayout(2, 32, 4), lengths)
    q_lens = [*sizes, 66]
    q = torch.randn(sum(q_lens), 4, 32)
    plan = cache.plan(list(range(len(lengths))), q_lens, lengths, tree=[m for mine in masks for m in mine] + [0] * 66)
    for attention in (ops.attention, reference.attention):
        parts = attention(q, cache.pages, plan, 0.2).split(q_lens)
        for row, (part, query) in enumerate(zip(parts, q.split(q_lens), strict=True)):
            tree = masks[row] if row < len(masks) else None
            assert_close(part, cache.oracle(query, row, lengths[row], 0.2, tree), INT8)


def test_a_chain_has_the_bits_of_causal_rows(ops):
    cache = Cache(ops, PageLayout(2, 64, 16), [300])
    q = torch.randn(7, 4, 64)
    causal, chain = (cache.plan([0], [7], [300], tree) for tree in (None, [(2 << i) - 1 for i in range(7)]))
    assert torch.equal(*(ops.attention(q, cache.pages, plan, 0.1) for plan in (causal, chain)))


@pytest.mark.parametrize("tree", [[1, 1, 1], [1, 2, 12], [1, 3], [1] * 3 + [0]])
def test_masks_that_are_no_tree_are_refused(tree):
    with pytest.raises(ValueError, match="tree"):
        AttentionPlan.build([3], [3], [[0]], 4, tree=tree)


def test_a_plan_with_a_capacity_is_refused(ops):
    plan = AttentionPlan.build([1], [3], [[0]], 4, capacity=Capacity(2, 1, 8))
    with pytest.raises(ValueError, match="capacity"):
        ops.attention(torch.zeros(2, 2, 32), PageLayout(2, 32, 4).allocate(1), plan, 1.0)
    for q_lens, lengths in (([1] * 3, [1] * 3), ([2], [2]), ([1], [9])):
        with pytest.raises(ValueError, match="beyond"):
            AttentionPlan.build(q_lens, lengths, [[0, 1, 2]] * len(q_lens), 4, capacity=Capacity(2, 1, 8))


def test_nan_in_one_row_stays_in_it(ops):
    cache = Cache(ops, PageLayout(2, 32, 4), [9, 9])
    k = torch.randn(1, 2, 32)
    k[0, 1, 7] = float("nan")
    ops.write_kv(k, torch.randn(1, 2, 32), cache.pages, cache.slots(0, [8]))
    out = ops.attention(torch.randn(2, 4, 32), cache.pages, cache.plan([0, 1], [1, 1], [9, 9]), 0.2)
    assert out[0, 2:].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("group", [0, 32, 16])
def test_writing_quantises_as_the_reference_does(ops, group: int):
    layout = PageLayout(2, 64, 4, group)
    mine, theirs = arena_pages(layout, 5), arena_pages(layout, 5)
    k, v = torch.randn(9, 2, 64) * 10 ** (2 * torch.randn(9, 2, 1)), torch.randn(9, 2, 64)
    k[4] = 0
    slots = torch.randperm(20)[:9]
    ops.write_kv(k, v, mine, slots)
    reference.write_kv(k, v, theirs, slots)
    for a, b in zip(
        (mine.k, mine.v, mine.k_scale, mine.v_scale),
        (theirs.k, theirs.v, theirs.k_scale, theirs.v_scale),
        strict=True,
    ):
        assert torch.equal(
            a.nan_to_num(-1.0) if a.is_floating_point() else a, b.nan_to_num(-1.0) if b.is_floating_point() else b
        )
    page, offset = slots // 4, slots % 4
    back = reference.dequantise(mine.k[page, :, offset], mine.k_scale[page, :, offset])
    step = mine.k_scale[page, :, offset].float().repeat_interleave(64 // layout.groups, -1)
    assert ((back - k).abs() <= step * 0.5001 + k.abs() / 2000).all()  # fp16 scales: the largest may fall short


@pytest.mark.parametrize(
    "layout",
    [PageLayout(2, 64, 4), PageLayout(2, 96, 4, 32), PageLayout(1, 24, 4), PageLayout(1, 32, 4, 0, torch.float32)],
    ids=str,
)
@pytest.mark.parametrize("normed", [False, True])
def test_rotating_and_writing_is_the_reference(ops, monkeypatch, layout: PageLayout, normed: bool):
    monkeypatch.setattr(cpu_write, "SERIAL", 0)
    width, tokens = layout.head_dim, 7
    norms = HeadNorms(*torch.rand(2, width), 1e-6) if normed else None
    qkv = torch.randn(tokens, (4 + 2 * layout.kv_heads) * width)
    cos, sin = torch.randn(2, tokens, width)
    slots = torch.randperm(20)[:tokens]
    slots[2] = -1
    mine, theirs = arena_pages(layout, 5), arena_pages(layout, 5)
    q = ops.rotate_and_write(qkv, cos, sin, mine, slots, norms)
    assert_close(q, rotary.rotate_and_write(qkv, cos, sin, theirs, slots, norms))
    pairs = ((mine.k, theirs.k), (mine.v, theirs.v), (mine.k_scale, theirs.k_scale), (mine.v_scale, theirs.v_scale))
    near = 1 if layout.dtype == torch.int8 else 1e-5  # a rounded key may fall to the neighbour
    for a, b in ((a.float().nan_to_num(-1.0), b.float().nan_to_num(-1.0)) for a, b in pairs if a is not None):
        assert (a - b).abs().max() <= near
        assert (a == b).float().mean() > 0.95
    alone = ops.rotate_and_write(qkv[3:4], cos[3:4], sin[3:4], mine, slots[3:4], norms)
    assert torch.equal(alone[0], q[3])


@pytest.mark.parametrize("layout", [PageLayout(2, 32, 4), PageLayout(2, 32, 4, dtype=torch.float32)], ids=str)
def test_pages_apart_give_the_bits_of_pages_together(ops, layout: PageLayout):
    apart, together = arena_pages(layout, 9), layout.allocate(9)
    k, v = torch.randn(2, 30, 2, 32)
    for pages in (apart, together):
        ops.write_kv(k, v, pages, torch.arange(4, 34))
    plan, q = AttentionPlan.build([3], [30], [list(range(1, 9))], 4), torch.randn(3, 4, 32)
    results = [ops.attention(q, pages, plan, 0.2) for pages in (apart, together)]
    assert results[0].isfinite().all()
    assert torch.equal(*results)


def test_pages_must_be_contiguous_within_and_equally_far_apart():
    k, v = torch.zeros(2, 4, 2, 4, 8)
    with pytest.raises(ValueError, match="contiguous"):
        LayerPages(k.transpose(1, 2), v.transpose(1, 2))
    with pytest.raises(ValueError, match="far apart"):
        LayerPages(k[::2], v[:2])
    LayerPages(k[::2], v[::2])


def test_rounding_is_half_to_even():
    values, scale = reference.quantise(torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]]), 1)
    assert scale.item() == 1
    assert values.tolist() == [[127, 0, 2, 2, 0, -2]]


def test_bytes_per_page_are_the_tensors_bytes():
    for layout in (PageLayout(2, 64, 16), PageLayout(2, 64, 16, 32), PageLayout(3, 32, 4, dtype=torch.bfloat16)):
        pages = layout.allocate(7)
        tensors = [t for t in (pages.k, pages.v, pages.k_scale, pages.v_scale) if t is not None]
        assert sum(t.nbytes for t in tensors) == 7 * layout.bytes_per_page


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), max_size=8), st.sampled_from([1, 4, 16]))
def test_a_plan_covers_every_query_once(rows, page_size: int):
    q_lens, lengths = [q for q, _ in rows], [q + before for q, before in rows]
    tables = [list(range(100, 100 + -(-n // page_size))) for n in lengths]
    plan = AttentionPlan.build(q_lens, lengths, tables, page_size)
    seen = sorted((row, i) for row, first, past in plan.blocks.tolist() for i in range(first, past))
    assert seen == [(row, i) for row, q in enumerate(q_lens) for i in range(q)]
    assert plan.cu_q.tolist() == [sum(q_lens[:i]) for i in range(len(rows) + 1)]


@pytest.mark.parametrize(("q_len", "length", "pages"), [(0, 4, 1), (5, 4, 2), (1, 9, 2)])
def test_rows_that_their_pages_do_not_cover_are_refused(q_len: int, length: int, pages: int):
    with pytest.raises(ValueError, match="row of"):
        AttentionPlan.build([q_len], [length], [list(range(pages))], 4)
