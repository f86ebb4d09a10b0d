"""`tenantry migrate` and `tenantry doctor`: the database's schema, and what would keep the server from starting.

Owns the checks' wording. A check never changes anything.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tenantry.platform.cli.output import fail, out, show_json, show_table
from tenantry.platform.cli.stack import require_port
from tenantry.platform.core import embedded, settings
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import ConfigurationError, DatabaseUnavailable
from tenantry.platform.core.migrate import head, migrate, require_current
from tenantry.platform.core.roles import OWNER, ensure_roles
from tenantry.platform.core.secrets import load_peppers
from tenantry.platform.core.settings import Settings

MIN_FREE_BYTES = 1 << 30
DataDir = Annotated[Path | None, Parameter(help="Where everything is kept; else TENANTRY_DATA_DIR, else .data.")]


def migrate_command(
    *,
    data_dir: DataDir = None,
    database_url: Annotated[str | None, Parameter(help="The owner's address; else the embedded database.")] = None,
) -> None:
    """Bring the database to this program's schema. `tenantry serve` does it for the embedded one.

    Example: tenantry migrate --database-url postgresql://tenantry_owner@db/tenantry
    """
    try:
        chosen = settings.load(data_dir=data_dir.absolute() if data_dir else None)
        owner = database_url or chosen.owner_database_url
        if owner is not None:
            migrate(owner)
        else:
            server = embedded.start(chosen.data_dir)
            try:
                asyncio.run(_prepare(server))
                migrate(server.dsn(OWNER))
            finally:
                server.stop()
    except ConfigurationError as error:
        fail(str(error), status=78)
    out.print(f"the schema is at {head()}")


async def _prepare(server: embedded.EmbeddedPostgres) -> None:
    await embedded.wait_until_open(server)
    await ensure_roles(server.admin_dsn)


def doctor(*, data_dir: DataDir = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Check what the server needs, and say what is wrong. Exit status 1 if anything is.

    Example: tenantry doctor --json
    """
    try:
        chosen = settings.load(data_dir=data_dir.absolute() if data_dir else None)
    except ConfigurationError as error:
        fail(str(error), status=78)
    found = list(examine(chosen))
    if json:
        show_json(found)
    else:
        show_table(found, (("check", "check"), ("ok", "ok"), ("detail", "detail")))
    if not all(f["ok"] for f in found):
        raise SystemExit(1)


def examine(chosen: Settings) -> Iterator[dict[str, object]]:
    """One row per check."""
    checks: dict[str, Callable[[Settings], str]] = {
        "settings": lambda s: f"data directory {s.data_dir}",
        "data directory": _data_directory,
        "disk": _disk,
        "memory": _memory,
        "port": _port,
        "secrets": _secrets,
        "database": _database,
        "processor": lambda _s: f"{os.cpu_count()} cores",
    }
    for name, check in checks.items():
        try:
            yield {"check": name, "ok": True, "detail": check(chosen)}
        except (ConfigurationError, DatabaseUnavailable, OSError) as error:
            yield {"check": name, "ok": False, "detail": str(error)}


def _data_directory(chosen: Settings) -> str:
    if not chosen.data_dir.exists():
        return "not there yet; `tenantry serve` makes it"
    if not os.access(chosen.data_dir, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{chosen.data_dir} cannot be written by this user")
    return "writable"


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _disk(chosen: Settings) -> str:
    free = shutil.disk_usage(_existing(chosen.data_dir)).free
    if free < MIN_FREE_BYTES:
        raise ConfigurationError(f"only {free >> 20} MiB free; the journal and the database need room")
    return f"{free >> 30} GiB free"


def _memory(_: Settings) -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB in all"


def _port(chosen: Settings) -> str:
    require_port(chosen.host, chosen.port)
    return f"{chosen.host}:{chosen.port} is free"


def _secrets(chosen: Settings) -> str:
    if chosen.pepper_file is None and not (chosen.secrets_dir / "key-peppers.json").exists():
        return "none yet; made at the first start"
    load_peppers(chosen)
    return "readable by this user alone"


def _database(chosen: Settings) -> str:
    if chosen.database_url is None:
        return "embedded PostgreSQL"
    asyncio.run(_connect(chosen))
    return f"connects, schema {head()}"


async def _connect(chosen: Settings) -> None:
    assert chosen.database_url is not None
    database = await Database.connect(chosen.database_url, chosen)
    try:
        async with database.autocommit() as connection:
            await require_current(connection)
    finally:
        await database.close()
