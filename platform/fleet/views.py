"""What is said of one engine, part by part: its pages, tiers, adapters, tenants, guesses and memory.

Owns the wire shapes of a report (report.py fills them), each made of the engine's own counts and of nothing else.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from tenantry.runtime.counts import AdapterState, ProposerCounts, Stats, TenantShare, TierCounts

Stage = Literal["none", "shed_cache", "shed_queue", "refuse"]
STAGES: tuple[Stage, ...] = ("none", "shed_cache", "shed_queue", "refuse")  # as runtime.pressure.Stage counts them


class PagesView(msgspec.Struct, frozen=True):
    """KV pages. cached: kept for their prefix, those in use included."""

    total: int
    free: int
    cached: int
    live_bytes: int
    cached_bytes: int


class TierView(msgspec.Struct, frozen=True):
    """KV pages in one place. found_tokens: of prompts, whose KV was found there. evictions: pages let go for want of
    room; shed: for want of host memory. bad, failures: see runtime.counts.TierCounts."""

    tier: Literal["device", "host", "disk"]
    pages: int
    pages_total: int
    bytes: int
    found_tokens: int
    evictions: int
    shed: int = 0
    bad: int = 0
    failures: int = 0


class HeldVersion(msgspec.Struct, frozen=True):
    """Whose version has an adapter's digest. state: of the version, or "deleted" with its adapter or tenant."""

    tenant: str
    model: str
    state: str


class AdapterView(msgspec.Struct, frozen=True):
    """state: see runtime.counts.AdapterState. versions: the first of those with this digest, of `known` in all; none
    if nobody is known to have had one."""

    digest: str
    state: str
    bytes: int
    users: int
    versions: list[HeldVersion] = []
    known: int = 0

    @classmethod
    def of(cls, adapter: AdapterState) -> "AdapterView":
        return cls(adapter.digest.hex(), adapter.state, adapter.bytes, adapter.users)


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


class GuessesView(msgspec.Struct, frozen=True):
    """What one proposer guessed. adapted: for rows with an adapter."""

    proposer: str
    adapted: bool
    drafted_tokens: int
    accepted_tokens: int

    @classmethod
    def of(cls, counts: ProposerCounts) -> "GuessesView":
        return cls(counts.proposer, counts.adapted, counts.drafted, counts.accepted)


class HostMemoryView(msgspec.Struct, frozen=True):
    """The memory of the process. used, limit: shares of what it may have: at the last reading, and from which on the
    engine steps back (0: never). stage: how far it has: it keeps no KV there (shed_cache), refuses half of who waits
    at every reading (shed_queue), and who comes (refuse). refused: requests, for that."""

    stage: Stage
    used: float
    limit: float
    refused: int


def on_device(reports: Iterable[list[AdapterView]]) -> tuple[bytes, ...]:
    """Digests that are resident in any of them."""
    held = {one.digest for adapters in reports for one in adapters if one.state == "resident"}
    return tuple(bytes.fromhex(digest) for digest in sorted(held))


def tiers(stats: Stats) -> list[TierView]:
    """The device's first. What was found on it is what was found nowhere below."""
    held, size = stats.pages_total - stats.pages_free, stats.kv_live_bytes + stats.kv_cached_bytes
    device = TierView(
        "device", held, stats.pages_total, size,
        stats.cached_tokens - stats.cached_host - stats.cached_disk, stats.pages_evicted,
    )  # fmt: skip
    found = {"host": stats.cached_host, "disk": stats.cached_disk}
    return [device, *(_below(one, found[one.tier]) for one in stats.tiers)]


def _below(counts: TierCounts, found: int) -> TierView:
    tier: Literal["host", "disk"] = "host" if counts.tier == "host" else "disk"
    return TierView(
        tier, counts.pages, counts.pages_total, counts.bytes, found, counts.evictions, counts.shed, counts.bad,
        counts.failures,
    )  # fmt: skip


def shares(tenants: tuple[TenantShare, ...]) -> list[TenantShareView]:
    whole = sum(one.work for one in tenants)
    return [
        TenantShareView(
            one.tenant, one.weight, one.waiting, one.running, round(one.work, 1),
            round(one.work / whole, 4) if whole else 0.0, round(one.ahead, 1),
        )
        for one in tenants
    ]  # fmt: skip
