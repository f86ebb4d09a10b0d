"""From an Authorization header to a Principal. Refuses before any query what cannot be a key of ours.

Key rows are believed for `ttl` (1 s, under 2 s), see proofs.py. One 401 for all reasons; a database that does not
answer is a 503, never a 401.
"""

import hmac
import re
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Final

from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import Unauthenticated
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.tenants import keys
from tenantry.platform.tenants.principal import Principal
from tenantry.platform.tenants.proofs import Proof, Proofs

MAX_HEADER: Final = 256
CACHED_KEYS: Final = 16_384
_BEARER: Final = re.compile(r"bearer +([!-~]+)", re.ASCII | re.IGNORECASE)


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
        self._proofs: Proofs[str] = Proofs(self._look_up, CACHED_KEYS, ttl, clock)

    @property
    def queries(self) -> int:
        return self._proofs.queries

    async def authenticate(self, header: str | None) -> Principal:
        """Raises Unauthenticated, or DatabaseUnavailable."""
        presented = self._present(header)
        if presented is None or presented.env != self._environment:
            raise Unauthenticated
        row = await self._proofs.get(presented.public_id)
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

    async def _look_up(self, public_id: str) -> Proof | None:
        async with self._database.autocommit() as connection:
            found = await connection.fetchrow("SELECT * FROM auth_lookup($1)", public_id)
        if found is None:
            return None
        principal = Principal(
            found["tenant_id"],
            found["tenant_name"],
            found["id"],
            public_id,
            found["env"],
            frozenset(found["scopes"]),
        )
        return Proof(principal, found["pepper_id"], found["mac"], found["live"], found["unused_for_a_minute"])

    async def _note_use(self, public_id: str, row: Proof) -> None:
        """Once a minute per key, so that people can see which keys are idle."""
        self._proofs.put(public_id, replace(row, note_use=False))
        async with self._database.operator() as connection:  # a tenant's transaction may not touch operator keys
            await connection.execute(
                "UPDATE api_key SET last_used_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2",
                row.principal.tenant_id,
                row.principal.key_id,
            )
