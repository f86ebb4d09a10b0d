"""Questions asked again and again find their rows by an index, however many others there are."""

import asyncpg
import pytest

from tenantry.platform.gateway.idempotency import _DELETE_EXPIRED
from tenantry.platform.metering.usage import _EVENTS

ROWS = """INSERT INTO usage_event SELECT '00000000-0000-0000-0000-000000000001', gen_random_uuid(), gen_random_uuid(),
  gen_random_uuid(), md5((i % 500)::text)::uuid, NULL, 'm', gen_random_uuid(), 1, 0, 1, 0, 0, 1, 'completed', now(),
  now() - i * interval '1 second' FROM generate_series(1, 20000) i"""
ANSWERS = """INSERT INTO idempotency (tenant_id, key, request_hash, expires_at)
  SELECT '00000000-0000-0000-0000-000000000001', 'k' || i, decode(repeat('00', 32), 'hex'), now() + interval '1 hour'
  FROM generate_series(1, 20000) i"""


@pytest.mark.parametrize(
    ("rows", "question", "asked", "index"),
    [
        (ANSWERS, _DELETE_EXPIRED, (500,), "idempotency_expiry"),
        (ROWS, _EVENTS, ("1", None, 50, None, "adapter", None, None), "usage_event_adapter"),
        (ROWS, _EVENTS, ("1", None, 50, None, None, None, None), "usage_event_time"),
    ],
)
async def test_it_is_found_by_its_index(pg, rows, question, asked, index):
    connection = await asyncpg.connect(pg.admin)
    try:
        await connection.execute("SET session_replication_role = replica")  # without the rows these belong to
        await connection.execute(rows)
        await connection.execute("ANALYZE usage_event, idempotency")
        known = await connection.fetchrow("SELECT tenant_id, adapter_id FROM usage_event LIMIT 1")
        named = {"1": known and known["tenant_id"], "adapter": known and known["adapter_id"]}
        plan = await connection.fetch("EXPLAIN " + question, *(named.get(a, a) for a in asked))
        assert index in "\n".join(row[0] for row in plan)
    finally:
        await connection.close()
