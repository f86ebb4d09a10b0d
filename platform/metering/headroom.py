"""What is left of a tenant's limits, and of its keys': the same rows that admission decides by, read without a lock.

Owns the reading only. It may be a moment old; admission alone decides.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.tenants.models import Period

_HEADROOM: Final = """
WITH scope AS (
  SELECT $1::uuid AS id WHERE $2::uuid IS NULL
  UNION ALL (SELECT q.scope_id FROM quota q WHERE q.tenant_id = $1 AND q.scope_id <> $1
             AND ($2::uuid IS NULL OR q.scope_id > $2) ORDER BY q.scope_id LIMIT $3)),
open AS (
  SELECT r.key_id, count(*) FILTER (WHERE n.seen_at > clock_timestamp() - interval '10 s') AS running,
         sum(r.reserved_nano) AS reserved
  FROM request r LEFT JOIN node n USING (epoch) WHERE r.tenant_id = $1 AND r.state = 'admitted' GROUP BY 1)
SELECT s.id, k.name, q.concurrency, q.requests_per_minute, q.budget_nano,
       coalesce(q.budget_period, 'total') AS budget_period,
       coalesce((SELECT sum(o.running) FROM open o WHERE s.id IN ($1, o.key_id)), 0)::bigint AS running,
       coalesce((SELECT sum(o.reserved) FROM open o WHERE s.id IN ($1, o.key_id)), 0)::bigint AS reserved_nano,
       coalesce((SELECT p.nano FROM spend p WHERE p.tenant_id = $1 AND p.scope_id = s.id AND p.period = CASE
         WHEN q.budget_period = 'month' THEN date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date
         ELSE '-infinity' END), 0)::bigint AS spent_nano,
       coalesce((SELECT p.nano FROM spend p WHERE p.tenant_id = $1 AND p.scope_id = s.id AND p.period =
         date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')::date), 0)::bigint AS month_nano,
       greatest(0, extract(epoch FROM g.arrival - clock_timestamp()))::float8 AS behind_s
FROM scope s LEFT JOIN quota q ON q.tenant_id = $1 AND q.scope_id = s.id
LEFT JOIN gate g ON g.tenant_id = $1 AND g.scope_id = s.id AND isfinite(g.arrival)
LEFT JOIN api_key k ON k.tenant_id = $1 AND k.id = s.id
ORDER BY s.id <> $1, s.id
"""


@dataclass(frozen=True, slots=True)
class Headroom:
    """Of the tenant (name None), or of one key with limits of its own. None is unlimited. spent_nano: in the budget's
    period; month_nano: in this month. requests_left: in this minute."""

    id: UUID
    name: str | None
    concurrency: int | None
    requests_per_minute: int | None
    budget_nano: int | None
    budget_period: Period
    running: int
    reserved_nano: int
    spent_nano: int
    month_nano: int
    requests_left: int | None


async def headroom(
    connection: Connection, tenant_id: UUID, limit: int = 100, after: UUID | None = None
) -> list[Headroom]:
    """The tenant first (on the first page), then keys that have limits, by id."""
    rows = await connection.fetch(_HEADROOM, tenant_id, after, limit)
    return [_headroom(row) for row in rows]


def _headroom(row: Any) -> Headroom:
    rate, behind = row["requests_per_minute"], row["behind_s"] or 0.0
    left = max(0, int((60.0 - behind) * rate / 60.0 + 1e-9)) if rate is not None else None
    names = [name for name in Headroom.__dataclass_fields__ if name != "requests_left"]
    return Headroom(**{name: row[name] for name in names}, requests_left=left)
