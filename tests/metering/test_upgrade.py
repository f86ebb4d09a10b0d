"""A database from before a migration keeps its sums, and what it now counts or tells holds for the past as well."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
from alembic import command

from tenantry.platform.core import migrate as migrating
from tenantry.platform.core.roles import OWNER, SUPERUSER

FILL = """
INSERT INTO tenant (id, name) VALUES ('00000000-0000-0000-0000-00000000000a', 'acme');
INSERT INTO base_model (id, name, digest) VALUES
  ('00000000-0000-0000-0000-00000000000b', 'base', repeat('b', 32)::bytea);
INSERT INTO api_key (tenant_id, id, key_id, name, env, scopes, pepper_id, mac) VALUES
  ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-00000000000c', 'abcdefghijklmnop', 'k', 'live',
   '{inference}', 1, repeat('m', 32)::bytea);
INSERT INTO price (id, base_model_id, prompt_nano, cached_nano, completion_nano) VALUES
  ('00000000-0000-0000-0000-00000000000d', '00000000-0000-0000-0000-00000000000b', 5, 1, 9);
SELECT settle(jsonb_agg(jsonb_build_object(
  'tenant_id', '00000000-0000-0000-0000-00000000000a', 'request_id', gen_random_uuid(),
  'key_id', '00000000-0000-0000-0000-00000000000c', 'base_model_id', '00000000-0000-0000-0000-00000000000b',
  'price_id', '00000000-0000-0000-0000-00000000000d', 'model', 'base', 'prompt', 3, 'cached', 1, 'completion', 2,
  'drafted', 10 + i, 'accepted', i, 'nano', 29, 'outcome', 'completed', 'admitted_at', now())))
FROM generate_series(1, 4) i;
"""


ACTS = """
INSERT INTO adapter (tenant_id, id, name, base_model_id, deleted_at) VALUES
  ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-0000000000a1', 'brief',
   '00000000-0000-0000-0000-00000000000b', '2025-06-01');
INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, state_reason, created_by, created_at) VALUES
  ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-0000000000f1',
   '00000000-0000-0000-0000-0000000000a1', 1, 'rejected', 'invalid', '00000000-0000-0000-0000-00000000000c',
   '2025-02-01');
INSERT INTO alias_event (tenant_id, id, adapter_id, alias, from_version, actor_key_id, reason, at) VALUES
  ('00000000-0000-0000-0000-00000000000a', gen_random_uuid(), '00000000-0000-0000-0000-0000000000a1', 'default',
   '00000000-0000-0000-0000-0000000000f1', '00000000-0000-0000-0000-00000000000c', 'removed', '2025-03-01');
INSERT INTO browser_session (tenant_id, id, key_id, pepper_id, mac, created_at, expires_at) VALUES
  ('00000000-0000-0000-0000-00000000000a', gen_random_uuid(), '00000000-0000-0000-0000-00000000000c', 1,
   repeat('m', 32)::bytea, '2025-04-01', '2025-04-02');
INSERT INTO wallet_entry (tenant_id, seq, kind, nano, balance_after, note, at) VALUES
  ('00000000-0000-0000-0000-00000000000a', 100, 'grant', 12500000000, 12500000000, 'spring', '2025-05-01');
UPDATE api_key SET revoked_at = '2025-07-01';
UPDATE api_key SET created_at = '2025-01-02';
UPDATE tenant SET created_at = '2025-01-01';
"""


@asynccontextmanager
async def upgraded(postgres, name, *steps):
    """A connection to a database that was filled at each of (revision, rows), and is of today now."""
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    config = migrating._config()
    config.attributes["url"] = migrating.sqlalchemy_url(postgres.dsn(OWNER, name))
    filler = await asyncpg.connect(postgres.dsn(SUPERUSER, name))
    for revision, rows in steps:
        await asyncio.to_thread(command.upgrade, config, revision)
        await filler.execute(rows)
    await asyncio.to_thread(migrating.migrate, postgres.dsn(OWNER, name))
    yield filler
    await filler.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def forced(connection, *tables):
    count = "SELECT count(*) FROM pg_class WHERE relname = ANY ($1) AND relforcerowsecurity"
    return await connection.fetchval(count, tables)


async def test_hours_from_before_learn_their_guesses(postgres):
    async with upgraded(postgres, "upgraded", ("0001", FILL)) as old:
        [hour] = await old.fetch("SELECT requests, drafted, accepted FROM usage_hour")
        assert tuple(hour) == (4, 50, 10)
        assert await old.fetchval("SELECT rejected_nano FROM price") == 0
        assert await forced(old, "usage_event", "usage_hour") == 2


async def test_acts_from_before_are_told_once_by_whom_they_are_known(postgres):
    async with upgraded(postgres, "upgraded_acts", ("0001", FILL), ("0010", ACTS)) as old:
        rows = await old.fetch("SELECT kind, subject, detail, reason, adapter, actor_name FROM act ORDER BY at DESC")
        assert [tuple(row) for row in rows] == [
            ("key_revoked", "k", "", "", None, None), ("adapter_deleted", "brief", "", "", "brief", None),
            ("wallet_granted", "acme", "12.5", "spring", None, None), ("signed_in", "k", "", "", None, "k"),
            ("alias_removed", "brief@default", "1 → ", "removed", "brief", "k"),
            ("version_rejected", "brief:1", "", "invalid", "brief", "k"),
            ("key_created", "k", "inference", "", None, None), ("tenant_created", "acme", "", "", None, None),
        ]  # fmt: skip
        tables = ("act", "alias_event", "adapter", "adapter_version", "browser_session", "wallet_entry")
        assert await forced(old, *tables) == len(tables)
