"""A tenant that has grown: rows for the console's lists, made inside of PostgreSQL by generate_series.

Owns the seeding and its shape: adapters and keys are used unevenly (the square and the cube of an even draw), events
spread evenly over thirty days, rollups and books follow from the events. Nothing here is served by an engine.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

import asyncpg

_TABLES = (
    "usage_event", "usage_hour", "request", "adapter", "adapter_version", "adapter_alias", "alias_event", "artifact",
    "api_key", "session", "response", "browser_session", "wallet_entry", "tenant", "act",
)  # fmt: skip
_SEED = Path(__file__).with_suffix(".sql")


@dataclass(frozen=True, slots=True)
class Size:
    adapters: int = 100_000
    events: int = 1_000_000
    keys: int = 1_000
    tenants: int = 1_000


async def seed(admin_dsn: str, tenant: UUID, base: UUID, price: UUID, size: Size) -> None:
    """As the superuser, whom no policy binds; tells the planner about the rows at the end, as autovacuum would."""
    connection = await asyncpg.connect(admin_dsn, command_timeout=3600)
    try:
        rows = _SEED.read_text().format(tenant=tenant, base=base, price=price, **asdict(size))
        await connection.execute(rows)
        for table in _TABLES:
            await connection.execute(f"VACUUM ANALYZE {table}")
    finally:
        await connection.close()
