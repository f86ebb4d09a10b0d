"""Questions asked again and again find their rows by an index, however many others there are."""

import asyncpg
import pytest

from tenantry.platform.gateway.idempotency import _DELETE_EXPIRED
from tenantry.platform.metering.usage import events_statement
from tenantry.platform.registry.residency import _KNOWN

ROWS = """INSERT INTO usage_event SELECT '00000000-0000-0000-0000-000000000001', gen_random_uuid(), gen_random_uuid(),
  md5('b')::uuid, CASE WHEN i % 1000 > 0 THEN md5((i % 500)::text)::uuid END, md5((i % 700)::text)::uuid, 'm',
  gen_random_uuid(), 1, 0, 1, 0, 0, 1, 'completed', now(), now() - i * interval '1 second'
  FROM generate_series(1, 20000) i"""
ANSWERS = """INSERT INTO idempotency (tenant_id, key, request_hash, expires_at)
  SELECT '00000000-0000-0000-0000-000000000001', 'k' || i, decode(repeat('00', 32), 'hex'), now() + interval '1 hour'
  FROM generate_series(1, 20000) i"""

VERSIONS = """INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, digest)
  SELECT '00000000-0000-0000-0000-000000000001', gen_random_uuid(), gen_random_uuid(), 1, 'rejected',
  sha256(i::text::bytea) FROM generate_series(1, 20000) i"""


@pytest.mark.parametrize(
    ("rows", "question", "asked", "index"),
    [
        (ANSWERS, _DELETE_EXPIRED, (500,), "idempotency_expiry"),
        (VERSIONS, _KNOWN, ([b"1" * 32, b"2" * 32],), "adapter_version_digest"),
        (ROWS, events_statement(), ("tenant_id", 50), "usage_event_time"),
        (ROWS, events_statement("adapter"), ("tenant_id", 50, "adapter_id"), "usage_event_adapter"),
        (ROWS, events_statement("version"), ("tenant_id", 50, "adapter_version_id"), "usage_event_version"),
        (ROWS, events_statement("base"), ("tenant_id", 50, "base"), "usage_event_base"),
    ],
)
async def test_it_is_found_by_its_index(pg, rows, question, asked, index):
    connection = await asyncpg.connect(pg.admin)
    try:
        await connection.execute("SET session_replication_role = replica")  # without the rows these belong to
        await connection.execute(rows)
        await connection.execute("ANALYZE usage_event, idempotency, adapter_version")
        known = await connection.fetchrow("SELECT * FROM usage_event WHERE adapter_id IS NOT NULL LIMIT 1") or {}
        plan = await connection.fetch(
            "EXPLAIN " + question, *(known.get(a, a) if isinstance(a, str) else a for a in asked)
        )
        assert index in "\n".join(row[0] for row in plan)
    finally:
        await connection.close()
