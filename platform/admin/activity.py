"""Who did what in a tenant, newest first, told from the rows that the acts left: moves, uploads, keys, sign-ins.

Owns the statement that merges them. Nothing is logged twice, so nothing here can disagree with what happened.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.tenants.models import ACTOR_COLUMNS, Actor, actor_of

_BEFORE: Final = """AND ($2::timestamptz IS NULL OR ({at}, {id}) < ($2, $3))
  AND ($5::timestamptz IS NULL OR {at} >= $5)
  AND ($6::timestamptz IS NULL OR {at} < $6) AND ($7::text IS NULL OR {adapter})"""
_PART: Final = """(SELECT {at} AS at, {id} AS id, '{kind}' AS kind, {subject} AS subject, {detail} AS detail,
  {reason} AS reason, {key} AS key_id FROM {source} WHERE {where} {before} ORDER BY {at} DESC, {id} DESC LIMIT $4)"""


def _part(kind: str, at: str, row: str, subject: str, detail: str, source: str, **more: str) -> str:
    return _PART.format(
        kind=kind, at=at, id=row, subject=subject, detail=detail, source=source,
        reason=more.get("reason", "''"), key=more.get("key", "NULL::uuid"), where=more["where"],
        before=_BEFORE.format(at=at, id=row, adapter=more.get("adapter", "false")),
    )  # fmt: skip


_PARTS: Final = " UNION ALL ".join(
    [
            _part(
                "alias_moved", "e.at", "e.id", "a.name || '@' || e.alias",
                "coalesce(f.number::text, '') || ' → ' || coalesce(t.number::text, '')",
                "alias_event e JOIN adapter a ON a.tenant_id = e.tenant_id AND a.id = e.adapter_id "
                "LEFT JOIN adapter_version f ON f.tenant_id = e.tenant_id AND f.id = e.from_version "
                "LEFT JOIN adapter_version t ON t.tenant_id = e.tenant_id AND t.id = e.to_version",
                reason="e.reason", key="e.actor_key_id", where="e.tenant_id = $1", adapter="a.name = $7",
            ),
            _part(
                "version_uploaded", "v.created_at", "v.id", "a.name || ':' || v.number", "v.state",
                "adapter_version v JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id",
                reason="v.state_reason", key="v.created_by", where="v.tenant_id = $1", adapter="a.name = $7",
            ),
            _part(
                "key_created", "c.created_at", "c.id", "c.name", "array_to_string(c.scopes, ', ')", "api_key c",
                where="c.tenant_id = $1",
            ),
            _part(
                "key_revoked", "c.revoked_at", "c.id", "c.name", "''", "api_key c",
                where="c.tenant_id = $1 AND c.revoked_at IS NOT NULL",
            ),
            _part(
                "signed_in", "s.created_at", "s.id", "c.name", "''",
                "browser_session s JOIN api_key c ON c.tenant_id = s.tenant_id AND c.id = s.key_id",
                key="s.key_id", where="s.tenant_id = $1",
            ),
    ]
)  # fmt: skip
_ACTIVITY: Final = f"""
SELECT x.*, {ACTOR_COLUMNS} FROM ({_PARTS}) x LEFT JOIN api_key k ON k.tenant_id = $1 AND k.id = x.key_id
ORDER BY x.at DESC, x.id DESC LIMIT $4
"""  # noqa: S608 - literals
_CURSOR: Final = re.compile(r"([0-9]{1,17})\.([0-9a-f]{32})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Act:
    """kind: alias_moved, version_uploaded, key_created, key_revoked or signed_in. actor: who did it, if known."""

    at: datetime
    id: UUID
    kind: str
    subject: str
    detail: str
    reason: str
    actor: Actor | None

    @property
    def cursor(self) -> str:
        return f"{(self.at - _EPOCH) // timedelta(microseconds=1)}.{self.id.hex}"


@dataclass(frozen=True, slots=True)
class Asked:
    """From `start` up to `end`; None is open. adapter: its name, for what was done to it alone."""

    start: datetime | None = None
    end: datetime | None = None
    adapter: str | None = None

    def __post_init__(self) -> None:
        for name, at in (("from", self.start), ("to", self.end)):
            if at is not None and at.tzinfo is None:
                raise InvalidInput(f"{name} must carry a time zone.", param=name)


async def activity(
    connection: Connection, tenant_id: UUID, limit: int, after: str | None, asked: Asked | None = None
) -> list[Act]:
    """after: the cursor of the page before's last act. Raises InvalidInput for anything else."""
    asked = asked or Asked()
    at: datetime | None = None
    row_id: UUID | None = None
    if after is not None:
        match = _CURSOR.fullmatch(after)
        if match is None:
            raise InvalidInput("after must be the `next` of a page.", param="after")
        at, row_id = _EPOCH + timedelta(microseconds=int(match[1])), UUID(hex=match[2])
    rows = await connection.fetch(_ACTIVITY, tenant_id, at, row_id, limit, asked.start, asked.end, asked.adapter)
    return [_act(row) for row in rows]


def _act(row: Any) -> Act:
    return Act(
        row["at"], row["id"], row["kind"], row["subject"], row["detail"], row["reason"], actor_of(row)
    )  # fmt: skip
