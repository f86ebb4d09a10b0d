"""The gateway process, wired: the only file of the platform where rooms meet.

Owns construction, the order of start and stop, and the litestar application. It must not hold logic: every part is
made here from the others, and tests make it the same way.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from litestar import Litestar, Router
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from tenantry.adapters.manifest import BaseSpec, Limits
from tenantry.adapters.store import LocalStore
from tenantry.platform.admin import routes as console
from tenantry.platform.admin import static, team_routes, views
from tenantry.platform.admin.browser import BrowserSessions
from tenantry.platform.admin.console import Books, Console
from tenantry.platform.admin.live import Watchers
from tenantry.platform.core.database import Database
from tenantry.platform.core.policy import PUBLIC, under
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.core.settings import Settings
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.fleet.views import on_device
from tenantry.platform.gateway import engines, envelope, health, idempotency, speculation
from tenantry.platform.gateway import routes as inference
from tenantry.platform.gateway.chat import ChatService, Serving
from tenantry.platform.gateway.edge import Edge
from tenantry.platform.gateway.engine_metrics import EngineMetrics
from tenantry.platform.gateway.guard import guard, principal_of
from tenantry.platform.gateway.request import StrictRequest
from tenantry.platform.gateway.runs import Runs
from tenantry.platform.metering import routes as metering
from tenantry.platform.metering.admission import Admission
from tenantry.platform.metering.closing import Closer
from tenantry.platform.metering.epochs import Epoch
from tenantry.platform.metering.journal import Journal
from tenantry.platform.metering.prices import ensure_price
from tenantry.platform.metering.reaper import Reaper
from tenantry.platform.metering.settlement import Settler
from tenantry.platform.registry import routes as registry_routes
from tenantry.platform.registry.intake import Intake, Places, reject_stale
from tenantry.platform.registry.models import BaseModel
from tenantry.platform.registry.purge import Purger
from tenantry.platform.registry.residency import Holdings
from tenantry.platform.registry.service import Allowance, Drop, Registry
from tenantry.platform.sessions import conversation_routes, response_routes, session_routes
from tenantry.platform.sessions.departure import Departure
from tenantry.platform.sessions.kv import SessionKv
from tenantry.platform.sessions.prewarm import Prewarmer
from tenantry.platform.sessions.service import Lifetime, Sessions
from tenantry.platform.sessions.sweep import Sweeper
from tenantry.platform.sessions.turns import Turns
from tenantry.platform.tenants import routes as tenants
from tenantry.platform.tenants.auth import Authenticator

log = structlog.get_logger("gateway")

SETTLE_GRACE_S = 5.0
RECONCILE_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What create_app is given: everything that lives outside of this process, or was decided before it."""

    settings: Settings
    database: Database
    peppers: Peppers
    base: BaseModel
    spec: BaseSpec
    serving: Serving
    drop: Drop
    allowance: Allowance | None = None


