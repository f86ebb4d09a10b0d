"""Activity is paged in the order of time, which the order of ids need not be."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tenantry.platform.admin.activity import activity
from tenantry.platform.core.database import Database

TENANT = UUID(int=1)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


async def test_acts_whose_ids_are_in_another_order_than_their_times_are_told_once(database: Database):
    """Transactions that overlap: an id is made at another moment than its row's time. Some have the same time."""
    count = 9
    async with database.operator() as connection:
        await connection.execute("INSERT INTO tenant (id, name) VALUES ($1, 'acme')", TENANT)
        for n in range(count):
            await connection.execute(
                """INSERT INTO api_key (tenant_id, id, key_id, name, env, scopes, pepper_id, mac, created_at)
                   VALUES ($1, $2, $3, $4, 'live', '{inference}', 1, $5, $6)""",
                TENANT, UUID(int=100 - n), f"{n:016d}", f"k{n}", bytes(32), BEGAN + timedelta(seconds=n // 3 * 3),
            )  # fmt: skip
    told: list[str] = []
    after: str | None = None
    async with database.tenant(TENANT) as connection:
        while page := await activity(connection, TENANT, 2, after):
            told += [act.subject for act in page]
            after = page[-1].cursor
    assert told == ["k6", "k7", "k8", "k3", "k4", "k5", "k0", "k1", "k2"]
