"""Swarms of seeds in CI, long ones as soak, and the traces that killed peers as directed runs."""

from collections import Counter

import pytest

from tests.scheduling.scenarios import (
    an_adapter_wanted_while_others_are_always_in_use,
    flights,
    shares_under_all_conditions,
    tokens_per_step,
)
from tests.scheduling.simulator import Simulator
from tests.scheduling.swarm import run
from tests.scheduling.world import World, crowded

BLOCKS = 10
SEEDS_PER_BLOCK = 17
STEPS = 300

MUST_HAPPEN = (
    "hit", "miss", "chunk", "burst", "preemption", "abort", "fault", "loaded", "load failed", "drop", "stop string",
    "guess", "branch", "yielded", "delayed", "refused early", "forgotten", "revoked", "vanished",
    "finished stop", "finished length", "finished abort", "finished error", "refused overloaded",
    "refused too_many_waiting", "refused invalid_request", "refused adapter_unavailable",
    "refused context_length_exceeded",
    "saved", "restored", "released", "shed", "grown", "stored", "fetched", "bad", "missing", "refused", "erased",
    "restart", "host hit", "disk hit", "taken", "lie", "handed over", "not handed over", "held up",
)  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What has happened over all blocks: a fault that never fired proves nothing."""
    return Counter()


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_invariant_holds_after_every_event(block: int, seen: Counter[str]):
    for seed in range(block * SEEDS_PER_BLOCK, (block + 1) * SEEDS_PER_BLOCK):
        seen.update(run(seed, STEPS))


def test_the_swarm_went_far_enough_and_every_fault_fired(seen: Counter[str]):
    if not seen:
        pytest.skip("runs after the blocks")
    assert seen["steps"] >= 50_000
    assert not [what for what in MUST_HAPPEN if not seen[what]], seen


@pytest.mark.soak
@pytest.mark.parametrize("block", range(40))
def test_soak(block: int):
    for seed in range(1_000_000 + block * 30, 1_000_000 + (block + 1) * 30):
        run(seed, 1_000)


def simulate(**world) -> Simulator:
    return Simulator(World(seed=1, **world))


def steps(sim: Simulator, count: int) -> None:
    for _ in range(count):
        sim.step()


LONG = tuple([2, 3] * 10)


def test_cancel_and_retry_at_once():
    """vLLM: cancel, then the same prompt again while the first one's pages are still warm."""
    sim = simulate(pages=24)
    for wait in range(8):
        first = sim.submit(LONG, max_tokens=8)
        steps(sim, wait)
        sim.abort(first) if first in sim.live else None
        sim.submit(LONG, max_tokens=8)
        sim.step()
    sim.drain()


def test_adapters_alternate_around_two_long_anchors():
    """vLLM #38606: alternation between adapters under pressure changed the output of long-lived requests."""
    sim = simulate(pages=48, max_running=4, budget=10, adapter_sizes=(4, 4, 4), adapter_limit=8, load_delay=1)
    sim.submit(LONG, adapter=0, max_tokens=20, ignore_eos=True)
    sim.submit((*LONG, 2), tenant=1, max_tokens=20, ignore_eos=True)
    for turn in range(40):
        sim.submit((2, 3, 2), adapter=1 + turn % 2, max_tokens=2)
        sim.step()
    sim.drain()


def test_one_long_request_after_many_short_ones():
    sim = simulate(pages=20, max_running=8, budget=12)
    for i in range(10):
        sim.submit((2, 3, 2 + i % 3), max_tokens=6)
    name = sim.submit(LONG, tenant=1, max_tokens=18, ignore_eos=True)
    sim.drain()
    assert sim.clients[name].terminal.reason == "length"


def test_many_choices_then_the_adapter_is_dropped():
    """SGLang #25864: parallel sampling drove the adapter's count below zero, and its unload hung."""
    sim = simulate(pages=40, max_running=8, budget=12)
    name = sim.submit((2, 3, 3), adapter=0, n=8, max_tokens=6)
    steps(sim, 3)
    sim.drop(0)
    refused = sim.submit((2, 3, 3), adapter=0, max_tokens=6)
    sim.drain()
    assert sim.clients[name].terminal.reason in ("stop", "length")
    assert sim.clients[refused].terminal.code == "adapter_unavailable"
    assert not sim.runner.device, "the dropped adapter stayed"
    assert not list(sim.scheduler.cache.tree), "its KV stayed"


