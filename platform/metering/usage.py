"""What a tenant used: totals by adapter, key, model or hour from the rollups, and single events by keyset.

Reads only. Every statement names the tenant; a connection inside the tenant's transaction is enough.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Literal, Self
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput

GroupBy = Literal["adapter", "key", "model", "hour", "total"]
MAX_PAGE: Final = 1000

_SUMS: Final = """
SELECT {columns}, sum(u.requests)::bigint AS requests, sum(u.prompt)::bigint AS prompt,
       sum(u.cached)::bigint AS cached, sum(u.completion)::bigint AS completion,
       sum(u.drafted)::bigint AS drafted, sum(u.accepted)::bigint AS accepted, sum(u.nano)::bigint AS nano
FROM usage_hour u LEFT JOIN adapter a ON a.tenant_id = u.tenant_id AND a.id = u.adapter_id
LEFT JOIN api_key k ON k.tenant_id = u.tenant_id AND k.id = u.key_id
LEFT JOIN base_model b ON b.id = u.base_model_id
WHERE u.tenant_id = $1 AND ($2::timestamptz IS NULL OR u.hour >= $2) AND ($3::timestamptz IS NULL OR u.hour < $3)
  AND ($4::uuid IS NULL OR u.key_id = $4) AND ($5::uuid IS NULL OR u.adapter_id = $5)
GROUP BY 1, 2, 3 ORDER BY 3, nano DESC, 1
"""
_GROUPS: Final[dict[str, str]] = {
    "adapter": _SUMS.format(
        columns="u.adapter_id AS id, coalesce(a.name, b.name) AS label, NULL::timestamptz AS hour"
    ),
    "key": _SUMS.format(columns="u.key_id AS id, k.name AS label, NULL::timestamptz AS hour"),
    "model": _SUMS.format(columns="u.base_model_id AS id, b.name AS label, NULL::timestamptz AS hour"),
    "hour": _SUMS.format(columns="NULL::uuid AS id, NULL::text AS label, u.hour AS hour"),
    "total": _SUMS.format(columns="NULL::uuid AS id, NULL::text AS label, NULL::timestamptz AS hour"),
}
_EVENTS: Final = """
SELECT * FROM usage_event WHERE tenant_id = $1
  AND ($2::uuid IS NULL OR (occurred_at, request_id) <
       (SELECT x.occurred_at, x.request_id FROM usage_event x WHERE x.tenant_id = $1 AND x.request_id = $2))
  AND ($4::uuid IS NULL OR key_id = $4) AND ($5::uuid IS NULL OR adapter_id = $5)
  AND ($6::timestamptz IS NULL OR occurred_at >= $6) AND ($7::timestamptz IS NULL OR occurred_at < $7)
ORDER BY occurred_at DESC, request_id DESC LIMIT $3
"""


@dataclass(frozen=True, slots=True)
class Window:
    """Whole hours from `start` up to `end`; None is open. key_id and adapter_id narrow it down."""

    start: datetime | None = None
    end: datetime | None = None
    key_id: UUID | None = None
    adapter_id: UUID | None = None

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and value.tzinfo is None:
                raise InvalidInput(f"{name} must carry a time zone.", param=name)
        if self.start is not None and self.end is not None and self.start > self.end:
            raise InvalidInput("start must not be after end.", param="start")


@dataclass(frozen=True, slots=True)
class Sums:
    """Requests, and what they came to together, as the rollups have it."""

    requests: int
    prompt: int
    cached: int
    completion: int
    drafted: int
    accepted: int
    nano: int

    @classmethod
    def of(cls, row: Any) -> Self:
        """A row whose columns are named like the fields."""
        return cls(*(row[field.name] for field in fields(cls)))


@dataclass(frozen=True, slots=True)
class UsageSum(Sums):
    """id and label name the group (adapter id None is the base model)."""

    id: UUID | None
    label: str | None
    hour: datetime | None


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One settled request. outcome: completed, cancelled, failed, refused or recovered."""

    request_id: UUID
    key_id: UUID
    adapter_id: UUID | None
    adapter_version_id: UUID | None
    model: str
    prompt: int
    cached: int
    completion: int
    drafted: int
    accepted: int
    nano: int
    outcome: str
    price_id: UUID
    admitted_at: datetime
    occurred_at: datetime


async def summarize(
    connection: Connection, tenant_id: UUID, by: GroupBy, window: Window | None = None
) -> list[UsageSum]:
    """Hours in order; other groups by cost, the dearest first."""
    if by not in _GROUPS:
        raise InvalidInput(f"group_by must be one of {', '.join(_GROUPS)}.", param="group_by")
    w = window or Window()
    rows = await connection.fetch(_GROUPS[by], tenant_id, w.start, w.end, w.key_id, w.adapter_id)
    return [UsageSum.of(row) for row in rows]


async def list_events(
    connection: Connection,
    tenant_id: UUID,
    limit: int = 100,
    after: UUID | None = None,
    window: Window | None = None,
) -> list[UsageEvent]:
    """Newest first. after: the last request id of the page before; an unknown one ends the list."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be from 1 to {MAX_PAGE}.", param="limit")
    w = window or Window()
    rows = await connection.fetch(_EVENTS, tenant_id, after, limit, w.key_id, w.adapter_id, w.start, w.end)
    return [_event(row) for row in rows]


async def event(connection: Connection, tenant_id: UUID, request_id: UUID) -> UsageEvent | None:
    """None until the request is settled."""
    row = await connection.fetchrow(
        "SELECT * FROM usage_event WHERE tenant_id = $1 AND request_id = $2", tenant_id, request_id
    )
    return _event(row) if row else None


def _event(row: Any) -> UsageEvent:
    return UsageEvent(*(row[f] for f in UsageEvent.__dataclass_fields__))
