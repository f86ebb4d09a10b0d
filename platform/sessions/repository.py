"""The statements over session, session_item and response. Each names the tenant itself, on top of row-level security.

Owns SQL, and what counts as there: neither deleted nor expired. It must not know HTTP, engines or money; what a turn
cost is read from the usage event that was written in the same transaction.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.sessions.models import Counts, Item, Kind, Policy, Response, Session, Totals, Version

Order = Literal["asc", "desc"]
MAX_CHAIN = 1024

_SESSION = """
SELECT s.*, coalesce(r.state = 'admitted', false) AS busy, v.id AS version_id, a.name AS adapter, v.number, v.digest
FROM session s
LEFT JOIN request r ON r.tenant_id = s.tenant_id AND r.id = s.turn_id
LEFT JOIN adapter_version v ON v.tenant_id = s.tenant_id AND v.id = s.adapter_version_id
LEFT JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id
WHERE s.tenant_id = $1 AND s.expires_at > now()
"""
_RESPONSE = """
SELECT p.*, e.prompt, e.cached, e.completion, e.nano, e.adapter_id, v.id AS version_id, a.name AS adapter, v.number,
  v.digest FROM response p
JOIN session s ON s.tenant_id = p.tenant_id AND s.id = p.session_id AND s.expires_at > now()
JOIN usage_event e ON e.tenant_id = p.tenant_id AND e.request_id = p.id
LEFT JOIN adapter_version v ON v.tenant_id = e.tenant_id AND v.id = e.adapter_version_id
LEFT JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id
WHERE p.tenant_id = $1 AND p.deleted_at IS NULL
"""
# From a response back to the first: its own line of the tree. Depth counts from the end.
_CHAIN = """
WITH RECURSIVE chain AS (
  SELECT p.id, p.previous_id, p.session_id, p.first_seq, p.deleted_at, 0 AS depth FROM response p
    WHERE p.tenant_id = $1 AND p.id = $2
  UNION ALL
  SELECT p.id, p.previous_id, p.session_id, p.first_seq, p.deleted_at, c.depth + 1 FROM chain c
    JOIN response p ON p.tenant_id = $1 AND p.id = c.previous_id WHERE c.depth < $3)
SELECT c.* FROM chain c JOIN session s ON s.tenant_id = $1 AND s.id = c.session_id AND s.expires_at > now()
ORDER BY c.depth DESC
"""


def _both(statement: str) -> dict[Order, str]:
    """A statement for either direction."""
    return {"asc": statement.format(beyond=">", order="asc"), "desc": statement.format(beyond="<", order="desc")}


_LISTED = _both("""
SELECT * FROM session_item WHERE tenant_id = $1 AND session_id = $2 AND listed AND ($3::uuid IS NULL OR seq {beyond}
  (SELECT x.seq FROM session_item x WHERE x.tenant_id = $1 AND x.session_id = $2 AND x.id = $3))
AND ($5::bigint IS NULL OR seq < $5) ORDER BY seq {order} LIMIT $4
""")
_ITEMS_OF = _both("""
SELECT * FROM session_item WHERE tenant_id = $1 AND response_id = ANY ($2) AND ($3::boolean IS NULL OR output = $3)
AND ($5::uuid IS NULL OR seq {beyond}
  (SELECT x.seq FROM session_item x WHERE x.tenant_id = $1 AND x.response_id = ANY ($2) AND x.id = $5))
