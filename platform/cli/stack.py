"""What `tenantry serve` runs: PostgreSQL, the engines, the gateway; started in this order, stopped in reverse.

Owns the data directory's run files and the supervisors. It must not know HTTP routes or what a request is.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import httpx

from tenantry.adapters.base_digest import digest_model
from tenantry.platform.cli.connection import ADDRESS_FILE
from tenantry.platform.core import embedded
from tenantry.platform.core.errors import ConfigurationError
from tenantry.platform.core.migrate import migrate
from tenantry.platform.core.roles import OWNER, ensure_roles
from tenantry.platform.core.settings import EnginePlace, Settings, to_environment
from tenantry.platform.fleet.process import Child
from tenantry.platform.fleet.supervisor import Ping, Supervisor
from tenantry.platform.fleet.watchdog import Backoff
from tenantry.platform.metering.journal import engine_directories
from tenantry.runtime.client import EngineClient
from tenantry.runtime.config import EngineConfig, write_config
from tenantry.runtime.journal import seal, segments

Report = Callable[[str], None]
LOG_BYTES = 64 << 20
MAX_SOCKET_PATH = 100
STARTED_TOO_OFTEN = 3


@dataclass(slots=True)
class Stack:
    """settings.model_dir must be set. engine: what the worker is told beyond what settings say.
    report: called with a line for people at each step, many times a second at most during loading.
    stable_s: a child that lived that long has its earlier deaths forgotten.
    """

    settings: Settings
    engine: EngineConfig
    report: Report
    stable_s: float = 60.0
    _postgres: embedded.EmbeddedPostgres | None = None
    _clients: list[EngineClient] = field(default_factory=list)
    _engines: list[Supervisor] = field(default_factory=list)
    _gateway: Supervisor | None = None
    _hand_offs: Path | None = None
    _running: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host  # noqa: S104
        return f"http://{host}:{self.settings.port}"

    @property
    def pids(self) -> dict[str, int | None]:
        """Of the children, by name; for doctors and crash tests."""
        return {s.name: s.pid for s in self._children}

    @property
    def _children(self) -> list[Supervisor]:
        """In the order in which they are stopped: what is asked of engines ends before they do."""
        return [*([self._gateway] if self._gateway is not None else ()), *self._engines]

    async def start(self) -> None:
        """Returns when the gateway answers /ready. Raises ConfigurationError with one clear line."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.settings.data_dir / "logs").mkdir(exist_ok=True)
        if self.settings.port == 0:
            self.settings = replace(self.settings, port=free_port(self.settings.host))
        await self._start_database()
        await self._start_engines()
        await self._start_gateway()
        address = self.settings.data_dir / ADDRESS_FILE
        address.write_text(json.dumps({"base_url": self.base_url, "pid": os.getpid()}))

    async def stop(self) -> None:
        """Drain and stop everything that start() started. Idempotent."""
        for supervisor in self._children:
            self.report(f"stopping the {supervisor.name}")
            await supervisor.stop()
        await self._end()

    async def kill(self) -> None:
        """Without waiting for anything that runs; the journal and the database keep what was counted."""
        for supervisor in self._children:
            await supervisor.kill()
        await self._end()

    async def _end(self) -> None:
        await asyncio.gather(*self._running, return_exceptions=True)
        for client in self._clients:
            await client.close()
        if self._hand_offs is not None:
            shutil.rmtree(self._hand_offs, ignore_errors=True)
        if self._postgres is not None:
            self.report("stopping PostgreSQL")
            await asyncio.to_thread(self._postgres.stop)
        (self.settings.data_dir / ADDRESS_FILE).unlink(missing_ok=True)

    async def _start_database(self) -> None:
        settings = self.settings
        if settings.database_url is None:
            self.report("starting PostgreSQL")
            self._postgres = await asyncio.to_thread(embedded.start, settings.data_dir)
            await embedded.wait_until_open(self._postgres)
            await ensure_roles(self._postgres.admin_dsn)
            owner: str | None = self._postgres.dsn(OWNER)
            self.settings = replace(settings, database_url=self._postgres.dsn())
        else:
            owner = settings.owner_database_url
        if owner is not None:
            self.report("migrating the database")
            await asyncio.to_thread(migrate, owner)

    async def _start_engines(self) -> None:
        model_dir = self.settings.model_dir
        assert model_dir is not None
        self.report("reading the base model")
        digest = await asyncio.to_thread(cached_digest, model_dir, self.settings.data_dir)
        address = f"ipc://{socket_path(self.settings.data_dir)}"
        self.settings = replace(self.settings, model_digest=digest.hex(), engine_socket=address)
        fleet = self.settings.fleet
        seal_journals(self.settings.journal_dir, {place.journal for place in fleet})
        if any(place.role == "prefill" for place in fleet):
            self._hand_offs = shared_folder(self.settings.data_dir)
        for place in fleet:
            await self._start_engine(place, model_dir, max(1, self.engine.threads // len(fleet)))
        await asyncio.gather(*(self._wait(engine, engine.ready.wait()) for engine in self._engines))

    async def _start_engine(self, place: EnginePlace, model_dir: Path, threads: int) -> None:
        """Started, and kept alive on its own from now on; not yet ready."""
        config = replace(
            self.engine,
            model_dir=model_dir,
            adapter_dir=self.settings.blob_dir,
            journal_dir=place.journal,
            disk_cache_dir=self.engine.disk_cache_dir / ("" if place.name == "engine" else place.name),
            socket=place.socket,
            role=place.role,
            name=place.name,
            hand_off_dir=self._hand_offs,
            threads=threads,
            drain_s=self.settings.drain_timeout,
        )
        path = self.settings.data_dir / f"{place.name}.json"
        write_config(config, path)
        client = EngineClient(place.socket)
        self._clients.append(client)
        await client.connect()
        argv = [sys.executable, "-m", "tenantry.runtime.worker", str(path)]
        self._engines.append(self._supervise(place.name, argv, ping=client.ping))

    async def _start_gateway(self) -> None:
        self.report("starting the gateway")
        argv = [sys.executable, "-m", "tenantry.platform.cli.gateway"]
        self._gateway = self._supervise("gateway", argv, env=to_environment(self.settings))
        await self._wait(self._gateway, self._answers_ready())

    def _supervise(
        self, name: str, argv: list[str], ping: Ping | None = None, env: dict[str, str] | None = None
    ) -> Supervisor:
        log = rotated(self.settings.data_dir / "logs" / f"{name}.log")

        async def spawn() -> Child:
            return await Child.start(argv, lambda line: self._told(name, line), env, log)

        grace, backoff = self.settings.drain_timeout + 15, Backoff(stable=self.stable_s)
        supervisor = Supervisor(name, spawn, ping=ping, grace=grace, backoff=backoff)
        self._running.append(asyncio.create_task(supervisor.run()))
        return supervisor

    def _told(self, name: str, line: str) -> None:
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and said.get("event") == "progress":
                self.report(f"{name}: {said.get('what')} {said.get('done')}/{said.get('total')}")

    async def _wait(self, supervisor: Supervisor, ready: Any) -> None:
        """Until it is ready; a child that keeps dying is reported with the end of its log instead."""
        waiting = asyncio.ensure_future(ready)
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.2)
            if supervisor.restarts >= STARTED_TOO_OFTEN and not waiting.done():
                waiting.cancel()
                log = self.settings.data_dir / "logs" / f"{supervisor.name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
                raise ConfigurationError(f"the {supervisor.name} does not start:\n{tail}")

    async def _answers_ready(self) -> None:
        async with httpx.AsyncClient(base_url=self.base_url, timeout=5) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.get("/ready")).is_success:
                        return
                await asyncio.sleep(0.05)


