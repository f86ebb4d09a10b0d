"""One tenant's sessions are not there for another, in the database itself; content is only where it is kept."""

import asyncpg
import pytest

from tenantry.platform.core import ids
from tenantry.platform.sessions.kv import SessionKv
from tenantry.platform.sessions.models import Item
from tenantry.platform.sessions.repository import Repository
from tenantry.platform.sessions.sweep import Sweeper
from tenantry.platform.tenants import service
from tenantry.platform.testing import ScriptedEngine

TABLES = ("session", "response", "session_item")
CANARY = "xylophone-canary-7319"


async def tenants(database):
    async with database.operator() as connection:
        return [(await service.create_tenant(connection, name)).id for name in ("acme", "globex")]


async def conversation(database, tenant_id, retention_s=60.0):
    session_id, item = ids.uuid7(), Item(ids.uuid7(), "user", [{"type": "input_text", "text": CANARY}])
    async with database.tenant(tenant_id) as connection:
        repository = Repository(connection, tenant_id)
        await repository.add_session(session_id, "conversation", "pin", {}, 0, False, retention_s)
        await repository.take_seqs(session_id, 1, retention_s)
        await repository.add_items(session_id, 0, [item], True)
    return session_id


async def test_row_level_security_hides_and_refuses(database):
    mine, other = await tenants(database)
    session_id = await conversation(database, mine)
    async with database.tenant(other) as connection:
        for table in TABLES:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await connection.execute("UPDATE session SET pinned = true") == "UPDATE 0"
        assert await connection.execute("DELETE FROM session_item") == "DELETE 0"
        assert await Repository(connection, other).session(session_id) is None
        assert await Repository(connection, mine).session(session_id) is None
    for statement in (
        "INSERT INTO session (tenant_id, id, kind, keep_s, expires_at) VALUES ($1, $2, 'thread', 0, now())",
        "INSERT INTO session_item (tenant_id, id, session_id, seq, listed, role, status, content) "
        "VALUES ($1, $2, $2, 9, true, 'user', 'completed', '[]')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.tenant(other) as connection:
                await connection.execute(statement, mine, ids.uuid7())
    async with database.autocommit() as connection:
        for table in TABLES:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_an_item_cannot_hang_on_another_tenants_session(database):
    """Foreign keys look past row-level security, so the tenant is in them."""
    mine, other = await tenants(database)
    session_id = await conversation(database, mine)
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with database.tenant(other) as connection:
            await Repository(connection, other).add_items(session_id, 5, [Item(ids.uuid7(), "user", [])], True)


async def test_the_sweep_takes_what_expired_and_nothing_else(database):
    mine, other = await tenants(database)
    kept = await conversation(database, mine)
    gone = [await conversation(database, tenant, -1.0) for tenant in (mine, other)]
    async with database.tenant(mine) as connection:
        assert await Repository(connection, mine).session(gone[0]) is None, "expired is gone before it is swept"
    engine = ScriptedEngine(None)
    sweeper = Sweeper(database, SessionKv(engine))
    assert sorted(await sweeper.sweep()) == sorted(zip((mine, other), gone, strict=True))
    assert len(set(engine.dropped_sessions)) == 2
    assert await sweeper.sweep() == []
    async with database.operator() as connection:
        assert [row["id"] for row in await connection.fetch("SELECT id FROM session")] == [kept]
        assert await connection.fetchval("SELECT count(*) FROM session_item") == 1


async def test_the_sweep_takes_answers_kept_for_retries_once_their_day_is_over(database):
    mine, _ = await tenants(database)
    async with database.tenant(mine) as connection:
        for name, age in (("old", "-1 second"), ("new", "1 hour")):
            await connection.execute(
                """INSERT INTO idempotency (tenant_id, key, request_hash, body, expires_at)
                VALUES ($1, $2, $3, $4, now() + $5::text::interval)""",
                mine, name, b"h" * 32, CANARY.encode(), age,
            )  # fmt: skip
    await Sweeper(database, SessionKv(ScriptedEngine(None))).sweep()
    async with database.operator() as connection:
        assert [row["key"] for row in await connection.fetch("SELECT key FROM idempotency")] == ["new"]


async def everywhere(connection):
    """Names of all tables with a row that holds the canary anywhere."""
    names = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    found = set()
    for (name,) in names:
        if await connection.fetchval(f"SELECT count(*) FROM {name} t WHERE t::text LIKE '%' || $1 || '%'", CANARY):
            found.add(name)
    return found


def test_content_is_in_its_tables_alone_and_leaves_with_them(live, client, capfd):
    async def holders():
        async with live.gateway.parts.database.operator() as connection:
            return await everywhere(connection)

    asked = {"model": "base", "max_output_tokens": 5, "instructions": CANARY, "metadata": {"m": CANARY}}
    held = client.conversations.create(items=[{"role": "user", "content": CANARY}], metadata={"k": CANARY})
    turn = client.responses.create(input=CANARY, conversation=held.id, **asked)
    thread = client.responses.create(input=CANARY, **asked)
    fork = client.responses.create(input=CANARY, previous_response_id=turn.id, **asked)
    assert live.run(holders()) == set(TABLES)
    client.conversations.delete(held.id)
    client.responses.delete(thread.id)
    assert live.run(holders()) == set(), "a fork of a conversation goes with it"
    usage = live.run(count(live, "SELECT count(*) FROM usage_event"))
    assert usage == 3, "what they cost stays"
    assert fork.id
    written = capfd.readouterr()
    assert CANARY not in written.out + written.err


async def count(live, statement):
    async with live.gateway.parts.database.operator() as connection:
        return await connection.fetchval(statement)
