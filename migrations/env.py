"""Alembic's entry: one connection as the owner, one advisory lock, one transaction.

Started only by tenantry.platform.core.migrate, which gives the address. It must not know the schema.
"""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from tenantry.platform.core.errors import ConfigurationError

LOCK = 0x7E4A1702
ROLES = "SELECT to_regrole('tenantry_app') IS NOT NULL AND to_regrole('tenantry_operator') IS NOT NULL"


def upgrade(connection: Connection) -> None:
    """The lock comes first, so a second migrator waits here and then finds nothing to do."""
    with connection.begin():
        connection.execute(text("SET LOCAL statement_timeout = '300s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        if not connection.execute(text(ROLES)).scalar():
            raise ConfigurationError(
                "the roles tenantry_app and tenantry_operator do not exist: a superuser must run the statements of "
                "tenantry.platform.core.roles.ROLE_SQL once"
            )
        context.configure(connection=connection, transactional_ddl=True)
        with context.begin_transaction():
            context.run_migrations()


async def run() -> None:
    engine = create_async_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


asyncio.run(run())