def seal_journals(journal_dir: Path, written: set[Path]) -> None:
    """What engines of an earlier start left open, and no engine of this one writes on, is final from now on."""
    for directory in engine_directories(journal_dir):
        if directory not in written and segments(directory):
            seal(directory, f"{time.time_ns():016x}5ea1ed00")


def free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_port(host: str, port: int) -> None:
    """One clear line before anything is started, where the gateway itself would fail minutes later."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"TENANTRY_PORT: {host}:{port} cannot be used: {error.strerror}") from error


def socket_path(data_dir: Path) -> Path:
    """Inside the data directory, or, where that path is too long for a unix socket, in a private temporary one."""
    path = data_dir / "engine.sock"
    if len(str(path)) <= MAX_SOCKET_PATH:
        return path
    name = blake2b(str(data_dir).encode(), digest_size=8).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"tenantry-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise ConfigurationError(f"{folder} belongs to others; give a shorter --data-dir")
    return folder / f"{name}.sock"


def shared_folder(data_dir: Path) -> Path:
    """Where this data directory's engines leave prompts for each other: in memory, where the machine has such a
    folder. What an earlier start left there goes: nobody reads it any more."""
    memory = Path("/dev/shm")  # noqa: S108
    name = blake2b(str(data_dir.absolute()).encode(), digest_size=8).hexdigest()
    folder = (memory if memory.is_dir() else Path(tempfile.gettempdir())) / f"tenantry-{os.getuid()}-{name}"
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
        raise ConfigurationError(f"{folder} belongs to others")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def cached_digest(model_dir: Path, data_dir: Path) -> bytes:
    """digest_model, remembered as long as no file's size or modification time changes."""
    files = sorted(p for p in model_dir.iterdir() if p.name == "config.json" or p.suffix == ".safetensors")
    state = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    path = data_dir / "model-digest.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text())
        if known["directory"] == str(model_dir) and known["files"] == state:
            return bytes.fromhex(known["digest"])
    digest = digest_model(model_dir)
    path.write_text(json.dumps({"directory": str(model_dir), "files": state, "digest": digest.hex()}))
    return digest


def rotated(log: Path) -> Path:
    """The log itself, after a large one of earlier runs was put aside."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    return log
