"""Several engines' numbers as one: for metrics and reports that ask about the service, not about its processes.

Owns addition: counters and gauges add up.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest

import msgspec

from tenantry.runtime.counts import (
    AdapterState,
    Guessing,
    HandOffCounts,
    ProposerCounts,
    Stats,
    TenantShare,
    TierCounts,
)

_WORST = ("memory_stage", "memory_used", "memory_limit")


def stats_together(parts: Sequence[Stats]) -> Stats | None:
    """None of none. step_times are the first one's: fits do not add up. Of the memory it is told how it stands where
    it is worst.

    An adapter that several engines hold is listed once, with all of its bytes and users.
    """
    if len(parts) < 2:
        return parts[0] if parts else None
    numbers = {
        name: sum(getattr(part, name) for part in parts)
        for name in Stats.__struct_fields__
        if isinstance(getattr(parts[0], name), int | float)
    }
    numbers |= {name: max(getattr(part, name) for part in parts) for name in _WORST}
    adapters: dict[bytes, AdapterState] = {}
    for state in (state for part in parts for state in part.adapters):
        known = adapters.get(state.digest)
        adapters[state.digest] = state if known is None else _both(known, state)
    proposers = proposers_together(counts for part in parts for counts in part.proposers)
    hand_offs = HandOffCounts(
        *map(sum, zip(*(msgspec.structs.astuple(part.hand_offs) for part in parts), strict=True))
    )
    return msgspec.structs.replace(
        parts[0], **numbers, adapters=tuple(adapters.values()), proposers=proposers, hand_offs=hand_offs,
        tiers=_tiers(counts for part in parts for counts in part.tiers),
        tenants=_tenants(share for part in parts for share in part.tenants),
    )  # fmt: skip


def guessing_together(parts: Iterable[Iterable[Guessing]]) -> tuple[Guessing, ...]:
    """By namespace."""
    found: dict[bytes, Guessing] = {}
    for one in (one for part in parts for one in part):
        known = found.get(one.namespace)
        if known is not None:
            both = proposers_together((*known.proposers, *one.proposers))
            steps, tokens = known.steps + one.steps, known.tokens + one.tokens
            one = Guessing(one.namespace, one.adapter, steps, tokens, both)
        found[one.namespace] = one
    return tuple(found.values())


def proposers_together(counts: Iterable[ProposerCounts]) -> tuple[ProposerCounts, ...]:
    """By proposer, and by whether an adapter answered."""
    groups: defaultdict[tuple[str, bool], list[ProposerCounts]] = defaultdict(list)
    for one in counts:
        groups[one.proposer, one.adapted].append(one)
    return tuple(
        ProposerCounts(
            proposer,
            adapted,
            sum(one.drafts for one in group),
            sum(one.drafted for one in group),
            sum(one.accepted for one in group),
            _sums(one.tried for one in group),
            _sums(one.stood for one in group),
        )
        for (proposer, adapted), group in groups.items()
    )


def _sums(rows: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip_longest(*rows, fillvalue=0))


def _tenants(shares: Iterable[TenantShare]) -> tuple[TenantShare, ...]:
    """By tenant; the counters of engines know nothing of each other, so the furthest ahead is told."""
    found: dict[str, TenantShare] = {}
    for one in shares:
        known = found.get(one.tenant)
        if known is not None:
            one = TenantShare(
                one.tenant, one.weight, known.waiting + one.waiting, known.running + one.running,
                known.work + one.work, max(known.ahead, one.ahead),
            )  # fmt: skip
        found[one.tenant] = one
    return tuple(found.values())


def _both(a: AdapterState, b: AdapterState) -> AdapterState:
    state = "resident" if "resident" in (a.state, b.state) else a.state
    return msgspec.structs.replace(a, state=state, bytes=a.bytes + b.bytes, users=a.users + b.users)


def _tiers(counts: Iterable[TierCounts]) -> tuple[TierCounts, ...]:
    groups: defaultdict[str, list[TierCounts]] = defaultdict(list)
    for one in counts:
        groups[one.tier].append(one)
    return tuple(
        TierCounts(tier, *map(sum, zip(*(msgspec.structs.astuple(one)[1:] for one in group), strict=True)))
        for tier, group in groups.items()
    )
