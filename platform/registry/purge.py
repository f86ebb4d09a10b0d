"""Bytes of adapters that nobody answers with any more: removed from the store after their last request.

Owns the loop and the one question it asks. A version leaves the tables never, only its bytes do; the same bytes
uploaded again are written again. It must not know engines: those read a blob when they load it, and hold what runs.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from tenantry.adapters.errors import BlobMissing
from tenantry.adapters.store import LocalStore
from tenantry.platform.core.database import Database
from tenantry.platform.core.rounds import go_round

EVERY_S: Final = 60.0
GRACE_S: Final = 1800.0  # an upload has written its blob so long, at most, before its version is ready
log = structlog.get_logger("registry")


class Purger:
    """Several may run over one store. clock: as time.time."""

    def __init__(self, database: Database, store: LocalStore, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Forever; an outage only delays it."""
        await go_round(self.purge, EVERY_S, log, "purging will be retried")

    async def purge(self) -> list[bytes]:
        """Digests whose bytes are gone now: retired, in no open request, and not written lately."""
        before = self._clock() - GRACE_S
        found = await asyncio.to_thread(self._store.digests)
        async with self._database.operator() as connection:
            rows = await connection.fetch(
                """SELECT DISTINCT digest FROM adapter_version v WHERE digest = ANY ($1) AND (state = 'ready'
                OR EXISTS (SELECT FROM request r WHERE r.tenant_id = v.tenant_id AND r.adapter_version_id = v.id
                AND r.state = 'admitted'))""",
                found,
            )
        used = {row["digest"] for row in rows}
        unused = [digest for digest in found if digest not in used]
        gone = [digest for digest in unused if await asyncio.to_thread(self._gone, digest, before)]
        if gone:
            log.info("adapters_purged", count=len(gone))
        return gone

    def _gone(self, digest: bytes, before: float) -> bool:
        try:
            return self._store.purge(digest, before)
        except BlobMissing:
            return False