@pytest.mark.parametrize("chunk", range(1, 6))
@pytest.mark.parametrize("in_flight", [False, True])
def test_abort_in_the_middle_of_chunk(chunk: int, in_flight: bool):
    """SGLang #38319: pages of a chunk were shared while the request still owned them, then freed by its abort."""
    sim = simulate(pages=16, max_running=2, budget=6)
    name = sim.submit(LONG, max_tokens=4)
    steps(sim, chunk - 1)
    if name in sim.live:
        if in_flight:
            sim.step([name])
        else:
            sim.abort(name)
    sim.submit(LONG, max_tokens=4)
    sim.drain()


def test_full_eviction_then_the_same_prefix_again():
    sim = simulate(pages=12)
    sim.submit(LONG, max_tokens=2)
    sim.drain()
    again = sim.submit(LONG, max_tokens=2)
    sim.drain()
    assert sim.clients[again].terminal.usage.cached == 0


def test_near_full_pool_with_base_adapters_and_cancel_noise():
    """SGLang #23141."""
    sim = simulate(pages=14, max_running=6, budget=9, adapter_sizes=(2, 2, 3), adapter_limit=7, tenants=2)
    for turn in range(60):
        name = sim.submit(LONG[: 3 + turn % 9], turn % 2, turn % 4 - 1, max_tokens=4 + turn % 7, ignore_eos=True)
        sim.step([name] if turn % 5 == 0 and name in sim.live else ())
    sim.drain()
    assert sim.scheduler.stats().preemptions


def test_paired_cache_hit():
    """The same tenant hits; another tenant and another adapter do not, though their tokens are the same."""
    sim = simulate(pages=40)
    for expected, tenant, adapter in ((0, 0, -1), (18, 0, -1), (0, 1, -1), (0, 0, 0), (18, 0, 0), (0, 0, 1)):
        name = sim.submit(LONG, tenant, adapter, max_tokens=2)
        while name in sim.live:
            sim.step()
        assert sim.clients[name].terminal.usage.cached == expected, (tenant, adapter)


def test_a_flooding_tenant_does_not_starve_another():
    sim = simulate(pages=64, max_running=2, max_waiting=40)
    for _ in range(30):
        sim.submit((2, 3), max_tokens=8, ignore_eos=True)
    sim.step()
    quiet = sim.submit((3, 2), tenant=1, max_tokens=8, ignore_eos=True)
    flood = sum(1 for c in sim.clients.values() if c.started)
    while not sim.clients[quiet].started:
        sim.step()
    assert sum(1 for c in sim.clients.values() if c.started and c.tenant == 0) <= flood + 1
    sim.drain()


def test_a_loading_adapter_holds_up_nobody():
    sim = simulate(pages=64, load_delay=30)
    slow = sim.submit((2, 3), adapter=0, max_tokens=2)
    others = [sim.submit((3, 2), max_tokens=2) for _ in range(5)]
    steps(sim, 15)
    assert slow in sim.live
    assert not set(others) & sim.live.keys()
    sim.drain()


def test_a_late_request_is_refused_not_prefilled():
    sim = simulate(max_running=1, pages=32)
    sim.submit(LONG, max_tokens=12, ignore_eos=True)
    late = sim.submit((2, 3), max_tokens=2, deadline=3.0)
    sim.drain()
    assert sim.clients[late].terminal.code == "overloaded"
    assert sim.clients[late].terminal.param == "deadline"


def test_the_oldest_request_is_never_preempted_for_good():
    """As many long requests as run at once, in a pool that holds one: all end, with the reference's tokens."""
    sim = simulate(pages=12, max_running=4, budget=8)
    for tenant in (0, 1, 0, 1):
        sim.submit((2, 3, 2), tenant, max_tokens=20, ignore_eos=True)
    sim.drain()
    assert sim.seen["finished length"] == 4
    assert sim.scheduler.stats().preemptions


def test_shares_are_kept_under_all_conditions():
    shares_under_all_conditions()


def test_a_cold_prefix_is_computed_once_in_a_tenant_and_by_each_tenant_for_itself():
    """Fault 40: a cache stampede."""
    flights()


def test_an_adapter_wanted_while_others_are_always_in_use_is_loaded():
    an_adapter_wanted_while_others_are_always_in_use()


def test_four_times_more_adapters_than_fit_keep_seven_tenths_of_the_throughput():
    """Eight of thirty-two adapters fit; those that are cold leave, and nobody who runs waits for one that comes."""
    everything, quarter = tokens_per_step(32, 32), tokens_per_step(32, 8)
    assert quarter >= 0.7 * everything, f"{quarter} tokens per step instead of {everything}"


def test_adapters_and_pages_crowd_each_other_for_long():
    for seed in range(6):
        run(seed, 300, crowded(seed))