ORDER BY seq {order} LIMIT $4
""")
_RESPONSES = _both(
    _RESPONSE + "AND p.session_id = $2 AND ($3::uuid IS NULL OR p.id {beyond} $3) ORDER BY p.id {order} LIMIT $4"
)


class Repository:
    """One tenant's sessions, through one transaction."""

    def __init__(self, connection: Connection, tenant_id: UUID) -> None:
        self._c = connection
        self._tenant = tenant_id

    async def session(self, session_id: UUID, kind: Kind | None = None) -> Session | None:
        row = await self._c.fetchrow(
            f"{_SESSION} AND s.id = $2 AND ($3::text IS NULL OR s.kind = $3)", self._tenant, session_id, kind
        )
        return _session(row) if row else None

    async def sessions(
        self, after: UUID | None, limit: int, kind: Kind | None, model: str | None, pinned: bool | None
    ) -> list[Session]:
        """Newest first."""
        rows = await self._c.fetch(
            f"""{_SESSION} AND ($2::uuid IS NULL OR s.id < $2) AND ($4::text IS NULL OR s.kind = $4)
            AND ($5::text IS NULL OR s.model = $5) AND ($6::boolean IS NULL OR s.pinned = $6)
            ORDER BY s.id DESC LIMIT $3""",
            self._tenant, after, limit, kind, model, pinned,
        )  # fmt: skip
        return [_session(row) for row in rows]

    async def totals(self, session_ids: Iterable[UUID]) -> dict[UUID, Totals]:
        """Of those that had turns."""
        rows = await self._c.fetch(
            """SELECT p.session_id, count(*) AS turns, sum(e.prompt)::bigint AS prompt,
            sum(e.cached)::bigint AS cached, sum(e.completion)::bigint AS completion, sum(e.nano)::bigint AS nano,
            sum(p.cached_host)::bigint AS cached_host, sum(p.cached_disk)::bigint AS cached_disk
            FROM response p JOIN usage_event e ON e.tenant_id = p.tenant_id AND e.request_id = p.id
            WHERE p.tenant_id = $1 AND p.session_id = ANY ($2) AND p.deleted_at IS NULL GROUP BY 1""",
            self._tenant, list(session_ids),
        )  # fmt: skip
        names = Totals.__dataclass_fields__
        return {row["session_id"]: Totals(*(row[name] for name in names)) for row in rows}

    async def add_session(
        self, session_id: UUID, kind: Kind, policy: Policy, metadata: dict[str, str], keep_s: int, pinned: bool,
        retention_s: float,
    ) -> None:  # fmt: skip
        await self._c.execute(
            """INSERT INTO session (tenant_id, id, kind, policy, metadata, keep_s, pinned, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))""",
            self._tenant, session_id, kind, policy, _json(metadata), keep_s, pinned, retention_s,
        )  # fmt: skip

    async def change_session(
        self,
        session_id: UUID,
        metadata: dict[str, str] | None = None,
        policy: Policy | None = None,
        keep_s: int | None = None,
        pinned: bool | None = None,
    ) -> None:
        await self._c.execute(
            """UPDATE session SET metadata = coalesce($3::text::json, metadata), policy = coalesce($4, policy),
            keep_s = coalesce($5, keep_s), pinned = coalesce($6, pinned) WHERE tenant_id = $1 AND id = $2""",
            self._tenant, session_id, _json(metadata) if metadata is not None else None, policy, keep_s, pinned,
        )  # fmt: skip

    async def delete_session(self, session_id: UUID) -> None:
        """With its items and responses. Usage stays."""
        await self._c.execute("DELETE FROM session WHERE tenant_id = $1 AND id = $2", self._tenant, session_id)

    async def claim(self, session_id: UUID, revision: int, turn_id: UUID) -> bool:
        """Make it this request's turn, unless anything happened since `revision` was read.

        The turn ends when the request is settled, whoever settles it, so nobody has to give it back.
        """
        done = await self._c.fetchval(
            """UPDATE session SET turn_id = $4, revision = revision + 1
            WHERE tenant_id = $1 AND id = $2 AND revision = $3 RETURNING true""",
            self._tenant, session_id, revision, turn_id,
        )  # fmt: skip
        return bool(done)

    async def take_seqs(
        self, session_id: UUID, count: int, retention_s: float, revision: int | None = None
    ) -> int | None:
        """The first of `count` new places, or None when the session is gone or is not at `revision` any more.

        Puts its end off, and locks its row.
        """
        first = await self._c.fetchval(
            """UPDATE session SET next_seq = next_seq + $3, revision = revision + 1, last_at = now(),
            expires_at = now() + make_interval(secs => $4)
            WHERE tenant_id = $1 AND id = $2 AND expires_at > now() AND ($5::bigint IS NULL OR revision = $5)
            RETURNING next_seq - $3""",
            self._tenant, session_id, count, retention_s, revision,
        )  # fmt: skip
        return int(first) if first is not None else None

    async def settle_on(self, session_id: UUID, model: str, adapter_id: UUID | None, version_id: UUID | None) -> None:
        """Which weights the session answers with by now."""
        await self._c.execute(
            """UPDATE session SET model = $3, adapter_id = $4, adapter_version_id = $5
            WHERE tenant_id = $1 AND id = $2 AND (policy = 'follow' OR model IS NULL)""",
            self._tenant, session_id, model, adapter_id, version_id,
        )  # fmt: skip

    async def add_items(
        self, session_id: UUID, first: int, items: Sequence[Item], listed: bool, response_id: UUID | None = None
    ) -> None:
        await self._c.executemany(
            """INSERT INTO session_item (tenant_id, id, session_id, seq, listed, response_id, output, role, status,
            content) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
            [
                (self._tenant, item.id, session_id, first + i, listed, response_id, item.output, item.role,
                 item.status, _json(item.content))
                for i, item in enumerate(items)
            ],
        )  # fmt: skip

    async def item(self, session_id: UUID, item_id: UUID) -> Item | None:
        row = await self._c.fetchrow(
            "SELECT * FROM session_item WHERE tenant_id = $1 AND session_id = $2 AND id = $3 AND listed",
            self._tenant, session_id, item_id,
        )  # fmt: skip
        return _item(row) if row else None

    async def listed(
        self, session_id: UUID, limit: int | None = None, after: UUID | None = None, order: Order = "asc",
        before_seq: int | None = None,
    ) -> list[Item]:  # fmt: skip
        """A conversation's items, from `after` on; those before a seq only, if asked."""
        rows = await self._c.fetch(
            _LISTED[order], self._tenant, session_id, after, limit, before_seq,
        )  # fmt: skip
        return [_item(row) for row in rows]

    async def delete_item(self, session_id: UUID, item_id: UUID) -> None:
        """From the conversation, and from what its responses show."""
        await self._c.execute(
            "DELETE FROM session_item WHERE tenant_id = $1 AND session_id = $2 AND id = $3 AND listed",
            self._tenant, session_id, item_id,
        )  # fmt: skip

    async def response(self, response_id: UUID) -> Response | None:
        row = await self._c.fetchrow(f"{_RESPONSE} AND p.id = $2", self._tenant, response_id)
        return _response(row) if row else None

    async def responses(self, session_id: UUID, after: UUID | None, limit: int, order: Order) -> list[Response]:
        """The turns of a session."""
        rows = await self._c.fetch(_RESPONSES[order], self._tenant, session_id, after, limit)
        return [_response(row) for row in rows]

    async def add_response(self, response: Response) -> None:
        """What its usage event says is not written again."""
        r = response
        await self._c.execute(
            """INSERT INTO response (tenant_id, id, session_id, previous_id, first_seq, status, settings, created_at,
            completed_at, cached_host, cached_disk) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
            self._tenant, r.id, r.session_id, r.previous_id, r.first_seq, r.status, _json(r.settings), r.created_at,
            r.completed_at, r.counts.cached_host, r.counts.cached_disk,
        )  # fmt: skip

    async def items_of(
        self,
        response_ids: Iterable[UUID],
        output: bool | None = None,
        limit: int | None = None,
        after: UUID | None = None,
        order: Order = "asc",
    ) -> list[Item]:
        """Items that belong to responses, in order; only input or only output if asked."""
        rows = await self._c.fetch(
            _ITEMS_OF[order], self._tenant, list(response_ids), output, limit, after,
        )  # fmt: skip
        return [_item(row) for row in rows]

    async def history(self, response_id: UUID) -> tuple[UUID, list[Item]] | None:
        """(session, everything said up to the end of a response), or None when any of it is not there.

        Raises InvalidInput for a line longer than any prompt could be.
        """
        rows = await self._c.fetch(_CHAIN, self._tenant, response_id, MAX_CHAIN)
        if len(rows) > MAX_CHAIN:
            raise InvalidInput(
                f"A thread holds at most {MAX_CHAIN} responses in a line: fork it into a conversation.",
                code="context_length_exceeded", param="previous_response_id",
            )  # fmt: skip
        if not rows or any(row["deleted_at"] is not None for row in rows):
            return None
        first = rows[0]
        before: list[Item] = []
        if first["first_seq"] is not None:
            before = await self.listed(first["session_id"], before_seq=first["first_seq"])
        return first["session_id"], before + await self.items_of(row["id"] for row in rows)

    async def delete_response(self, response: Response) -> bool:
        """Its content goes, but what a conversation lists stays; a thread without any other goes whole: then True."""
        await self._c.execute(
            "DELETE FROM session_item WHERE tenant_id = $1 AND response_id = $2 AND NOT listed",
            self._tenant, response.id,
        )  # fmt: skip
        await self._c.execute(
            "UPDATE session_item SET response_id = NULL WHERE tenant_id = $1 AND response_id = $2",
            self._tenant, response.id,
        )  # fmt: skip
        await self._c.execute(
            "UPDATE response SET deleted_at = now(), settings = '{}' WHERE tenant_id = $1 AND id = $2",
            self._tenant, response.id,
        )  # fmt: skip
        whole = await self._c.fetchval(
            """DELETE FROM session s WHERE s.tenant_id = $1 AND s.id = $2 AND s.kind = 'thread' AND NOT EXISTS
            (SELECT FROM response p WHERE p.tenant_id = $1 AND p.session_id = $2 AND p.deleted_at IS NULL)
            RETURNING true""",
            self._tenant, response.session_id,
        )  # fmt: skip
        return bool(whole)


async def delete_all(connection: Connection, tenant_id: UUID) -> None:
    """Every session of a tenant, with items and responses. Usage stays."""
    await connection.execute("DELETE FROM session WHERE tenant_id = $1", tenant_id)


async def delete_expired(connection: Connection, limit: int) -> list[tuple[UUID, UUID]]:
    """(tenant, session) of what was swept, of every tenant. As the operator."""
    rows = await connection.fetch(
        """DELETE FROM session WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM session WHERE expires_at <= now()
        ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING tenant_id, id""",
        limit,
    )
    return [(row["tenant_id"], row["id"]) for row in rows]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _version(row: Any) -> Version | None:
    if row["version_id"] is None:
        return None
    return Version(row["adapter_id"], row["version_id"], row["adapter"], row["number"], row["digest"])


def _session(row: Any) -> Session:
    return Session(
        row["id"], row["kind"], msgspec.json.decode(row["metadata"]), row["policy"], row["model"], _version(row),
        row["keep_s"], row["pinned"], row["revision"], row["turn_id"], row["busy"], row["created_at"], row["last_at"],
        row["expires_at"],
    )  # fmt: skip


def _item(row: Any) -> Item:
    return Item(row["id"], row["role"], msgspec.json.decode(row["content"]), row["status"], row["output"])


def _response(row: Any) -> Response:
    counts = Counts(*(row[name] for name in Counts.__dataclass_fields__))
    return Response(
        row["id"], row["session_id"], row["previous_id"], row["first_seq"], row["status"],
        msgspec.json.decode(row["settings"]), row["created_at"], row["completed_at"], counts, _version(row),
    )  # fmt: skip
