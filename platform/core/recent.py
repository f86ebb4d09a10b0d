"""The last minutes of this process, per tenant, in memory: what runs, how much comes out, how long first tokens took.

Owns numbers for people who watch, and nothing that is charged: those come from the engine's journal. Bounded in
tenants and in samples; a restart forgets. Seconds are the caller's monotonic clock.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final
from uuid import UUID

from cachetools import LRUCache

TENANTS: Final = 1024
RATE_WINDOW_S: Final = 60
LATENCY_WINDOW_S: Final = 900.0
SAMPLES: Final = 512


@dataclass(frozen=True, slots=True)
class Pace:
    """Over the last minute: requests that ended and tokens that came out, per second. Over the last quarter hour:
    seconds to the first token, None without a sample. settled: ends since the process began."""

    running: int = 0
    requests_per_second: float = 0.0
    tokens_per_second: float = 0.0
    first_token_p50: float | None = None
    first_token_p95: float | None = None
    samples: int = 0
    settled: int = 0


@dataclass(slots=True)
class _Second:
    at: int = -1
    ended: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Tenant:
    running: int = 0
    settled: int = 0
    seconds: list[_Second] = field(default_factory=lambda: [_Second() for _ in range(RATE_WINDOW_S)])
    first: deque[tuple[float, float, UUID | None]] = field(default_factory=lambda: deque(maxlen=SAMPLES))


class Recent:
    """One per process. Every method is a few additions; none waits."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._tenants: LRUCache[UUID, _Tenant] = LRUCache(TENANTS)

    def began(self, tenant_id: UUID) -> None:
        self._of(tenant_id).running += 1

    def ended(self, tenant_id: UUID) -> None:
        tenant = self._of(tenant_id)
        tenant.running = max(0, tenant.running - 1)  # a tenant may have been forgotten in between
        tenant.settled += 1
        self._second(tenant).ended += 1

    def tokens(self, tenant_id: UUID, count: int) -> None:
        self._second(self._of(tenant_id)).tokens += count

    def first_token(self, tenant_id: UUID, adapter_id: UUID | None, seconds: float) -> None:
        self._of(tenant_id).first.append((self._clock(), seconds, adapter_id))

    def pace(self, tenant_id: UUID) -> Pace:
        tenant = self._tenants.get(tenant_id)
        return self._pace([tenant]) if tenant is not None else Pace()

    def pace_of_all(self) -> Pace:
        return self._pace(list(self._tenants.values()))

    def slowness(self, tenant_id: UUID) -> dict[UUID | None, float]:
        """Per adapter (None: the base model), the 95th percentile of seconds to the first token."""
        tenant = self._tenants.get(tenant_id)
        by_adapter: dict[UUID | None, list[float]] = {}
        for seconds, adapter_id in self._samples([tenant] if tenant is not None else []):
            by_adapter.setdefault(adapter_id, []).append(seconds)
        return {adapter_id: percentile(sorted(found), 0.95) for adapter_id, found in by_adapter.items()}

    def _pace(self, tenants: list[_Tenant]) -> Pace:
        now = int(self._clock())
        seconds = [s for t in tenants for s in t.seconds if now - RATE_WINDOW_S < s.at <= now]
        over = max(1.0, min(float(RATE_WINDOW_S), self._clock() - self._began))
        first = sorted(value for value, _ in self._samples(tenants))
        return Pace(
            running=sum(t.running for t in tenants),
            requests_per_second=sum(s.ended for s in seconds) / over,
            tokens_per_second=sum(s.tokens for s in seconds) / over,
            first_token_p50=percentile(first, 0.5) if first else None,
            first_token_p95=percentile(first, 0.95) if first else None,
            samples=len(first),
            settled=sum(t.settled for t in tenants),
        )

    def _samples(self, tenants: Iterable[_Tenant]) -> list[tuple[float, UUID | None]]:
        since = self._clock() - LATENCY_WINDOW_S
        return [(value, adapter) for t in tenants for at, value, adapter in t.first if at >= since]

    def _of(self, tenant_id: UUID) -> _Tenant:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant()
        return tenant

    def _second(self, tenant: _Tenant) -> _Second:
        now = int(self._clock())
        second = tenant.seconds[now % RATE_WINDOW_S]
        if second.at != now:
            second.at, second.ended, second.tokens = now, 0, 0
        return second


def percentile(ordered: list[float], share: float) -> float:
    """Of a sorted list that is not empty: the nearest rank."""
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) + 0.5) - 1))]
