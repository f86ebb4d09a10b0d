"""One arena under a real model: the same tokens as with separate pools, whatever lay in a block before."""

from collections.abc import Sequence

import pytest
import torch

from tenantry.adapters.residency import Outcome
from tenantry.adapters.room import NONE, Footprint
from tenantry.kernels.attention.layout import PageLayout
from tenantry.kernels.lora.layout import SiteShape, SliceWeights
from tenantry.kernels.lora.table import LoraTable
from tenantry.runtime.cache.memory import Memory
from tenantry.runtime.cache.pool import ArenaPool, KvPool
from tenantry.runtime.config import ArenaConfig, CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.scheduler import Scheduler

LAYOUTS = [PageLayout(2, 16, 4), PageLayout(1, 32, 4, dtype=torch.float32), PageLayout(2, 64, 16, group=32)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_layers_are_views_that_share_no_byte_and_moves_take_whole_pages(layout: PageLayout):
    pool, plain = ArenaPool(layout, 3, 5), KvPool(layout, 3, 5)
    value = 0
    for ours, theirs in zip(pool.layers, plain.layers, strict=True):
        for a, b in ((ours.k, theirs.k), (ours.v, theirs.v), (ours.k_scale, theirs.k_scale)):
            if a is None or b is None:
                continue
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            for page in range(5):
                value += 1
                a[page] = b[page] = value % 120
    for each in (pool, plain):
        each.move([(0, 3), (4, 0)])
    for ours, theirs in zip(pool.layers, plain.layers, strict=True):
        assert torch.equal(ours.k, theirs.k)
        assert torch.equal(ours.v, theirs.v)
    assert pool.block_bytes >= layout.bytes_per_page * 3
    assert pool.data.data_ptr() % 64 == 0


@pytest.fixture(scope="module")
def served(serve):
    """Floors of 40 pages and 256 KiB."""
    cache = CacheConfig(page_size=4, pages=40)
    return serve("qwen2", kv_dtype="int8", memory="unified", cache=cache, adapter_bytes=1 << 18)


Asked = tuple[int, list[int], bytes | None]  # seed, prompt, adapter


def answers(served, memory, asked: list[Asked], first: Sequence[bytes] = ()) -> tuple[list[list[int]], Scheduler]:
    """first: adapters to load before anything is asked, one after the other."""
    runner = served.runner
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
    schedule = ScheduleConfig(token_budget=64, max_running=8, max_context=128)
    scheduler = Scheduler(schedule, memory.cache, memory.residency, runner.end_tokens, runner.vocab_size)
    for digest in first:
        assert scheduler.warm(digest, runner.footprint(digest)) is Outcome.LOADING
        while scheduler.has_work:
            plan = scheduler.plan(0.0)
            assert plan is not None
            scheduler.commit(plan, runner.run(plan), 0.0)
    told: dict[str, list[int]] = {}
    for seed, prompt, adapter in asked:
        key = Namespace(b"t%d" % (seed % 2), adapter or bytes(32)).key
        submit = Submit(f"r{seed}", tuple(prompt), Sampling(10, seed=seed, ignore_eos=True), key, adapter, "t")
        assert scheduler.add(submit, runner.footprint(adapter) if adapter else NONE, 0.0) is None
        told[submit.request_id] = []
    while scheduler.has_work:
        plan = scheduler.plan(0.0)
        assert plan is not None
        for event in scheduler.commit(plan, runner.run(plan), 0.0):
            if isinstance(event, Tokens):
                told[event.request_id] += event.tokens
            elif isinstance(event, Finished):
                assert event.reason == "length", event
        memory.check()
    scheduler.check()
    return list(told.values()), scheduler


def test_crowded_or_not_the_tokens_are_the_same(served, make_adapter):
    """Alone and with room for everything; then in an arena so small that adapters and pages drive each other out,
    over blocks full of NaN."""
    adapters = [
        served.stored(make_adapter("qwen2", seed=r, r=r, lora_alpha=2 * r, target_modules="all-linear"))
        for r in (4, 8, 16)
    ]
    noise = torch.Generator().manual_seed(3)
    prefix = torch.randint(0, 101, (24,), generator=noise).tolist()
    asked = []
    for i in range(24):
        tail = torch.randint(0, 101, (1 + i % 17,), generator=noise).tolist()
        asked.append((i, prefix + tail if i % 3 else tail, [*adapters, None][i % 4]))
    block = served.runner.block_bytes
    largest = max(-(-served.runner.footprint(digest).bytes // block) for digest in adapters)
    blocks = len(served.runner.pool.blocks)
    expected = []
    for one in asked:
        wide = Memory(ArenaConfig(blocks, block, 40, largest), 4)
        expected += answers(served, wide, [one])[0]
    tight = Memory(ArenaConfig(40 + largest + 2, block, 40, largest), 4)
    served.runner.pool.data.fill_(0xFF)
    got, scheduler = answers(served, tight, asked)
    assert got == expected
    assert len(served.runner.adapters.resident) < 3, "nothing was evicted: this proved nothing"
    assert scheduler.stats().pages_cached


def test_int8_adapters_are_charged_what_they_hold(serve, make_adapter):
    """Their place shrinks once they are read, and answers stay what they are with room for everything."""
    cache = CacheConfig(page_size=4, pages=40)
    served = serve("qwen2", memory="unified", adapter_dtype="int8", cache=cache, adapter_bytes=1 << 18)
    adapters = [served.stored(make_adapter("qwen2", seed=r, r=16, target_modules="all-linear")) for r in range(4)]
    runner, block = served.runner, served.runner.block_bytes
    asked = [(i, [3 + i, 9, 27, 81], adapters[i % 4]) for i in range(12)]
    native = -(-runner.footprint(adapters[0]).bytes // block)
    blocks = len(runner.pool.blocks)
    wide = Memory(ArenaConfig(blocks, block, 40, native), 4)
    expected, scheduler = answers(served, wide, asked, adapters)
    held = scheduler.stats().adapter_bytes
    assert held == runner.adapters.nbytes
    assert 0.2 < held / (4 * native * block) < 0.35, "fp32 adapters in a quarter of their bytes, and scales"
    assert wide.arena.adapter_blocks * block < 1.1 * held + 4 * block
    tight = Memory(ArenaConfig(40 + 2 * native, block, 40, 2 * native), 4)
    runner.pool.data.fill_(0xFF)
    got, scheduler = answers(served, tight, asked, adapters)
    assert got == expected
    assert len(runner.adapters.resident) == 4, "two of native size fit"


def test_64_adapters_of_rank_8_use_at_most_a_tenth_more_than_their_sizes():
    """Real tensors at the demo model's shape, each read back where kernels will look for it."""
    hidden, inner, kv, layers = 256, 688, 128, 4
    sites = {
        "qkv": SiteShape(hidden, (hidden, kv, kv)),
        "o": SiteShape(hidden, (hidden,)),
        "gate_up": SiteShape(hidden, (inner, inner)),
        "down": SiteShape(inner, (hidden,)),
    }
    table = LoraTable(layers, sites, torch.bfloat16)
    pool = ArenaPool(PageLayout(4, 32, 16), layers, 64 * 20)
    memory = Memory(ArenaConfig(64 * 20, pool.block_bytes, 64, 64 * 18), 16)
    true = 0
    for index in range(64):
        noise = torch.Generator().manual_seed(index)
        modules = {
            (layer, name, part): SliceWeights(
                torch.randn(8, site.in_features, generator=noise), torch.randn(out, 8, generator=noise), 8, 1.0
            )
            for layer in range(layers)
            for name, site in sites.items()
            for part, out in enumerate(site.slices)
        }
        true += sum(2 * (weights.a.numel() + weights.b.numel()) for weights in modules.values())
        digest, pieces = bytes([index]) * 32, tuple(segment.nbytes for segment in table.segments(modules))
        assert memory.residency.warm(digest, Footprint(pieces)) is Outcome.LOADING
        table.set_slot(index, table.prepare(modules, pool.buffers(pieces, memory.extents(digest))))
    assert memory.arena.adapter_blocks * pool.block_bytes <= 1.1 * true
    first = table.slice_weights(0, 3, "down", 0)
    noise = torch.Generator().manual_seed(0)
    assert first is not None, "the last one written is not where the first one was"
    last = [torch.randn(8, s.in_features, generator=noise) if i % 2 == 0 else torch.randn(o, 8, generator=noise)
            for _ in range(layers) for s in sites.values() for o in s.slices for i in range(2)]  # fmt: skip
    assert torch.equal(first.a, last[-2].bfloat16())
