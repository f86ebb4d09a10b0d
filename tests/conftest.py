"""A real PostgreSQL for every test that asks: one server per run, one freshly cloned database per test."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tenantry.platform.core import embedded
from tenantry.platform.core.database import Database
from tenantry.platform.core.migrate import migrate
from tenantry.platform.core.roles import APP, OWNER, SUPERUSER, ensure_roles

TEMPLATE = "tenantry_template"
FAST = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}


@dataclass(frozen=True)
class Addresses:
    """One migrated, empty database. `app` is what processes use; `owner` migrates; `admin` is the superuser."""

    app: str
    owner: str
    admin: str
    name: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[embedded.EmbeddedPostgres]:
    """The server. Not under pytest's own folder: its user must reach the data, and pytest closes that folder."""
    folder = Path(tempfile.mkdtemp(prefix="tenantry-"))
    server = embedded.start(folder, FAST)
    try:
        asyncio.run(_prepare(server))
        migrate(server.dsn(OWNER, TEMPLATE))
        yield server
    finally:
        server.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


async def _prepare(server: embedded.EmbeddedPostgres) -> None:
    await embedded.wait_until_open(server)
    await ensure_roles(server.admin_dsn, TEMPLATE)


@pytest.fixture
async def pg(postgres: embedded.EmbeddedPostgres) -> AsyncIterator[Addresses]:
    name = f"t_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.admin_dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER} STRATEGY FILE_COPY")
        yield Addresses(postgres.dsn(APP, name), postgres.dsn(OWNER, name), postgres.dsn(SUPERUSER, name), name)
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def database(pg: Addresses) -> AsyncIterator[Database]:
    """The gateway's own pool, as the app role."""
    database = await Database.connect(pg.app)
    yield database
    await database.close()
