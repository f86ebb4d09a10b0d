"""One engine as people see it: where it stands, what it holds, how busy it is.

Owns the wording of an engine's state. Digests name adapters here, so this is for operators.
"""

from typing import Literal

import msgspec

from tenantry.platform.fleet.views import (
    STAGES,
    AdapterView,
    GuessesView,
    HostMemoryView,
    PagesView,
    TenantShareView,
    TierView,
    shares,
    tiers,
)
from tenantry.runtime.client import EngineClient
from tenantry.runtime.config import Role
from tenantry.runtime.counts import Stats, StepTimes

Standing = Literal["ready", "draining", "away"]


class EngineReport(msgspec.Struct, frozen=True):
    """state: "ready"; "draining" (it ends what it has); "away" (it starts, hangs or died: no numbers). epoch: names
    this life of it. open: requests of this gateway. known_prefix_blocks: what the router believes it has.
    rerouted: requests that it failed and another engine took over. step_seconds: spent in all steps. hand_offs: see
    runtime.counts.HandOffCounts. adapter_bytes_limit: that adapters may take, in all. refused_early: requests whose
    deadline could not have been met. yielded: sequences put back for a tenant with less than its share.
    """

    name: str
    role: Role
    state: Standing
    epoch: str | None
    open: int
    running: int
    waiting: int
    preemptions: int
    steps: int
    step_seconds: float
    pages: PagesView
    adapters: list[AdapterView]
    hand_offs: dict[str, int]
    known_prefix_blocks: int
    rerouted: int
    tenants: list[TenantShareView]
    tenants_waiting: int
    pages_evicted: int
    adapters_evicted: int
    adapter_bytes_limit: int
    tiers: list[TierView]
    host_memory: HostMemoryView
    step_times: StepTimes
    guesses: list[GuessesView]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    yielded: int
    refused_early: int


def report(name: str, role: Role, client: EngineClient, known: int, rerouted: int) -> EngineReport:
    pong = client.last_pong
    stats = Stats() if pong is None else pong.stats
    state: Standing = "ready" if client.ready else "away"
    if pong is not None and not pong.ready:
        state = "draining"
    pages = PagesView(
        stats.pages_total, stats.pages_free, stats.pages_cached, stats.kv_live_bytes, stats.kv_cached_bytes
    )
    memory = HostMemoryView(
        STAGES[stats.memory_stage], round(stats.memory_used, 4), stats.memory_limit, stats.refused_memory
    )
    return EngineReport(
        name=name,
        role=role,
        state=state,
        epoch=None if pong is None else pong.epoch,
        open=client.open,
        running=stats.running,
        waiting=stats.waiting,
        preemptions=stats.preemptions,
        steps=stats.steps,
        step_seconds=round(stats.step_seconds, 6),
        pages=pages,
        adapters=[AdapterView.of(adapter) for adapter in stats.adapters],
        hand_offs=msgspec.structs.asdict(stats.hand_offs),
        known_prefix_blocks=known,
        rerouted=rerouted,
        tenants=shares(stats.tenants),
        tenants_waiting=stats.tenants_waiting,
        pages_evicted=stats.pages_evicted,
        adapters_evicted=stats.adapters_evicted,
        adapter_bytes_limit=stats.adapter_bytes_limit,
        tiers=tiers(stats),
        host_memory=memory,
        step_times=stats.step_times,
        guesses=[GuessesView.of(counts) for counts in stats.proposers],
        prompt_tokens=stats.prompt_tokens,
        cached_tokens=stats.cached_tokens,
        completion_tokens=stats.completion_tokens,
        yielded=stats.yielded,
        refused_early=stats.refused_early,
    )
