"""The pool, and the two ways to hold a connection: as one tenant, or as the operator. One `with`, one transaction.

Owns scoping, time limits, the check-in assertion and the translation of outages into typed 503s. Knows no table.
Callers that may be cancelled by a client must run their writes in tasks of their own (see metering.settlement).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
import msgspec
import structlog

from tenantry.platform.core.errors import ConfigurationError, DatabaseUnavailable
from tenantry.platform.core.roles import OPERATOR
from tenantry.platform.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)
Connection = Any  # asyncpg.Connection or its pool proxy; the library is untyped
_MINIMUM_VERSION: Final = 160000
_AWAY: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server said goodbye on this connection, and its end has not been read yet
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


class Database:
    """A bounded pool of app-role connections. Waiting for one takes at most `wait` seconds, then it is a 503."""

    def __init__(self, pool: Any, wait: float) -> None:
        self._pool = pool
        self._wait = wait

    @classmethod
    async def connect(cls, dsn: str, settings: Settings | None = None) -> "Database":
        """Opens the pool and refuses a database that could leak: see check()."""
        limits = settings or Settings()
        pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=limits.pool_size,
            init=_prepare,
            reset=_check_in,
            command_timeout=limits.statement_timeout + 5,
            timeout=5,
            server_settings={
                "application_name": "tenantry",
                "statement_timeout": str(int(limits.statement_timeout * 1000)),
                "idle_in_transaction_session_timeout": "10000",
                "timezone": "UTC",
            },
        )
        with translated():
            await pool
        database = cls(pool, limits.pool_wait)
        try:
            await database.check()
        except BaseException as error:
            await database.close()
            if isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
                raise ConfigurationError("TENANTRY_DATABASE_URL names a database that does not exist") from None
            if isinstance(error.__cause__, asyncpg.InvalidAuthorizationSpecificationError):
                raise ConfigurationError("TENANTRY_DATABASE_URL: the database refuses this role") from None
            raise
        return database

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[Connection]:
        """A transaction that sees one tenant's rows. Commits at the end of the block; an exception rolls back."""
        async with self.autocommit() as connection, connection.transaction():
            await connection.execute("SELECT set_config('app.tenant_id', $1, true)", str(tenant_id))
            yield connection

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Connection]:
        """A transaction that sees all tenants: for operator routes, settlement, the reaper and reconciliation."""
        async with self.autocommit() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {OPERATOR}")
            yield connection

    @asynccontextmanager
    async def autocommit(self) -> AsyncGenerator[Connection]:
        """A connection without a transaction or a tenant: row-level security shows it nothing but functions."""
        with translated():
            try:
                connection = await self._pool.acquire(timeout=self._wait)
            except TimeoutError:
                raise DatabaseUnavailable("All database connections are busy.", code="database_busy") from None
            except asyncpg.PostgresError as error:  # whatever it says, there is no connection
                raise DatabaseUnavailable("The database does not answer.") from error
            try:
                yield connection
            finally:
                await asyncio.shield(self._release(connection))

    async def _release(self, connection: Connection) -> None:
        """Giving back a connection that died never fails the work done on it."""
        try:
            await self._pool.release(connection)
        except _AWAY as error:
            log.warning("a database connection was dropped at check-in", error=str(error))

    async def check(self) -> None:
        """Refuses to start as a role that row-level security does not bind, or over a table that lacks it."""
        async with self.autocommit() as c:
            version = await c.fetchval("SELECT current_setting('server_version_num')::int")
            if version < _MINIMUM_VERSION:
                raise ConfigurationError(f"TENANTRY_DATABASE_URL: PostgreSQL 16 or newer is needed, found {version}")
            role = await c.fetchrow(_ROLE)
            if role["rolsuper"] or role["rolbypassrls"]:
                raise ConfigurationError(
                    f"TENANTRY_DATABASE_URL: role {role['rolname']} is a superuser or has BYPASSRLS; "
                    "connect as tenantry_app"
                )
            bare = await c.fetch(UNPROTECTED_TABLES)
        if bare:
            names = ", ".join(row["name"] for row in bare)
            raise ConfigurationError(f"TENANTRY_DATABASE_URL: tables without forced row-level security: {names}")

    async def ping(self) -> None:
        """Raises DatabaseUnavailable when the database does not answer; for readiness."""
        async with self.autocommit() as connection:
            await connection.fetchval("SELECT 1")

    async def close(self) -> None:
        """Waits five seconds for borrowed connections, then cuts them."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()


_ROLE: Final = "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
UNPROTECTED_TABLES: Final = """
SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = 'public' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
  AND (c.relname = 'tenant' OR EXISTS (
    SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
"""


@contextmanager
def translated() -> "Iterator[None]":
    """Outages, time limits and exhausted retries become one typed 503; bugs (bad SQL, violated checks) stay loud."""
    try:
        yield
    except _AWAY as error:
        raise DatabaseUnavailable("The database does not answer.") from error


async def _prepare(connection: Connection) -> None:
    # the driver's own uuid class does not encode as JSON or msgpack; the standard one does
    await connection.set_type_codec(
        "uuid",
        schema="pg_catalog",
        encoder=lambda v: v.bytes,
        decoder=lambda b: UUID(bytes=bytes(b)),
        format="binary",
    )
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=lambda v: msgspec.json.encode(v).decode(), decoder=msgspec.json.decode
    )


async def _check_in(connection: Connection) -> None:
    """Instead of asyncpg's RESET ALL (a round trip): our session state is transaction-local, so only that is checked.

    Raising makes the pool close the connection, so a stray open transaction never meets the next borrower.
    """
    if connection.is_in_transaction():
        raise asyncpg.InterfaceError("a connection came back inside a transaction")
