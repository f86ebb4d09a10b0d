"""Activity is paged in the order of time, which the order of ids need not be; kinds and adapters by their index."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from tenantry.platform.admin import activity as acts
from tenantry.platform.admin.activity import Asked, activity
from tenantry.platform.core.database import Database
from tenantry.platform.tenants.acts import KINDS

TENANT = UUID(int=1)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ACT = "INSERT INTO act (tenant_id, id, at, kind, subject, adapter) VALUES ($1, $2, $3, $4, $5, $6)"
MANY = """INSERT INTO act (tenant_id, id, at, kind, subject, adapter)
  SELECT $1, gen_random_uuid(), now() - i * interval '1 second', CASE i % 5000 WHEN 0 THEN 'price_set' ELSE
  'signed_in' END, 's', CASE i % 3 WHEN 0 THEN 'a' || i % 500 END FROM generate_series(1, 20000) i"""


async def filled(database: Database, kinds: tuple[str, ...] = ("key_created",), count: int = 9) -> None:
    """Ids fall while times rise, and three at a time have the same."""
    async with database.operator() as connection:
        await connection.execute("INSERT INTO tenant (id, name) VALUES ($1, 'acme')", TENANT)
        for n in range(count):
            at = BEGAN + timedelta(seconds=n // 3 * 3)
            kind, adapter = kinds[n % len(kinds)], f"a{n % 2}"
            await connection.execute(ACT, TENANT, UUID(int=100 - n), at, kind, f"k{n}", adapter)


async def told(database: Database, asked: Asked | None = None) -> list[str]:
    """Page after page of two."""
    subjects: list[str] = []
    after: str | None = None
    async with database.tenant(TENANT) as connection:
        while page := await activity(connection, TENANT, 2, after, asked):
            subjects += [act.subject for act in page]
            after = page[-1].cursor
    return subjects


async def test_acts_whose_ids_are_in_another_order_than_their_times_are_told_once(database: Database):
    """Transactions that overlap: an id is made at another moment than its row's time. Some have the same time."""
    await filled(database)
    assert await told(database) == ["k6", "k7", "k8", "k3", "k4", "k5", "k0", "k1", "k2"]


async def test_some_kinds_alone_are_told_in_the_same_order(database: Database):
    await filled(database, ("key_created", "signed_in", "key_revoked"))
    assert await told(database, Asked(kinds=("key_created", "key_revoked"))) == ["k6", "k8", "k3", "k5", "k0", "k2"]
    assert await told(database, Asked(kinds=("price_set",))) == []
    everything_but = tuple(kind for kind in KINDS if kind != "signed_in")
    assert len(await told(database, Asked(kinds=everything_but))) == 6


async def test_an_adapters_acts_are_told_by_kind_as_well(database: Database):
    await filled(database, ("alias_moved", "alias_moved", "version_uploaded"))
    assert await told(database, Asked(adapter="a0")) == ["k6", "k8", "k4", "k0", "k2"]
    assert await told(database, Asked(adapter="a0", kinds=("version_uploaded",))) == ["k8", "k2"]
    assert await told(database, Asked(start=BEGAN + timedelta(seconds=3), end=BEGAN + timedelta(seconds=6))) == [
        "k3", "k4", "k5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "adapter", "index"),
    [
        (acts.OF_A_TENANT, (), "act_kind"), (acts.OF_AN_ADAPTER, ("a3",), "act_adapter"),
        (acts.OF_THE_OPERATOR, (), "act_elsewhere"),
    ],
)  # fmt: skip
async def test_acts_are_found_by_their_index_up_to_the_pages_end(pg, question, adapter, index):
    connection = await asyncpg.connect(pg.admin)
    try:
        await connection.execute("INSERT INTO tenant (id, name) VALUES ($1, 'acme')", TENANT)
        await connection.execute(MANY, TENANT)
        await connection.execute("ANALYZE act")
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        kinds = ["price_set", "signed_in"]
        asked = (TENANT, datetime.now(UTC), UUID(int=5), 50, None, None, kinds, *adapter)
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN (ANALYZE) " + question, *asked))
        assert index in plan
        if not adapter:
            assert "Rows Removed by Filter" not in plan
            assert "ROW(at, id) <" in plan.split("Index Cond:")[1]
    finally:
        await connection.close()
