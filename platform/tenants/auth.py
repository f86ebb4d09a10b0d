"""From an Authorization header to a Principal. Refuses before any query what cannot be a key of ours.

Owns the only cache of key rows: at most `ttl` (1 s, under 2 s) old, misses included, bounded. One 401 for all
reasons; a database that does not answer is a 503, never a 401.
"""

import asyncio
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from cachetools import TTLCache

from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import Unauthenticated
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.tenants import keys
from tenantry.platform.tenants.principal import Principal

MAX_HEADER: Final = 256
CACHED_KEYS: Final = 16_384
_BEARER: Final = re.compile(r"bearer +([!-~]+)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Row:
    principal: Principal
    pepper_id: int
    mac: bytes
    live: bool
    note_use: bool


class Authenticator:
    """environment: the only kind of key accepted here. clock: seconds, monotonic."""

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        environment: str = "live",
        ttl: float = 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._environment = environment
        self._rows: TTLCache[str, _Row | None] = TTLCache(CACHED_KEYS, ttl, clock)
        self._lookups: dict[str, asyncio.Task[_Row | None]] = {}
        self.queries = 0

    async def authenticate(self, header: str | None) -> Principal:
        """Raises Unauthenticated, or DatabaseUnavailable."""
        presented = self._present(header)
        if presented is None or presented.env != self._environment:
            raise Unauthenticated
        row = await self._row(presented.public_id)
        pepper = self._peppers.by_version.get(row.pepper_id) if row else None
        if row is None or pepper is None:
            raise Unauthenticated
        proven = hmac.compare_digest(keys.digest(presented.text, pepper), row.mac)
        if not proven or not row.live or row.principal.env != presented.env:
            raise Unauthenticated
        if row.note_use:
            await self._note_use(presented.public_id, row)
        return row.principal

    @staticmethod
    def _present(header: str | None) -> keys.PresentedKey | None:
        if header is None or len(header) > MAX_HEADER:
            return None
        match = _BEARER.fullmatch(header)
        return keys.parse(match[1]) if match else None

    async def _row(self, public_id: str) -> _Row | None:
        try:
            return self._rows[public_id]
        except KeyError:
            pass
        task = self._lookups.get(public_id)
        if task is None:  # one lookup for all who wait, owned by none of them, so that no cancelled caller breaks it
            task = asyncio.create_task(self._look_up(public_id))
            self._lookups[public_id] = task
            task.add_done_callback(lambda done: self._looked_up(public_id, done))
        return await asyncio.shield(task)

    def _looked_up(self, public_id: str, task: asyncio.Task[_Row | None]) -> None:
        del self._lookups[public_id]
        if not task.cancelled():
            task.exception()  # whoever still waits hears it; when all have gone away, nobody needs to

    async def _look_up(self, public_id: str) -> _Row | None:
        self.queries += 1
        started = self._rows.timer()
        async with self._database.autocommit() as connection:
            found = await connection.fetchrow("SELECT * FROM auth_lookup($1)", public_id)
        row = None
        if found is not None:
            principal = Principal(
                found["tenant_id"],
                found["tenant_name"],
                found["id"],
                public_id,
                found["env"],
                frozenset(found["scopes"]),
            )
            row = _Row(principal, found["pepper_id"], found["mac"], found["live"], found["unused_for_a_minute"])
        if self._rows.timer() - started < self._rows.ttl:  # a slow answer may be old already
            self._rows[public_id] = row
        return row

    async def _note_use(self, public_id: str, row: _Row) -> None:
        """Once a minute per key, so that people can see which keys are idle."""
        self._rows[public_id] = _Row(row.principal, row.pepper_id, row.mac, row.live, False)
        async with self._database.operator() as connection:  # a tenant's transaction may not touch operator keys
            await connection.execute(
                "UPDATE api_key SET last_used_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2",
                row.principal.tenant_id,
                row.principal.key_id,
            )
