"""Who did what, newest first: the acts of a tenant, and for the operator also those done to others.

Owns the statements that read `act`, all kinds or some, of all subjects or one adapter. tenants/acts.py writes it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.tenants.acts import KINDS, Kind
from tenantry.platform.tenants.models import Actor, actor_of

# Every kind's newest by its index, however rare it is among the others; and of those the newest.
_BY_KIND: Final = """
SELECT l.* FROM unnest($7::text[]) AS wanted (kind) CROSS JOIN LATERAL (
  SELECT * FROM act a WHERE {whose} AND a.kind = wanted.kind AND {when} ORDER BY a.at DESC, a.id DESC LIMIT $4) l
"""
_BY_ADAPTER: Final = """
SELECT a.* FROM act a WHERE {whose} AND a.adapter = $8 AND a.kind = ANY ($7::text[]) AND {when}
"""
_WHEN: Final = """(a.at, a.id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::uuid, $1))
  AND a.at >= coalesce($5::timestamptz, '-infinity') AND a.at < coalesce($6::timestamptz, 'infinity')"""
_OWN: Final = "a.tenant_id = $1"
_ELSEWHERE: Final = "a.actor_tenant_id = $1 AND a.actor_tenant_id <> a.tenant_id"
_NEWEST: Final = """
SELECT x.at, x.id, x.kind, x.subject, x.detail, x.reason, x.actor_key_id AS actor_key, x.actor_name, x.actor_person,
       k.revoked_at AS actor_revoked_at, CASE WHEN x.tenant_id <> $1 THEN t.name END AS tenant
FROM (SELECT * FROM ({acts}) one ORDER BY at DESC, id DESC LIMIT $4) x
JOIN tenant t ON t.id = x.tenant_id
LEFT JOIN api_key k ON k.tenant_id = x.actor_tenant_id AND k.id = x.actor_key_id
ORDER BY x.at DESC, x.id DESC
"""
_CURSOR: Final = re.compile(r"([0-9]{1,17})\.([0-9a-f]{32})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _of(acts: str, *whose: str) -> str:
    return _NEWEST.format(acts=" UNION ALL ".join(acts.format(whose=one, when=_WHEN) for one in whose))


OF_A_TENANT: Final = _of(_BY_KIND, _OWN)
OF_THE_OPERATOR: Final = _of(_BY_KIND, _OWN, _ELSEWHERE)
OF_AN_ADAPTER: Final = _of(_BY_ADAPTER, _OWN)


@dataclass(frozen=True, slots=True)
class Told:
    """actor: who did it, by the name of then, if known. tenant: whose it was done to, None for one's own."""

    at: datetime
    id: UUID
    kind: Kind
    subject: str
    detail: str
    reason: str
    actor: Actor | None
    tenant: str | None

    @property
    def cursor(self) -> str:
        return f"{(self.at - _EPOCH) // timedelta(microseconds=1)}.{self.id.hex}"


@dataclass(frozen=True, slots=True)
class Asked:
    """From `start` up to `end`; None is open. adapter: its name, for what was done to it alone. elsewhere: also what
    the tenant's keys did to others; needs the operator's transaction."""

    start: datetime | None = None
    end: datetime | None = None
    adapter: str | None = None
    kinds: tuple[Kind, ...] = KINDS
    elsewhere: bool = False

    def __post_init__(self) -> None:
        for name, at in (("from", self.start), ("to", self.end)):
            if at is not None and at.tzinfo is None:
                raise InvalidInput(f"{name} must carry a time zone.", param=name)


async def activity(
    connection: Connection, tenant_id: UUID, limit: int, after: str | None, asked: Asked | None = None
) -> list[Told]:
    """after: the cursor of the page before's last act. Raises InvalidInput for anything else."""
    asked = asked or Asked()
    at: datetime | None = None
    row_id: UUID | None = None
    if after is not None:
        match = _CURSOR.fullmatch(after)
        if match is None:
            raise InvalidInput("after must be the `next` of a page.", param="after")
        at, row_id = _EPOCH + timedelta(microseconds=int(match[1])), UUID(hex=match[2])
    wanted = [tenant_id, at, row_id, limit, asked.start, asked.end, sorted(set(asked.kinds))]
    if asked.adapter is not None:
        rows = await connection.fetch(OF_AN_ADAPTER, *wanted, asked.adapter)
    else:
        rows = await connection.fetch(OF_THE_OPERATOR if asked.elsewhere else OF_A_TENANT, *wanted)
    return [_told(row) for row in rows]


def _told(row: Any) -> Told:
    return Told(
        row["at"], row["id"], row["kind"], row["subject"], row["detail"], row["reason"], actor_of(row), row["tenant"]
    )
