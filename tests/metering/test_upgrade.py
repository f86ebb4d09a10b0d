"""A ledger from before a migration keeps its sums, and what it now counts is counted for the past as well."""

import asyncio

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


async def test_hours_from_before_learn_their_guesses(postgres):
    name = "upgraded"
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute(f"CREATE DATABASE {name} OWNER {OWNER}")
    config = migrating._config()
    config.attributes["url"] = migrating.sqlalchemy_url(postgres.dsn(OWNER, name))
    await asyncio.to_thread(command.upgrade, config, "0001")
    filler = await asyncpg.connect(postgres.dsn(SUPERUSER, name))
    await filler.execute(FILL)
    await asyncio.to_thread(migrating.migrate, postgres.dsn(OWNER, name))
    [hour] = await filler.fetch("SELECT requests, drafted, accepted FROM usage_hour")
    assert tuple(hour) == (4, 50, 10)
    assert await filler.fetchval("SELECT rejected_nano FROM price") == 0
    forced = "SELECT count(*) FROM pg_class WHERE relname IN ('usage_event', 'usage_hour') AND relforcerowsecurity"
    assert await filler.fetchval(forced) == 2
    await filler.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
