"""Brings a database to the newest schema: `migrate(owner_dsn)`. Safe to run twice, and by two processes at once.

Owns how alembic is started; the schema itself is in migrations/. Everything runs in one transaction behind one
advisory lock, so a kill at any statement leaves the old schema whole.
"""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, make_url

import tenantry.migrations
from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import ConfigurationError

_ONE_AT_A_TIME = threading.Lock()  # alembic keeps its context in module globals


def migrate(owner_dsn: str) -> None:
    """Blocks until the schema is the newest. Call it from a thread when a loop is running."""
    config = _config()
    config.attributes["url"] = sqlalchemy_url(owner_dsn)
    with _ONE_AT_A_TIME:
        command.upgrade(config, "head")


def head() -> str:
    """The revision this code was written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


async def require_current(connection: Connection) -> None:
    """Refuses to serve on an older, newer or unmigrated schema."""
    found = None
    if await connection.fetchval("SELECT to_regclass('public.alembic_version') IS NOT NULL"):
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    if found != head():
        raise ConfigurationError(
            f"TENANTRY_DATABASE_URL: the schema is at {found or 'nothing'}, this program needs {head()}: "
            "run `tenantry migrate`"
        )


def sqlalchemy_url(dsn: str) -> URL:
    """The same address, for SQLAlchemy's asyncpg driver."""
    return make_url(dsn).set(drivername="postgresql+asyncpg")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(next(iter(tenantry.migrations.__path__)))))
    return config
