"""Usage over time, for charts: the dearest groups by name, everything else as one. Reads rollups alone.

Owns the statement and its bounds: so many buckets, so many groups, whatever a tenant did. Reads only; raises work_mem
for the rest of the caller's transaction.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.metering.usage import Sums, Window

SeriesBy = Literal["adapter", "version", "key", "total"]
Bucket = Literal["hour", "day"]
Measure = Literal["cost", "tokens"]
MAX_BUCKETS: Final = 400
_LENGTH: Final[dict[Bucket, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_MEASURES: Final[dict[Measure, str]] = {"cost": "sum(nano)", "tokens": "sum(prompt + completion)"}
_GROUPS: Final[dict[SeriesBy, str]] = {
    "adapter": "coalesce(u.adapter_id, u.base_model_id)",
    "version": "coalesce(u.adapter_version_id, u.base_model_id)",
    "key": "u.key_id",
    "total": "NULL::uuid",
}
# Two passes over the window: which groups are the dearest, then every row into one of them or the rest. One pass that
# kept all groups apart would sort as many of them as there are rows. Hours become days last, a few thousand of them.
_SERIES: Final = """
WITH top AS MATERIALIZED (
  SELECT {group} AS id FROM usage_hour u WHERE {window} AND {ranked} GROUP BY 1 ORDER BY {measure} DESC, 1 LIMIT $6),
part AS MATERIALIZED (
  SELECT u.hour, t.id, t.id IS NULL AND {group} IS NOT NULL AS rest,
         sum(u.requests) AS requests, sum(u.prompt) AS prompt, sum(u.cached) AS cached,
         sum(u.completion) AS completion, sum(u.drafted) AS drafted, sum(u.accepted) AS accepted, sum(u.nano) AS nano
  FROM usage_hour u LEFT JOIN top t ON t.id = {group} WHERE {window} GROUP BY 1, 2, 3)
SELECT date_trunc('{bucket}', p.hour, 'UTC') AS at, CASE WHEN b.id IS NULL THEN p.id END AS id, p.rest,
       {label} AS label,
       sum(p.requests)::bigint AS requests, sum(p.prompt)::bigint AS prompt, sum(p.cached)::bigint AS cached,
       sum(p.completion)::bigint AS completion, sum(p.drafted)::bigint AS drafted,
       sum(p.accepted)::bigint AS accepted, sum(p.nano)::bigint AS nano
FROM part p LEFT JOIN adapter_version v ON v.tenant_id = $1 AND v.id = p.id
LEFT JOIN adapter a ON a.tenant_id = $1 AND a.id = coalesce(v.adapter_id, p.id)
LEFT JOIN api_key k ON k.tenant_id = $1 AND k.id = p.id
LEFT JOIN base_model b ON b.id = p.id
GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 4
"""
_WINDOW: Final = """u.tenant_id = $1 AND u.hour >= $2 AND u.hour < $3
    AND ($4::uuid IS NULL OR u.key_id = $4) AND ($5::uuid IS NULL OR u.adapter_id = $5)"""
_LABELS: Final[dict[SeriesBy, str]] = {
    "adapter": "coalesce(a.name, b.name)",
    "version": "coalesce(a.name || ':' || v.number, b.name)",
    "key": "k.name",
    "total": "NULL::text",
}
_WORK_MEM: Final = "32MB"  # the groups of a tenant with 10^5 adapters, unsorted
_STATEMENTS: Final[dict[tuple[SeriesBy, Bucket, Measure], str]] = {
    (by, bucket, measure): _SERIES.format(
        bucket=bucket, group=group, measure=sums, label=_LABELS[by], window=_WINDOW, ranked=by != "total"
    )
    for by, group in _GROUPS.items()
    for bucket in _LENGTH
    for measure, sums in _MEASURES.items()
}


@dataclass(frozen=True, slots=True)
class Point(Sums):
    """One group in one bucket. id and label are None in total, and where `rest`: all groups beyond the dearest.
    The base model alone has a label and no id."""

    at: datetime
    id: UUID | None
    label: str | None
    rest: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """What is asked for. groups: how many are told apart."""

    by: SeriesBy = "adapter"
    bucket: Bucket = "hour"
    measure: Measure = "cost"
    groups: int = 8


async def series(connection: Connection, tenant_id: UUID, shape: Shape, window: Window) -> list[Point]:
    """Ordered by time; buckets without usage are left out. An open start means a day ago, an open end means now."""
    end = window.end or datetime.now(UTC)
    start = window.start or end - timedelta(days=1)
    if start > end:
        raise InvalidInput("start must not be after end.", param="from")
    if (end - start) / _LENGTH[shape.bucket] > MAX_BUCKETS:
        raise InvalidInput(f"At most {MAX_BUCKETS} {shape.bucket}s at once.", param="bucket")
    await connection.execute("SELECT set_config('work_mem', $1, true)", _WORK_MEM)
    rows = await connection.fetch(
        _STATEMENTS[shape.by, shape.bucket, shape.measure],
        tenant_id, start, end, window.key_id, window.adapter_id, shape.groups,
    )  # fmt: skip
    return [Point.of(row) for row in rows]
