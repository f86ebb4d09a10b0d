"""Charts of days, read from closed days: a few hundred rows for each, and hours only where the window cuts a day.

Owns the statement, and the proof that its groups are the dearest although a closed day names but some of them. Where
the proof fails, it says so and the caller counts hours. Reads only.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.metering.chart import Measure, Point, SeriesBy, Shape
from tenantry.platform.metering.rollups import COLUMNS, GROUPS, NAMES, summed

CANDIDATES: Final = 200  # groups whose hours are looked up, at most
_DAY: Final = timedelta(days=1)

# After algorithm CA of Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware" (2003). A day's list
# has what its greatest groups came to, and its rest the most that any other can have come to: so a group of a window
# has a `least`, and at most as much more as the rests of the days that do not list it allow. Whoever may be among the
# dearest is a candidate; what it came to on days that do not list it is looked up in their hours. That is exact but
# if a group on no list at all could reach the last of the dearest, or there are too many candidates to look up.
#
#      $4        $2                          $3    $5
#      |  edge   |  closed days, whole       |edge |
_SERIES: Final = """
WITH day AS MATERIALIZED (
  SELECT * FROM usage_day WHERE tenant_id = $1 AND dimension = '{by}' AND day >= $2 AND day < $3),
rest AS (SELECT day, most_{measure} AS most FROM day WHERE group_id IS NULL),
edge AS MATERIALIZED (
  SELECT date_trunc('day', u.hour, 'UTC') AS at, {group} AS id, {sums} FROM (
    SELECT * FROM usage_hour WHERE tenant_id = $1 AND hour >= $4 AND hour < $2
    UNION ALL SELECT * FROM usage_hour WHERE tenant_id = $1 AND hour >= $3 AND hour < $5) u GROUP BY 1, 2),
known AS MATERIALIZED (
  SELECT id, sum(came) AS least, sum(seen) AS seen FROM (
    SELECT d.group_id AS id, {came} AS came, coalesce(r.most, 0) AS seen FROM day d LEFT JOIN rest r USING (day)
      WHERE d.group_id IS NOT NULL
    UNION ALL SELECT id, {came}, 0 FROM edge) x GROUP BY 1),
unseen AS (SELECT coalesce(sum(most), 0) AS most, count(*) AS days FROM rest),
last AS (SELECT coalesce((SELECT least FROM known ORDER BY 1 DESC OFFSET $6 - 1 LIMIT 1), 0) AS least),
candidate AS MATERIALIZED (
  SELECT k.id, k.least FROM known k, unseen, last
  WHERE k.least + unseen.most - k.seen >= last.least LIMIT {most} + 1),
verdict AS MATERIALIZED (
  SELECT (unseen.days = 0 OR unseen.most < last.least) AND (SELECT count(*) FROM candidate) <= {most} AS exact
  FROM unseen, last),
missing AS MATERIALIZED (
  SELECT r.day, c.id, h.* FROM candidate c CROSS JOIN rest r CROSS JOIN LATERAL (
    SELECT {sums} FROM usage_hour u
    WHERE u.tenant_id = $1 AND {lookup} AND u.hour >= r.day AND u.hour < r.day + interval '24 hours') h
  WHERE (SELECT exact FROM verdict) AND h.requests > 0
    AND NOT EXISTS (SELECT FROM day d WHERE d.day = r.day AND d.group_id = c.id)),
top AS MATERIALIZED (
  SELECT id FROM candidate c LEFT JOIN (SELECT id, sum({came}) AS more FROM missing GROUP BY 1) m USING (id)
  ORDER BY c.least + coalesce(m.more, 0) DESC, id LIMIT $6),
named AS MATERIALIZED (SELECT t.id, {label} AS label, b.id IS NOT NULL AS base FROM top t {tables}),
part AS (
  SELECT day AS at, group_id AS id, {columns} FROM day
  UNION ALL SELECT at, id, {columns} FROM edge
  UNION ALL SELECT day, id, {columns} FROM missing
  UNION ALL SELECT day, NULL, {negated} FROM missing)  -- they were in the day's rest
SELECT p.at, CASE WHEN NOT n.base THEN n.id END AS id, n.id IS NULL AS rest, n.label,
       (SELECT exact FROM verdict) AS exact, {totals}
FROM part p LEFT JOIN named n ON n.id = p.id
GROUP BY p.at, n.id, n.label, n.base HAVING sum(p.requests) > 0 ORDER BY 1, 3, 4
"""
_TOTAL: Final = """
SELECT p.at, NULL::uuid AS id, false AS rest, NULL::text AS label, {totals} FROM (
  SELECT day AS at, {columns} FROM usage_day WHERE tenant_id = $1 AND dimension = 'key' AND day >= $2 AND day < $3
  UNION ALL SELECT date_trunc('day', hour, 'UTC'), {columns} FROM usage_hour
    WHERE tenant_id = $1 AND hour >= $4 AND hour < $2
  UNION ALL SELECT date_trunc('day', hour, 'UTC'), {columns} FROM usage_hour
    WHERE tenant_id = $1 AND hour >= $3 AND hour < $5) p
GROUP BY 1 ORDER BY 1
"""
_ROWS: Final[dict[SeriesBy, str]] = {  # the hours' rows of group c
    "adapter": "u.adapter_id = c.id",
    "version": """u.adapter_version_id = c.id
    AND u.adapter_id = (SELECT x.adapter_id FROM adapter_version x WHERE x.tenant_id = $1 AND x.id = c.id)""",
    "key": "u.key_id = c.id",
}
_MEASURES: Final[dict[Measure, tuple[str, str]]] = {
    "cost": ("nano", "nano"),
    "tokens": ("tokens", "prompt + completion"),
}
_LISTED: Final = ", ".join(COLUMNS)
_STATEMENTS: Final[dict[tuple[SeriesBy, Measure], str]] = {
    (by, measure): _SERIES.format(
        by=by, group=GROUPS[by], lookup=rows, measure=column, came=came, most=CANDIDATES,
        label=NAMES[by][0], tables=NAMES[by][1], columns=_LISTED, negated=", ".join(f"-{c}" for c in COLUMNS),
        sums=summed("u"), totals=summed("p"),
    )
    for by, rows in _ROWS.items()
    for measure, (column, came) in _MEASURES.items()
}  # fmt: skip
_IN_TOTAL: Final = _TOTAL.format(totals=summed("p"), columns=_LISTED)


async def closed_series(
    connection: Connection, tenant_id: UUID, shape: Shape, start: datetime, end: datetime
) -> list[Point] | None:
    """The points for a chart of days, or None: no day of it is closed, or too many groups are too much alike."""
    closed = "SELECT greatest(until, $2) FROM usage_closed WHERE tenant_id = $1"
    until = await connection.fetchval(closed, tenant_id, start)
    first, last = _midnight(start + _DAY - timedelta(microseconds=1)), _midnight(min(until or start, end))
    if first >= last:
        return None
    window = (tenant_id, first, last, start, end)
    if shape.by == "total":
        return [Point.of(row) for row in await connection.fetch(_IN_TOTAL, *window)]
    rows = await connection.fetch(_STATEMENTS[shape.by, shape.measure], *window, shape.groups)
    return [Point.of(row) for row in rows] if all(row["exact"] for row in rows) else None


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
