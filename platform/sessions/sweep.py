"""Retention: sessions whose time is up lose their content, in the background, and so do answers that were kept for
retries; what they cost stays in the books.

Owns the loop. An expired session is not there for anybody from that moment on, whether it was swept or not.
"""

from typing import Final
from uuid import UUID

import structlog

from tenantry.platform.core.database import Database
from tenantry.platform.core.rounds import go_round
from tenantry.platform.gateway import idempotency
from tenantry.platform.sessions.kv import SessionKv
from tenantry.platform.sessions.repository import delete_expired

EVERY_S: Final = 60.0
BATCH: Final = 500
log = structlog.get_logger(__name__)


class Sweeper:
    """Several may run at once: each takes rows that no other holds."""

    def __init__(self, database: Database, kv: SessionKv) -> None:
        self._database = database
        self._kv = kv

    async def run(self) -> None:
        """Forever; an outage only delays it."""
        await go_round(self.sweep, EVERY_S, log, "sweeping will be retried")

    async def sweep(self) -> list[tuple[UUID, UUID]]:
        """(tenant, session) of everything that was expired by now."""
        swept: list[tuple[UUID, UUID]] = []
        while True:
            async with self._database.operator() as connection:
                batch = await delete_expired(connection, BATCH)
            for tenant_id, session_id in batch:
                self._kv.forget(tenant_id, session_id)
            swept += batch
            if len(batch) < BATCH:
                break
        more = True
        while more:
            async with self._database.operator() as connection:
                more = await idempotency.delete_expired(connection, BATCH) == BATCH
        if swept:
            log.info("swept expired sessions", count=len(swept))
        return swept
