"""Idempotency-Key: the same POST sent twice is done once, and the second gets the first one's answer.

Owns the `idempotency` table: a row claims the key before the handler runs, and keeps the answer afterwards. Answers
of 5xx and streams are not kept, so they may be tried again. It must not know what a handler does.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Send

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import Conflict, InvalidInput, Unavailable
from tenantry.platform.core.policy import Access
from tenantry.platform.gateway.guard import policy_of
from tenantry.platform.gateway.request import StrictRequest

log = structlog.get_logger("gateway")

MAX_KEY = 255
MAX_KEPT_BYTES = 4 << 20
_DELETE_EXPIRED = """
DELETE FROM idempotency WHERE (tenant_id, key) IN
  (SELECT tenant_id, key FROM idempotency WHERE expires_at <= now() LIMIT $1) RETURNING 1
"""
_KEPT_HEADERS = ("content-type", "location", "etag", "x-tenantry-adapter-version", "x-tenantry-adapter-digest")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer given before."""

    status: int
    headers: dict[str, str]
    body: bytes


class IdempotencyStore:
    """One row per (tenant, key), for 24 hours."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, tenant_id: UUID, key: str, request_hash: bytes) -> Kept | None:
        """None when the caller is the first, who must keep() or release(). Raises Conflict."""
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(
                "DELETE FROM idempotency WHERE tenant_id = $1 AND key = $2 AND expires_at < now()", tenant_id, key
            )
            first = await connection.fetchval(
                """INSERT INTO idempotency (tenant_id, key, request_hash) VALUES ($1, $2, $3)
                ON CONFLICT DO NOTHING RETURNING true""",
                tenant_id, key, request_hash,
            )  # fmt: skip
            if first:
                return None
            row = await connection.fetchrow(
                """SELECT request_hash, state, status, headers, body FROM idempotency
                WHERE tenant_id = $1 AND key = $2""",
                tenant_id, key,
            )  # fmt: skip
        if row is None or (row["request_hash"] == request_hash and row["state"] == "running"):
            raise Conflict(
                "The first request with this Idempotency-Key is still running.",
                code="idempotency_in_progress", param="Idempotency-Key", headers={"retry-after": "1"},
            )  # fmt: skip
        if row["request_hash"] != request_hash:
            raise Conflict(
                "This Idempotency-Key was used for another request.", code="idempotency_mismatch",
                param="Idempotency-Key",
            )  # fmt: skip
        return Kept(row["status"], row["headers"], row["body"])

    async def keep(self, tenant_id: UUID, key: str, kept: Kept) -> None:
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(
                """UPDATE idempotency SET state = 'done', status = $3, headers = $4, body = $5
                WHERE tenant_id = $1 AND key = $2""",
                tenant_id, key, kept.status, kept.headers, kept.body,
            )  # fmt: skip

    async def release(self, tenant_id: UUID, key: str) -> None:
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(
                "DELETE FROM idempotency WHERE tenant_id = $1 AND key = $2 AND state = 'running'", tenant_id, key
            )


async def delete_expired(connection: Connection, limit: int) -> int:
    """Answers whose time is up, of every tenant: they may hold what a client said. As the operator. At most `limit`;
    how many."""
    return len(await connection.fetch(_DELETE_EXPIRED, limit))


def idempotent(store: IdempotencyStore) -> Callable[[ASGIApp], ASGIApp]:
    """litestar middleware, inside of the guard."""

    def wrap(app: ASGIApp) -> ASGIApp:
        async def once(scope: Any, receive: Receive, send: Send) -> None:
            raw = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
            policy = policy_of(scope["route_handler"])
            if raw is None or scope["method"] != "POST" or policy is None or policy.access is Access.PUBLIC:
                await app(scope, receive, send)
                return
            key = _check_key(raw)
            if scope["route_handler"].opt.get("no_idempotency_key"):
                raise InvalidInput(
                    "Uploads are named by their content and take no Idempotency-Key.",
                    code="idempotency_unsupported", param="Idempotency-Key",
                )  # fmt: skip
            await _once(store, app, scope, receive, send, key)

        return once

    return wrap


async def _once(
    store: IdempotencyStore, app: ASGIApp, scope: HTTPScope, receive: Receive, send: Send, key: str
) -> None:
    tenant_id = scope["user"].tenant_id
    request = StrictRequest(scope, receive, send)
    body = await request.body()  # litestar keeps it for the handler's own request
    request_hash = hashlib.sha256(b"\0".join([scope["method"].encode(), scope["path"].encode(), body])).digest()
    kept = await store.claim(tenant_id, key, request_hash)
    if kept is not None:
        await _replay(kept, send)
        return
    answer = _Answer(send)
    try:
        await app(scope, receive, answer.send)
    finally:
        to_keep = None if scope["route_handler"].opt.get("never_kept") else answer.kept
        try:
            if to_keep is None:
                await store.release(tenant_id, key)
            else:
                await store.keep(tenant_id, key, to_keep)
        except Unavailable as error:
            log.warning("idempotency_not_recorded", error=error.message)
    await answer.deliver()


class _Answer:
    """Holds an answer back until it is recorded, so that a retry after hearing it finds it. Streams pass through."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[Message] = []
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._streamed = self._complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            found = {name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]}
            self._headers = {name: found[name] for name in _KEPT_HEADERS if name in found}
            self._streamed = found.get("content-type", "").startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            if not self._streamed:
                self._body += message.get("body", b"")
            self._complete = not message.get("more_body", False)
        if self._streamed:
            await self._send(message)
        else:
            self._held.append(message)

    @property
    def kept(self) -> Kept | None:
        """None for what a retry should try again: streams, our own failures, and limits."""
        if not self._complete or self._streamed or self._status >= 500 or self._status in (408, 429):
            return None
        return Kept(self._status, self._headers, bytes(self._body)) if len(self._body) <= MAX_KEPT_BYTES else None

    async def deliver(self) -> None:
        for message in self._held:
            await self._send(message)


async def _replay(kept: Kept, send: Send) -> None:
    headers: list[Any] = [(name.encode(), value.encode("latin-1")) for name, value in kept.headers.items()]
    headers += [(b"content-length", str(len(kept.body)).encode()), (b"x-tenantry-replayed", b"true")]
    await send({"type": "http.response.start", "status": kept.status, "headers": headers})
    await send({"type": "http.response.body", "body": kept.body, "more_body": False})


def _check_key(raw: bytes) -> str:
    if not 1 <= len(raw) <= MAX_KEY or not all(0x21 <= byte <= 0x7E for byte in raw):
        raise InvalidInput(f"Idempotency-Key holds 1 to {MAX_KEY} visible ASCII characters.", param="Idempotency-Key")
    return raw.decode("ascii")