class Gateway:
    """The parts of one gateway's life, and their order of start and stop."""

    def __init__(self, parts: Parts) -> None:
        settings, database = parts.settings, parts.database
        self.parts = parts
        self.telemetry = Telemetry.create()
        self.telemetry.registry.register(EngineMetrics(parts.serving.engine))
        self.authenticator = Authenticator(database, parts.peppers, settings.environment, settings.auth_ttl)
        self.browser = BrowserSessions(database, parts.peppers, settings.environment, settings.auth_ttl)
        self.epoch = Epoch(database)
        self.settler = Settler(database, self.telemetry)
        self.admission = Admission(database, self.epoch, self.settler, self.telemetry)
        self.registry = Registry(
            database, parts.base, parts.drop, parts.serving.engine.drop_namespace, parts.allowance
        )
        places = Places(settings.data_dir / "quarantine", settings.blob_dir)
        self.intake = Intake(self.registry, places, parts.spec, Limits(max_bytes=settings.max_adapter_bytes))
        self.runs = Runs(self.settler, self.telemetry)
        self.chat = ChatService(
            parts.serving, self.registry, self.admission, self.runs, self.telemetry, keep_s=settings.session_keep
        )
        kv = SessionKv(parts.serving.engine)
        lifetime = Lifetime(settings.session_retention, settings.session_keep)
        self.sessions = Sessions(database, lifetime, kv)
        token_bytes = parts.serving.text.token_bytes
        self.turns = Turns(self.sessions, self.registry, self.chat, self.runs, token_bytes)
        self.prewarmer = Prewarmer(self.sessions, self.registry, self.chat)
        self._sweeper = Sweeper(database, kv)
        self._purger = Purger(database, LocalStore(settings.blob_dir))
        self.departure = Departure(database, self.registry, parts.serving.engine)
        self.health = health.Health(database, self.epoch, parts.serving.engine, self.runs)
        self._reaper = Reaper(database, Journal(settings.journal_dir), self.telemetry)
        self._closer = Closer(database)
        self.app: Litestar  # set by create_app, which needs the gateway's parts first
        self.books = Books()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        settings = self.parts.settings
        async with self.parts.database.operator() as connection:
            await ensure_price(
                connection, self.parts.base.id, settings.price_prompt_nano, settings.price_cached_nano,
                settings.price_completion_nano, settings.price_rejected_nano,
            )  # fmt: skip
        self.intake.sweep()
        await reject_stale(self.parts.database)
        self.settler.start()
        await self.epoch.start()
        forever = (
            self._reaper.run, self._sweeper.run, self._purger.run, self._closer.run, self._reconcile_forever,
        )  # fmt: skip
        self._tasks = [asyncio.create_task(work()) for work in forever]

    async def drain(self) -> None:
        """Stop admitting (readiness says so), let streams end, write every settlement. Idempotent."""
        if self.runs.draining:
            return
        log.info("draining", open=self.runs.open)
        whole = await self.runs.drain(self.parts.settings.drain_timeout)
        settled = await self.settler.drain(SETTLE_GRACE_S)
        log.info("drained", all_finished=whole, all_settled=settled)

    async def stop(self) -> None:
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.settler.stop()
        await self.epoch.stop()
        self.chat.close()

    async def _reconcile_forever(self) -> None:
        while True:
            try:
                self.books.note(await self._reaper.reconcile())
            except Exception as error:  # an alarm that cannot be computed must not end the gateway
                log.error("reconcile_failed", error=str(error))
            await asyncio.sleep(RECONCILE_EVERY_S)


def create_app(parts: Parts) -> tuple[Edge, Gateway]:
    """The ASGI application, and the gateway behind it (whose drain() a supervisor calls on SIGTERM)."""
    gateway = Gateway(parts)

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.stop()

    app = Litestar(
        route_handlers=[
            health.live, health.ready, health.metrics, inference.router, tenants.router, registry_routes.router,
            metering.router, speculation.router, conversation_routes.router, response_routes.router,
            session_routes.router, engines.router, console.router, views.router, team_routes.router, static.router,
            static.lead,
        ],
        lifespan=[lifespan],
        dependencies=_dependencies(gateway),
        middleware=[
            guard(gateway.authenticator, gateway.browser, console.COOKIE),
            idempotency.idempotent(idempotency.IdempotencyStore(parts.database)),
        ],
        request_class=StrictRequest,
        request_max_body_size=parts.settings.max_body_bytes,
        exception_handlers={Exception: envelope.handle},
        openapi_config=OpenAPIConfig(
            title="Tenantry", version="1", path="/schema", render_plugins=[JsonRenderPlugin()],
            openapi_router=Router("/schema", route_handlers=[], opt=under(PUBLIC)),
        ),
        on_app_init=[_quiet],
    )  # fmt: skip
    gateway.app = app
    return Edge(app, gateway.telemetry), gateway


def _dependencies(gateway: Gateway) -> Mapping[str, Provide]:
    """Handler arguments by name; each is one object for the life of the process, but the principal."""
    parts = gateway.parts
    singletons: dict[str, Any] = {
        "database": parts.database,
        "settings": parts.settings,
        "peppers": parts.peppers,
        "registry": gateway.registry,
        "intake": gateway.intake,
        "chat": gateway.chat,
        "sessions": gateway.sessions,
        "turns": gateway.turns,
        "prewarmer": gateway.prewarmer,
        "departure": gateway.departure,
        "health": gateway.health,
        "telemetry": gateway.telemetry,
        "runs": gateway.runs,
        "epoch": gateway.epoch,
        "authenticator": gateway.authenticator,
        "browser": gateway.browser,
        "console": Console(parts.database, parts.serving.engine, gateway.runs.recent, gateway.books),
        "holdings": Holdings(lambda: on_device(one.adapters for one in parts.serving.engine.reports())),
        "share_names": engines.ShareNames(parts.database),
        "watchers": Watchers(lambda: gateway.runs.draining),
    }
    provided = {name: Provide(_always(value), sync_to_thread=False) for name, value in singletons.items()}
    return {**provided, "principal": Provide(principal_of)}


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


def _quiet(config: AppConfig) -> AppConfig:
    """structlog is configured by the process; litestar must not install loggers of its own."""
    config.logging_config = None
    return config
