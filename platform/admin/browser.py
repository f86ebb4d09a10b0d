"""Sessions of people at the console: opened with a key or a one-time link, carried by a cookie, ended by sign-out.

A session stands for one API key and gives the same Principal, so it can never do more, and it ends when the key is
revoked or its tenant suspended. Owns browser_session and sign_in_link; must not know HTTP.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final
from uuid import UUID

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import PermissionDenied, Unauthenticated
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.tenants import service as keys
from tenantry.platform.tenants.acts import Act, record
from tenantry.platform.tenants.principal import Principal
from tenantry.platform.tenants.proofs import Proof, Proofs

SESSION_LIFE: Final = timedelta(hours=12)
LINK_LIFE: Final = timedelta(minutes=15)
INVITATION_LIFE: Final = timedelta(days=1)
CACHED_SESSIONS: Final = 4096
_TOKEN: Final = re.compile(r"([0-9a-f]{32})\.[0-9A-Za-z_-]{43}", re.ASCII)
_WHO: Final = """
SELECT x.tenant_id, x.pepper_id, x.mac, t.name AS tenant_name, k.id AS key_id, k.key_id AS public_id,
       k.env, k.scopes, {live} AND t.status = 'active' AND k.revoked_at IS NULL
         AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) AS live
FROM {table} x JOIN api_key k ON k.tenant_id = x.tenant_id AND k.id = x.key_id JOIN tenant t ON t.id = x.tenant_id
WHERE x.id = $1
"""
_SESSION: Final = _WHO.format(
    table="browser_session", live="x.revoked_at IS NULL AND x.expires_at > clock_timestamp()"
)
_LINK: Final = _WHO.format(table="sign_in_link", live="x.used_at IS NULL AND x.expires_at > clock_timestamp()")


@dataclass(frozen=True, slots=True)
class Issued:
    """token: the cookie's value, or the link's secret; the only copy there is."""

    token: str = field(repr=False)
    expires_at: datetime


class BrowserSessions:
    """environment: the only kind of key whose sessions are good here. ttl: seconds that a look-up is believed."""

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
        self._proofs: Proofs[UUID] = Proofs(self._look_up, CACHED_SESSIONS, ttl, clock)

    async def open(self, principal: Principal) -> Issued:
        """A new session of this key. Sessions of the tenant that ended a day ago are forgotten on the way."""
        async with self._database.operator() as connection:
            await connection.execute(
                "DELETE FROM browser_session WHERE tenant_id = $1 AND expires_at < now() - interval '1 day'",
                principal.tenant_id,
            )
            issued = await self._insert(
                connection, "browser_session", principal.tenant_id, principal.key_id, SESSION_LIFE
            )
            key = await keys.get_key(connection, principal.tenant_id, principal.key_id)
            await record(connection, principal.tenant_id, principal, Act("signed_in", key.name))
        return issued

    async def authenticate(self, token: str, csrf: str | None, *, changes: bool) -> Principal:
        """Raises Unauthenticated, or PermissionDenied for a change that does not prove to come from our own page."""
        row = await self._proven(token)
        if changes and not (csrf is not None and hmac.compare_digest(csrf.encode(), self.csrf(token).encode())):
            raise PermissionDenied("The X-CSRF-Token header is missing or stale.", code="csrf_token_invalid")
        return row.principal

    async def expires_at(self, token: str) -> datetime:
        async with self._database.operator() as connection:
            found = await connection.fetchval("SELECT expires_at FROM browser_session WHERE id = $1", _id_of(token))
        if not isinstance(found, datetime):
            raise Unauthenticated
        return found

    async def close(self, token: str) -> None:
        """For good. Other gateways hear of it within the ttl."""
        token_id = _id_of(token)
        async with self._database.operator() as connection:
            await connection.execute(
                "UPDATE browser_session SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = $1",
                token_id,
            )
        self._proofs.forget(token_id)

    def csrf(self, token: str) -> str:
        """What our page must send with every change. Follows from the session, so nothing more is stored."""
        pepper = self._peppers.by_version[self._peppers.current]
        return hmac.digest(pepper, b"csrf." + token.encode(), hashlib.sha256).hex()

    async def make_link(self, tenant_id: UUID, key_id: UUID, life: timedelta = LINK_LIFE) -> Issued:
        """A secret that opens one session of this key, once, within `life`."""
        async with self._database.operator() as connection:
            await connection.execute(
                "DELETE FROM sign_in_link WHERE tenant_id = $1 AND expires_at < now() - interval '1 day'",
                tenant_id,
            )
            return await self._insert(connection, "sign_in_link", tenant_id, key_id, life)

    async def take_link(self, token: str) -> Principal:
        """Whose link it was; it is used up now. Raises Unauthenticated, also for the second of two at once."""
        token_id = _id_of(token)
        async with self._database.operator() as connection:
            row = _proof(await connection.fetchrow(_LINK, token_id))
            if row is None or not self._is_good(row, token):
                raise Unauthenticated
            taken = await connection.fetchval(
                "UPDATE sign_in_link SET used_at = now() WHERE id = $1 AND used_at IS NULL RETURNING true",
                token_id,
            )
        if not taken:
            raise Unauthenticated
        return row.principal

    async def _insert(
        self, connection: Connection, table: str, tenant_id: UUID, key_id: UUID, life: timedelta
    ) -> Issued:
        token_id = ids.uuid7()
        token = f"{token_id.hex}.{secrets.token_urlsafe(32)}"
        mac = _digest(token, self._peppers.by_version[self._peppers.current])
        expires_at = await connection.fetchval(
            f"INSERT INTO {table} (tenant_id, id, key_id, pepper_id, mac, expires_at) "  # noqa: S608 - two literals
            "VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6) RETURNING expires_at",
            tenant_id, token_id, key_id, self._peppers.current, mac, life,
        )  # fmt: skip
        return Issued(token, expires_at)

    async def _proven(self, token: str) -> Proof:
        row = await self._proofs.get(_id_of(token))
        if row is None or not self._is_good(row, token):
            raise Unauthenticated
        return row

    async def _look_up(self, token_id: UUID) -> Proof | None:
        async with self._database.operator() as connection:
            return _proof(await connection.fetchrow(_SESSION, token_id))

    def _is_good(self, row: Proof, token: str) -> bool:
        pepper = self._peppers.by_version.get(row.pepper_id)
        if pepper is None or not row.live or row.principal.env != self._environment:
            return False
        return hmac.compare_digest(_digest(token, pepper), row.mac)


def _proof(found: Any) -> Proof | None:
    if found is None:
        return None
    principal = Principal(
        found["tenant_id"], found["tenant_name"], found["key_id"], found["public_id"], found["env"],
        frozenset(found["scopes"]),
    )  # fmt: skip
    return Proof(principal, found["pepper_id"], found["mac"], found["live"])


def _id_of(token: str) -> UUID:
    """Refuses before any query what cannot be a token of ours."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise Unauthenticated
    return UUID(hex=match[1])


def _digest(token: str, pepper: bytes) -> bytes:
    return hmac.digest(pepper, b"session." + token.encode("ascii"), hashlib.sha256)
