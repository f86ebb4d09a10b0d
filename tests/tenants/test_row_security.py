"""Tenancy holds without any WHERE of ours: row-level security on every tenant table, found in the catalog."""

import json
from uuid import uuid4

import asyncpg
import pytest

from tenantry.platform.core import ids
from tenantry.platform.core.database import UNPROTECTED_TABLES, Database
from tenantry.platform.core.errors import ConfigurationError

TENANT_TABLES = """
SELECT c.relname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""
EXPECTED = {
    "act", "adapter", "adapter_alias", "adapter_version", "alias_event", "api_key", "artifact", "browser_session",
    "gate", "idempotency", "quota", "request", "response", "session", "session_item", "sign_in_link", "spend",
    "usage_closed", "usage_day", "usage_event", "usage_hour", "wallet", "wallet_entry",
}  # fmt: skip


async def fill(admin: asyncpg.Connection, tenant: object, key: object) -> None:
    """One row of this tenant in every tenant table, written by the superuser."""
    base, price, adapter, version, request = (ids.uuid7() for _ in range(5))
    digest = uuid4().bytes * 2
    await admin.execute("INSERT INTO base_model (id, name, digest) VALUES ($1, $2, $3)", base, base.hex, digest)
    await admin.execute(
        "INSERT INTO price (id, base_model_id, prompt_nano, cached_nano, completion_nano) VALUES ($1, $2, 2, 1, 4)",
        price, base,
    )  # fmt: skip
    await admin.execute("INSERT INTO quota (tenant_id, scope_id, concurrency) VALUES ($1, $1, 5)", tenant)
    await admin.execute("INSERT INTO idempotency (tenant_id, key, request_hash) VALUES ($1, 'k', $2)", tenant, digest)
    await admin.execute("INSERT INTO artifact (tenant_id, digest, bytes) VALUES ($1, $2, 9)", tenant, digest)
    await admin.execute(
        "INSERT INTO adapter (tenant_id, id, name, base_model_id) VALUES ($1, $2, 'same-name', $3)",
        tenant, adapter, base,
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state) VALUES ($1, $2, $3, 1, 'validating')",
        tenant, version, adapter,
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO adapter_alias (tenant_id, adapter_id, alias, version_id) VALUES ($1, $2, 'default', $3)",
        tenant, adapter, version,
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO alias_event (tenant_id, id, adapter_id, alias, to_version) VALUES ($1, $2, $3, 'default', $4)",
        tenant, ids.uuid7(), adapter, version,
    )  # fmt: skip
    for table in ("browser_session", "sign_in_link"):
        await admin.execute(
            f"INSERT INTO {table} (tenant_id, id, key_id, pepper_id, mac, expires_at)"
            " VALUES ($1, $2, $3, 1, $4, now())",
            tenant, ids.uuid7(), key, digest,
        )  # fmt: skip
    row = {
        "tenant_id": str(tenant), "request_id": str(request), "epoch": None, "key_id": str(key),
        "base_model_id": str(base), "adapter_id": str(adapter), "adapter_version_id": str(version), "model": "m",
        "price_id": str(price), "prompt": 5, "cached": 1, "completion": 2, "drafted": 0, "accepted": 0, "nano": 17,
        "outcome": "completed", "admitted_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    await admin.execute("SELECT settle($1)", json.dumps([row]))
    await admin.execute("INSERT INTO usage_closed (tenant_id, until) VALUES ($1, '2026-01-02')", tenant)
    await admin.execute(
        "INSERT INTO usage_day (tenant_id, dimension, day, group_id, requests, prompt, cached, completion, drafted,"
        " accepted, nano) VALUES ($1, 'key', date_trunc('day', now(), 'UTC'), $2, 1, 5, 1, 2, 0, 0, 17)",
        tenant, key,
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO session (tenant_id, id, kind, keep_s, turn_id, expires_at) "
        "VALUES ($1, $2, 'thread', 0, $2, now())",
        tenant, request,
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO response (tenant_id, id, session_id, status, settings, created_at, completed_at) "
        "VALUES ($1, $2, $2, 'completed', '{}', now(), now())",
        tenant, request,
    )  # fmt: skip
    await admin.execute(
        "INSERT INTO session_item (tenant_id, id, session_id, seq, listed, response_id, role, status, content) "
        "VALUES ($1, $2, $2, 0, false, $2, 'user', 'completed', '[]')",
        tenant, request,
    )  # fmt: skip


@pytest.fixture
async def filled(pg, acme, globex):
    admin = await asyncpg.connect(pg.admin)
    for who in (acme, globex):
        await fill(admin, who.tenant.id, who.issued.key.id)
    yield admin
    await admin.close()


async def test_the_catalog_names_every_tenant_table_and_all_are_forced(filled, database: Database):
    assert {r["name"] for r in await filled.fetch(TENANT_TABLES)} == EXPECTED
    assert await filled.fetch(UNPROTECTED_TABLES) == []
    for table in EXPECTED:
        tenants = await filled.fetchval(f"SELECT count(DISTINCT tenant_id) FROM {table}")
        assert tenants == 2, f"{table} proves nothing unless both tenants have rows"


async def test_select_star_sees_one_tenant_only(filled, database: Database, acme, globex):
    for table in [*sorted(EXPECTED), "tenant"]:
        column = "id" if table == "tenant" else "tenant_id"
        async with database.tenant(acme.tenant.id) as c:
            seen = {r[column] for r in await c.fetch(f"SELECT * FROM {table}")}
        assert seen == {acme.tenant.id}, table
        async with database.tenant(uuid4()) as c:
            assert await c.fetch(f"SELECT * FROM {table}") == [], table
        async with database.autocommit() as c:
            assert await c.fetch(f"SELECT * FROM {table}") == [], f"{table} without a tenant"


async def test_no_write_reaches_another_tenant(filled, database: Database, acme, globex):
    for table in sorted(EXPECTED):
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET tenant_id = tenant_id"):
            try:
                async with database.tenant(uuid4()) as c:
                    assert (await c.execute(statement)).split()[-1] == "0", table
            except asyncpg.InsufficientPrivilegeError:
                pass
    async with database.tenant(acme.tenant.id) as c:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await c.execute(
                "INSERT INTO artifact (tenant_id, digest, bytes) VALUES ($1, $2, 1)", globex.tenant.id, b"x" * 32
            )


async def test_foreign_keys_cannot_point_across_tenants(filled, database: Database, acme, globex):
    theirs = await filled.fetchval("SELECT id FROM adapter WHERE tenant_id = $1", globex.tenant.id)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with database.tenant(acme.tenant.id) as c:
            await c.execute(
                "INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state) "
                "VALUES ($1, $2, $3, 2, 'validating')",
                acme.tenant.id,
                ids.uuid7(),
                theirs,
            )
    single = await filled.fetch(
        "SELECT c.conname FROM pg_constraint c WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace "
        "AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attname = 'tenant_id') "
        "AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.confrelid AND a.attname = 'tenant_id') "
        "AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) "
        "AND a.attname = 'tenant_id')"
    )
    assert single == []


async def test_an_alias_cannot_name_another_adapters_version(filled, database: Database, acme):
    version = await filled.fetchval("SELECT id FROM adapter_version WHERE tenant_id = $1", acme.tenant.id)
    base = await filled.fetchval("SELECT base_model_id FROM adapter WHERE tenant_id = $1", acme.tenant.id)
    other = ids.uuid7()
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with database.tenant(acme.tenant.id) as c:
            await c.execute(
                "INSERT INTO adapter (tenant_id, id, name, base_model_id) VALUES ($1, $2, 'other', $3)",
                acme.tenant.id, other, base,
            )  # fmt: skip
            await c.execute(
                "INSERT INTO adapter_alias (tenant_id, adapter_id, alias, version_id) VALUES ($1, $2, 'default', $3)",
                acme.tenant.id, other, version,
            )  # fmt: skip


async def test_a_version_is_immutable_once_it_has_content(filled, database: Database, acme):
    async with database.tenant(acme.tenant.id) as c:
        await c.execute("UPDATE adapter_version SET manifest = '{\"rank\": 4}', rank = 4")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        async with database.tenant(acme.tenant.id) as c:
            await c.execute("UPDATE adapter_version SET rank = 8")
    async with database.tenant(acme.tenant.id) as c:
        await c.execute("UPDATE adapter_version SET state = 'quarantined'")


@pytest.mark.parametrize("table", ["usage_event", "wallet_entry", "alias_event", "act"])
async def test_ledgers_are_append_only_for_everyone_but_the_schemas_owner(
    pg, filled, database: Database, acme, table
):
    for verb in (f"DELETE FROM {table}", f"UPDATE {table} SET tenant_id = tenant_id"):
        for scope in (database.tenant(acme.tenant.id), database.operator()):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with scope as c:
                    await c.execute(verb)


async def test_a_tenant_tells_of_itself_alone_and_in_nobody_elses_name(filled, database: Database, acme, globex):
    tell = "INSERT INTO act (tenant_id, id, kind, subject, actor_tenant_id, actor_key_id, actor_name) VALUES "
    own, theirs, key = acme.tenant.id, globex.tenant.id, globex.issued.key.id
    for whose, who in ((theirs, own), (theirs, theirs), (own, theirs)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.tenant(own) as c:
                await c.execute(tell + "($1, $2, 'key_created', 'x', $3, $4, 'y')", whose, ids.uuid7(), who, key)
    async with database.tenant(own) as c:
        await c.execute(tell + "($1, $2, 'key_created', 'x', $1, $3, 'y')", own, ids.uuid7(), acme.issued.key.id)


async def test_the_operator_role_is_entered_not_inherited(filled, database: Database):
    async with database.operator() as c:
        assert await c.fetchval("SELECT count(*) FROM tenant") == 2
    async with database.autocommit() as c:  # the same pool, the transaction's role is gone
        assert await c.fetchval("SELECT current_user") == "tenantry_app"
        assert await c.fetchval("SELECT count(*) FROM tenant") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await c.execute("SELECT settle('[]')")


async def test_functions_that_run_as_their_owner_fix_their_search_path(filled):
    loose = await filled.fetch(
        "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace "
        "AND NOT coalesce(array_to_string(proconfig, ','), '') LIKE '%search_path=pg_catalog%'"
    )
    assert loose == []
    assert [r[0] for r in await filled.fetch(
        "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )] == ["auth_lookup"]  # fmt: skip
    views = await filled.fetch(
        "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace "
        "AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)"
    )
    assert views == []


async def test_it_refuses_to_start_as_a_superuser(pg):
    with pytest.raises(ConfigurationError, match="superuser"):
        await Database.connect(pg.admin)


async def test_it_refuses_to_start_over_a_table_without_row_security(pg):
    owner = await asyncpg.connect(pg.owner)
    await owner.execute("ALTER TABLE spend NO FORCE ROW LEVEL SECURITY")
    await owner.close()
    with pytest.raises(ConfigurationError, match="spend"):
        await Database.connect(pg.app)
