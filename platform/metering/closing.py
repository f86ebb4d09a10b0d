"""Closes days: what a tenant's day came to, by adapter, by version and by key, the greatest groups by name.

Owns usage_day and usage_closed, which charts of many days read, and the loop that writes them. Everything here is
derived from usage_hour; settlement knows nothing of it. Reconciliation compares the two.
"""

from datetime import datetime, timedelta
from typing import Final

import structlog

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.rounds import go_round

EVERY_S: Final = 60.0
LISTED: Final = 128  # groups of a day that are kept by name: so many by cost, and so many by tokens
_ENROL: Final = """
INSERT INTO usage_closed (tenant_id, until) SELECT id, '-infinity' FROM tenant ON CONFLICT DO NOTHING
"""
# An event's hour is when its transaction began, and one that began before midnight may commit after it. A statement
# ends by its timeout, so a quarter of an hour later there is none.
_BEFORE: Final = "SELECT date_trunc('day', now() - interval '15 minutes', 'UTC')"
_NEXT: Final = """
SELECT c.tenant_id, (SELECT date_trunc('day', min(u.hour), 'UTC') FROM usage_hour u
                     WHERE u.tenant_id = c.tenant_id AND u.hour >= c.until) AS day
FROM usage_closed c WHERE c.until < $1 ORDER BY c.until, c.tenant_id LIMIT 1 FOR UPDATE OF c SKIP LOCKED
"""
_FORGET: Final = "DELETE FROM usage_day WHERE tenant_id = $1 AND day = $2"
# A base model alone is always by name: charts look up the hours of adapters and of keys, not of what lacks one.
_CLOSE: Final = """
WITH one AS (
  SELECT g.dimension, g.id, sum(u.requests) AS requests, sum(u.prompt) AS prompt, sum(u.cached) AS cached,
         sum(u.completion) AS completion, sum(u.drafted) AS drafted, sum(u.accepted) AS accepted, sum(u.nano) AS nano,
         sum(u.prompt + u.completion) AS tokens, bool_and(u.adapter_id IS NULL) AND g.dimension <> 'key' AS base
  FROM usage_hour u CROSS JOIN LATERAL (VALUES
    ('adapter', coalesce(u.adapter_id, u.base_model_id)),
    ('version', coalesce(u.adapter_version_id, u.base_model_id)),
    ('key', u.key_id)) AS g (dimension, id)
  WHERE u.tenant_id = $1 AND u.hour >= $2 AND u.hour < $2 + interval '24 hours' GROUP BY 1, 2),
placed AS (
  SELECT *, base OR least(row_number() OVER (PARTITION BY dimension ORDER BY nano DESC, id),
                  row_number() OVER (PARTITION BY dimension ORDER BY tokens DESC, id)) <= $3 AS listed FROM one)
INSERT INTO usage_day (tenant_id, dimension, day, group_id, requests, prompt, cached, completion, drafted, accepted,
                       nano, most_nano, most_tokens)
SELECT $1, dimension, $2, CASE WHEN listed THEN id END, sum(requests), sum(prompt), sum(cached), sum(completion),
       sum(drafted), sum(accepted), sum(nano),
       max(nano) FILTER (WHERE NOT listed), max(tokens) FILTER (WHERE NOT listed)
FROM placed GROUP BY dimension, 4
"""
_CLOSED: Final = "UPDATE usage_closed SET until = $2 WHERE tenant_id = $1"
log = structlog.get_logger("metering")


class Closer:
    """Several may run at once: each takes a tenant that no other holds. listed: groups by name in each day."""

    def __init__(self, database: Database, listed: int = LISTED) -> None:
        self._database = database
        self._listed = listed

    async def run(self) -> None:
        """Forever; an outage only delays it."""
        await go_round(self.close, EVERY_S, log, "closing days will be retried")

    async def close(self) -> int:
        """Closes what is over by now, a tenant's day at a time. Returns how many days with usage it closed."""
        async with self._database.operator() as connection:
            await connection.execute(_ENROL)
            before = await connection.fetchval(_BEFORE)
        closed, more = 0, True
        while more:
            async with self._database.operator() as connection:
                more, days = await self._close_one(connection, before)
            closed += days
        if closed:
            log.info("closed days of usage", count=closed)
        return closed

    async def _close_one(self, connection: Connection, before: datetime) -> tuple[bool, int]:
        """The oldest open day of some tenant. (whether there may be more, days with usage that were closed)"""
        found = await connection.fetchrow(_NEXT, before)
        if found is None:
            return False, 0
        tenant_id, day = found
        if day is None or day >= before:
            await connection.execute(_CLOSED, tenant_id, before)
            return True, 0
        await connection.execute(_FORGET, tenant_id, day)
        await connection.execute(_CLOSE, tenant_id, day, self._listed)
        await connection.execute(_CLOSED, tenant_id, day + timedelta(days=1))
        return True, 1
