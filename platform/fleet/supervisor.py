"""Keeps one engine and one gateway alive: starts, watches, restarts with back-off, stops in order.

Owns the children of `tenantry serve`. It must not know requests, tenants or SQL: an engine is judged by its
answers to pings alone, a gateway by its exit.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from tenantry.platform.fleet.process import Child
from tenantry.platform.fleet.watchdog import Backoff, Verdict, Watchdog
from tenantry.runtime.messages import Pong

log = structlog.get_logger("fleet")

Spawn = Callable[[], Awaitable[Child]]
Ping = Callable[[], Awaitable[Pong | None]]


@dataclass(slots=True)
class Supervisor:
    """One kind of child. `ping` is None for a child that is judged by its exit alone.

    grace: seconds that a stop may take. period: seconds between pings.
    """

    name: str
    spawn: Spawn
    ping: Ping | None = None
    grace: float = 30.0
    period: float = 1.0
    watchdog: Watchdog = field(default_factory=Watchdog)
    backoff: Backoff = field(default_factory=Backoff)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    restarts: int = 0
    _child: Child | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.running else None

    async def run(self) -> None:
        """Until stop() is called: a child is up, or about to be."""
        while not self._stopping.is_set():
            born = time.monotonic()
            self._child = await self.spawn()
            self.watchdog.spawned(born)
            log.info("child_started", child=self.name, pid=self._child.pid)
            status = await self._watch(self._child)
            self.ready.clear()
            if self._stopping.is_set():
                return
            self.restarts += 1
            delay = self.backoff.died(time.monotonic() - born)
            log.warning("child_died", child=self.name, status=status, restart_in_s=delay)
            await self._pause(delay)

    async def stop(self) -> None:
        """Drain the child and end it. Idempotent."""
        self._stopping.set()
        if self._child is not None and self._child.running:
            status = await self._child.stop(self.grace)
            log.info("child_stopped", child=self.name, status=status)

    async def kill(self) -> None:
        """End the child at once."""
        self._stopping.set()
        if self._child is not None and self._child.running:
            await self._child.kill()

    async def _watch(self, child: Child) -> int:
        exit_ = asyncio.create_task(child.wait())
        if self.ping is None:
            self.ready.set()
            return await exit_
        while not exit_.done():
            pong = await self.ping()
            now = time.monotonic()
            if pong is not None:
                self.watchdog.heard(pong, now)
            match self.watchdog.verdict(now):
                case Verdict.HEALTHY:
                    self.ready.set()
                case Verdict.SILENT | Verdict.HUNG as verdict:
                    log.error("child_given_up", child=self.name, verdict=verdict.value)
                    await child.kill()
                case Verdict.STARTING:
                    pass
            await asyncio.wait([exit_], timeout=self.period)
        return exit_.result()

    async def _pause(self, delay: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), delay)
        except TimeoutError:
            return
