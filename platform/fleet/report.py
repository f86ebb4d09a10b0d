"""One engine as people see it: where it stands, what it holds, how busy it is.

Owns the wording of an engine's state. Digests name adapters here, so this is for operators.
"""

from typing import Literal

import msgspec

from tenantry.runtime.client import EngineClient
from tenantry.runtime.config import Role
from tenantry.runtime.counts import Stats


class PagesView(msgspec.Struct, frozen=True):
    """KV pages. cached: kept for their prefix, those in use included."""

    total: int
    free: int
    cached: int
    live_bytes: int
    cached_bytes: int


class AdapterView(msgspec.Struct, frozen=True):
    digest: str
    state: str
    bytes: int
    users: int


class TenantShareView(msgspec.Struct, frozen=True):
    """One tenant's part of an engine: see runtime.counts.TenantShare. tenant: its name, or the engine's word for it
    where no tenant is known by that. share: of the work of all that are listed."""

    tenant: str
    weight: float
    waiting: int
    running: int
    work: float
    share: float
    ahead: float


class EngineReport(msgspec.Struct, frozen=True):
    """state: "ready"; "draining" (it ends what it has); "away" (it starts, hangs or died: no numbers). epoch: names
    this life of it. open: requests of this gateway. known_prefix_blocks: what the router believes it has.
    rerouted: requests that it failed and another engine took over. step_seconds: spent in all steps. hand_offs: see
    runtime.counts.HandOffCounts.
    """

    name: str
    role: Role
    state: Literal["ready", "draining", "away"]
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
    tenants: list[TenantShareView] = []
    tenants_waiting: int = 0
    pages_evicted: int = 0
    adapters_evicted: int = 0


def report(name: str, role: Role, client: EngineClient, known: int, rerouted: int) -> EngineReport:
    pong = client.last_pong
    stats = Stats() if pong is None else pong.stats
    state: Literal["ready", "draining", "away"] = "ready" if client.ready else "away"
    if pong is not None and not pong.ready:
        state = "draining"
    pages = PagesView(
        stats.pages_total, stats.pages_free, stats.pages_cached, stats.kv_live_bytes, stats.kv_cached_bytes
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
        adapters=[AdapterView(a.digest.hex(), a.state, a.bytes, a.users) for a in stats.adapters],
        hand_offs=msgspec.structs.asdict(stats.hand_offs),
        known_prefix_blocks=known,
        rerouted=rerouted,
        tenants=_shares(stats),
        tenants_waiting=stats.tenants_waiting,
        pages_evicted=stats.pages_evicted,
        adapters_evicted=stats.adapters_evicted,
    )


def _shares(stats: Stats) -> list[TenantShareView]:
    whole = sum(one.work for one in stats.tenants)
    return [
        TenantShareView(
            one.tenant, one.weight, one.waiting, one.running, round(one.work, 1),
            round(one.work / whole, 4) if whole else 0.0, round(one.ahead, 1),
        )
        for one in stats.tenants
    ]  # fmt: skip
