"""Usage over time, for charts: the dearest groups by name, everything else as one. Reads rollups alone.

Owns which rollups a chart is read from, its bounds, and the statement over hours: so many buckets, so many groups,
whatever a tenant did. Reads only; changes the planner's settings for the rest of the caller's transaction.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.metering.chart import Bucket, Measure, Point, SeriesBy, Shape
from tenantry.platform.metering.closed_series import closed_series
from tenantry.platform.metering.rollups import GROUPS, NAMES, PLANNED, summed
from tenantry.platform.metering.usage import Window

MAX_BUCKETS: Final = 400
_LENGTH: Final[dict[Bucket, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_MEASURES: Final[dict[Measure, str]] = {"cost": "sum(nano)", "tokens": "sum(prompt + completion)"}
_BY: Final[tuple[SeriesBy, ...]] = ("adapter", "version", "key", "total")
_GROUPS: Final[dict[SeriesBy, str]] = {by: GROUPS.get(by, "NULL::uuid") for by in _BY}
# Two passes over the window: which groups are the dearest, then every row into one of them or the rest. One pass that
# kept all groups apart would sort as many of them as there are rows. Hours become days last, a few thousand of them.
_SERIES: Final = """
WITH top AS MATERIALIZED (
  SELECT {group} AS id FROM usage_hour u WHERE {window} AND {ranked} GROUP BY 1 ORDER BY {measure} DESC, 1 LIMIT $6),
named AS MATERIALIZED (SELECT t.id, {label} AS label, b.id IS NOT NULL AS base FROM top t {tables}),
part AS MATERIALIZED (
  SELECT u.hour, n.id, n.label, n.base, n.id IS NULL AND {group} IS NOT NULL AS rest,
         {hourly}
  FROM usage_hour u LEFT JOIN named n ON n.id = {group} WHERE {window} GROUP BY 1, 2, 3, 4, 5)
SELECT date_trunc('{bucket}', p.hour, 'UTC') AS at, CASE WHEN NOT p.base THEN p.id END AS id, p.rest, p.label,
       {totals}
FROM part p GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 4
"""
_WINDOW: Final = """u.tenant_id = $1 AND u.hour >= $2 AND u.hour < $3
    AND ($4::uuid IS NULL OR u.key_id = $4) AND ($5::uuid IS NULL OR u.adapter_id = $5)"""
_STATEMENTS: Final[dict[tuple[SeriesBy, Bucket, Measure], str]] = {
    (by, bucket, measure): _SERIES.format(
        bucket=bucket, group=group, measure=sums, label=NAMES[by][0], tables=NAMES[by][1], window=_WINDOW,
        ranked=by != "total", hourly=summed("u"), totals=summed("p"),
    )
    for by, group in _GROUPS.items()
    for bucket in _LENGTH
    for measure, sums in _MEASURES.items()
}  # fmt: skip


async def series(connection: Connection, tenant_id: UUID, shape: Shape, window: Window) -> list[Point]:
    """Ordered by time; buckets without usage are left out. An open start means a day ago, an open end means now."""
    end = window.end or datetime.now(UTC)
    start = window.start or end - timedelta(days=1)
    if start > end:
        raise InvalidInput("start must not be after end.", param="from")
    if (end - start) / _LENGTH[shape.bucket] > MAX_BUCKETS:
        raise InvalidInput(f"At most {MAX_BUCKETS} {shape.bucket}s at once.", param="bucket")
    await connection.execute(PLANNED)
    if shape.bucket == "day" and window.key_id is None and window.adapter_id is None:
        points = await closed_series(connection, tenant_id, shape, start, end)
        if points is not None:
            return points
    return await hourly_series(connection, tenant_id, shape, replace(window, start=start, end=end))


async def hourly_series(connection: Connection, tenant_id: UUID, shape: Shape, window: Window) -> list[Point]:
    """Every hour of a window that is open at neither end."""
    rows = await connection.fetch(
        _STATEMENTS[shape.by, shape.bucket, shape.measure],
        tenant_id, window.start, window.end, window.key_id, window.adapter_id, shape.groups,
    )  # fmt: skip
    return [Point.of(row) for row in rows]
