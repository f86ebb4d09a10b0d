"""One life of a gateway: a row with a heartbeat. While it beats, the requests it admitted are its own to settle.

Owns the fence: a gateway whose heartbeat fails stops admitting (here after FENCE_S, in SQL after 5 s) before the
reaper may take its requests (after DEAD_S).
"""

import asyncio
import socket
from collections.abc import Callable
from logging import ERROR, WARNING
from time import monotonic
from typing import Final
from uuid import UUID

import structlog

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import DatabaseUnavailable

BEAT_S: Final = 1.0
FENCE_S: Final = 4.0
DEAD_S: Final = 10.0
log = structlog.get_logger(__name__)


class Epoch:
    """Start it before serving, stop it after the last settlement."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self.id: UUID = ids.uuid7()
        self._database = database
        self._clock = clock
        self._seen = -float("inf")
        self._task: asyncio.Task[None] | None = None

    @property
    def fenced(self) -> bool:
        """True until the first heartbeat, and whenever the last one is too old to admit anything."""
        return self._clock() - self._seen > FENCE_S

    async def start(self) -> None:
        """Writes the row, then beats in the background. Raises DatabaseUnavailable."""
        await self.beat()
        self._task = asyncio.create_task(self._run())

    async def beat(self) -> None:
        """One heartbeat. The time before asking counts, so a slow answer fences sooner, never later."""
        asked = self._clock()
        async with self._database.operator() as connection:
            await beat(connection, self.id)
        self._seen = asked

    async def stop(self) -> None:
        """Ends this life at once: whatever it left open may be reaped without waiting."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._seen = -float("inf")
        async with self._database.operator() as connection:
            await connection.execute("DELETE FROM node WHERE epoch = $1", self.id)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.beat()
            except Exception as error:  # an outage, or a bug: the fence falls by itself, the beat goes on
                known = isinstance(error, DatabaseUnavailable)
                log.log(WARNING if known else ERROR, "heartbeat failed", fenced=self.fenced, exc_info=not known)


async def beat(connection: Connection, epoch: UUID) -> None:
    """As the operator. The time is the database's."""
    await connection.execute(
        "INSERT INTO node (epoch, host) VALUES ($1, $2) "
        "ON CONFLICT (epoch) DO UPDATE SET seen_at = clock_timestamp()",
        epoch,
        socket.gethostname()[:255],
    )
