"""What a tenant used: totals by adapter, key, model or hour from the rollups, and single events by keyset.

Reads only; changes the planner's settings for the rest of the caller's transaction. Every statement names the tenant;
a connection inside the tenant's transaction is enough.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.metering.rollups import GROUPS, NAMES, PLANNED, Sums, summed

GroupBy = Literal["adapter", "key", "model", "hour", "total"]
MAX_PAGE: Final = 1000
MOST_NANO: Final = (1 << 63) - 1  # what a bigint holds
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_PLACE: Final = re.compile(r"(\d{1,11})\.(\d{1,19})\.([0-9a-f]{32})", re.ASCII)

# Ordered by hour, then the dearest first; a page begins after a place in that order.
_SUMS: Final = """
WITH one AS (
  SELECT {group} AS id, {hour} AS hour, {sums}
  FROM usage_hour u
  WHERE u.tenant_id = $1 AND ($2::timestamptz IS NULL OR u.hour >= $2) AND ($3::timestamptz IS NULL OR u.hour < $3)
    AND ($4::uuid IS NULL OR u.key_id = $4) AND ($5::uuid IS NULL OR u.adapter_id = $5)
  GROUP BY 1, 2),
t AS MATERIALIZED (
  SELECT * FROM one WHERE $6::bigint IS NULL
    OR (coalesce(hour, 'epoch'), -nano, id) > ($7::timestamptz, -$6::bigint, $8::uuid)
  ORDER BY hour, nano DESC, id LIMIT $9)
SELECT t.*, {label} AS label, b.id IS NOT NULL AS base FROM t {tables} ORDER BY t.hour, t.nano DESC, t.id
"""
_BY: Final[tuple[GroupBy, ...]] = get_args(GroupBy)
_STATEMENTS: Final = {
    by: _SUMS.format(
        group=GROUPS.get(by, "u.tenant_id"), hour="u.hour" if by == "hour" else "NULL::timestamptz", sums=summed("u"),
        label=NAMES[by][0], tables=NAMES[by][1],
    )
    for by in _BY
}  # fmt: skip
# Only what is asked for is in the statement, so that it is planned for that; $1 is the tenant, $2 the limit.
_NARROWED: Final = {
    "after": "(occurred_at, request_id) < (SELECT x.occurred_at, x.request_id FROM usage_event x "
    "WHERE x.tenant_id = $1 AND x.request_id = {})",
    "key": "key_id = {}",
    "adapter": "adapter_id = {}",
    "version": "adapter_version_id = {}",
    "base": "adapter_id IS NULL AND base_model_id = (SELECT id FROM base_model WHERE name = {})",
    "start": "occurred_at >= {}",
    "end": "occurred_at < {}",
}
_EVENT: Final = """
SELECT u.*, k.name AS key_name, a.name AS adapter_name, v.number AS version_number FROM ({events}) u
LEFT JOIN api_key k ON k.tenant_id = u.tenant_id AND k.id = u.key_id
LEFT JOIN adapter a ON a.tenant_id = u.tenant_id AND a.id = u.adapter_id
LEFT JOIN adapter_version v ON v.tenant_id = u.tenant_id AND v.id = u.adapter_version_id
ORDER BY u.occurred_at DESC, u.request_id DESC
"""
_ONE_EVENT: Final = _EVENT.format(events="SELECT * FROM usage_event WHERE tenant_id = $1 AND request_id = $2")


def events_statement(*narrowed: str) -> str:
    """By which of after, key, adapter, version, base, start and end, in the order of its parameters from $3 on."""
    conditions = "".join(f" AND {_NARROWED[one].format(f'${n}')}" for n, one in enumerate(narrowed, 3))
    return _EVENT.format(
        events=f"SELECT * FROM usage_event WHERE tenant_id = $1{conditions} "  # noqa: S608 - literals
        "ORDER BY occurred_at DESC, request_id DESC LIMIT $2"
    )


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
class UsageSum(Sums):
    """id and label name the group: an adapter, a key, or where `base` the base model alone; in total the tenant."""

    id: UUID
    label: str | None
    hour: datetime | None
    base: bool

    @property
    def place(self) -> "Place":
        return Place(self.hour or _EPOCH, self.nano, self.id)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the order of sums a page ends."""

    hour: datetime
    nano: int
    id: UUID

    def __str__(self) -> str:
        return f"{int(self.hour.timestamp())}.{self.nano}.{self.id.hex}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """Raises InvalidInput for anything but what str() wrote."""
        found = _PLACE.fullmatch(text)
        if found is None or int(found[2]) > MOST_NANO:
            raise InvalidInput("after must be the `next` of a page.", param="after")
        return cls(datetime.fromtimestamp(int(found[1]), UTC), int(found[2]), UUID(hex=found[3]))


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
    key_name: str | None
    adapter_name: str | None
    version_number: int | None


async def summarize(
    connection: Connection,
    tenant_id: UUID,
    by: GroupBy,
    window: Window | None = None,
    limit: int = MAX_PAGE,
    after: Place | None = None,
) -> list[UsageSum]:
    """Hours in order; other groups by cost, the dearest first. after: where the page before ended."""
    if by not in _STATEMENTS:
        raise InvalidInput(f"group_by must be one of {', '.join(_BY)}.", param="group_by")
    w = window or Window()
    place = (after.nano, after.hour, after.id) if after else (None, None, None)
    await connection.execute(PLANNED)
    rows = await connection.fetch(_STATEMENTS[by], tenant_id, w.start, w.end, w.key_id, w.adapter_id, *place, limit)
    return [UsageSum.of(row) for row in rows]


async def list_events(
    connection: Connection,
    tenant_id: UUID,
    limit: int = 100,
    after: UUID | None = None,
    window: Window | None = None,
    *,
    version_id: UUID | None = None,
    base: str | None = None,
) -> list[UsageEvent]:
    """Newest first. after: the last request id of the page before; an unknown one ends the list. base: the name of a
    base model, for its own requests, without an adapter."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be from 1 to {MAX_PAGE}.", param="limit")
    w = window or Window()
    by = {
        "after": after, "key": w.key_id, "adapter": w.adapter_id, "version": version_id, "base": base,
        "start": w.start, "end": w.end,
    }  # fmt: skip
    asked = {name: value for name, value in by.items() if value is not None}
    rows = await connection.fetch(events_statement(*asked), tenant_id, limit, *asked.values())
    return [_event(row) for row in rows]


async def event(connection: Connection, tenant_id: UUID, request_id: UUID) -> UsageEvent | None:
    """None until the request is settled."""
    row = await connection.fetchrow(_ONE_EVENT, tenant_id, request_id)
    return _event(row) if row else None


def _event(row: Any) -> UsageEvent:
    return UsageEvent(*(row[f] for f in UsageEvent.__dataclass_fields__))
