"""The registry's statements. A Repository's name the tenant themselves, on top of row-level security.

Owns SQL over adapter, adapter_version, adapter_alias, alias_event and artifact. It must not know HTTP, files or
who may do what: callers give a connection already scoped to the tenant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection
from tenantry.platform.registry.models import Adapter, Alias, AliasEvent, State, Version
from tenantry.platform.tenants.models import ACTOR_COLUMNS, actor_of

_ADAPTER = """SELECT a.id, a.name, b.name AS base, a.description, a.etag, a.created_at
FROM adapter a JOIN base_model b ON b.id = a.base_model_id WHERE a.tenant_id = $1 AND a.deleted_at IS NULL"""
_VERSION = """SELECT id, adapter_id, number, state, state_reason, digest, bytes, rank, targets, report, created_at
FROM adapter_version WHERE tenant_id = $1"""
_ALIAS = """SELECT l.alias, v.number, l.version_id, l.etag, l.updated_at FROM adapter_alias l
JOIN adapter_version v ON v.tenant_id = l.tenant_id AND v.id = l.version_id WHERE l.tenant_id = $1"""


@dataclass(frozen=True, slots=True)
class Held:
    """What a tenant stores: adapters, bytes of ready versions, uploads in the last hour."""

    adapters: int
    bytes: int
    uploads: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A tenant, by id and name, and the version of an adapter of his that has this digest."""

    tenant_id: UUID
    tenant: str
    adapter: str
    number: int
    digest: bytes


class Repository:
    """One tenant's adapters, through one transaction."""

    def __init__(self, connection: Connection, tenant_id: UUID) -> None:
        self._c = connection
        self._tenant = tenant_id

    async def adapter(self, name: str, *, lock: bool = False) -> Adapter | None:
        row = await self._c.fetchrow(
            f"{_ADAPTER} AND a.name = $2 {'FOR UPDATE OF a' if lock else ''}", self._tenant, name
        )
        return _adapter(row) if row else None

    async def add_adapter(self, name: str, base_id: UUID, description: str) -> bool:
        """False when the name is taken."""
        made = await self._c.fetchval(
            """INSERT INTO adapter (tenant_id, id, name, base_model_id, description) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT (tenant_id, name) WHERE deleted_at IS NULL DO NOTHING RETURNING true""",
            self._tenant, ids.uuid7(), name, base_id, description,
        )  # fmt: skip
        return bool(made)

    async def delete_adapter(self, adapter_id: UUID) -> list[bytes]:
        """Retire every version and remove the aliases; returns the digests that answered until now."""
        await self._c.execute(
            "DELETE FROM adapter_alias WHERE tenant_id = $1 AND adapter_id = $2", self._tenant, adapter_id
        )
        rows = await self._c.fetch(
            """UPDATE adapter_version SET state = 'retired' WHERE tenant_id = $1 AND adapter_id = $2
            AND state = 'ready' RETURNING digest""",
            self._tenant, adapter_id,
        )  # fmt: skip
        await self._c.execute(
            "UPDATE adapter SET deleted_at = now(), etag = etag + 1 WHERE tenant_id = $1 AND id = $2",
            self._tenant, adapter_id,
        )  # fmt: skip
        return [row["digest"] for row in rows]

    async def delete_adapters(self) -> list[bytes]:
        """As delete_adapter, of all of them."""
        await self._c.execute("DELETE FROM adapter_alias WHERE tenant_id = $1", self._tenant)
        rows = await self._c.fetch(
            """UPDATE adapter_version SET state = 'retired' WHERE tenant_id = $1 AND state = 'ready'
            RETURNING digest""",
            self._tenant,
        )
        await self._c.execute(
            "UPDATE adapter SET deleted_at = now(), etag = etag + 1 WHERE tenant_id = $1 AND deleted_at IS NULL",
            self._tenant,
        )
        return [row["digest"] for row in rows]

    async def version(self, adapter_id: UUID, number: int) -> Version | None:
        row = await self._c.fetchrow(
            f"{_VERSION} AND adapter_id = $2 AND number = $3", self._tenant, adapter_id, number
        )
        return _version(row) if row else None

    async def versions(self, adapter_id: UUID, after: UUID | None, limit: int) -> list[Version]:
        """Newest first."""
        rows = await self._c.fetch(
            f"{_VERSION} AND adapter_id = $2 AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4",
            self._tenant, adapter_id, after, limit,
        )  # fmt: skip
        return [_version(row) for row in rows]

    async def validating(self, adapter_id: UUID) -> bool:
        found = await self._c.fetchval(
            "SELECT EXISTS (SELECT FROM adapter_version WHERE tenant_id = $1 AND adapter_id = $2 AND state = $3)",
            self._tenant, adapter_id, State.VALIDATING,
        )  # fmt: skip
        return bool(found)

    async def add_version(self, adapter_id: UUID, key_id: UUID | None) -> tuple[UUID, int]:
        """A row in state validating, numbered after all others. The adapter's row must be locked."""
        row = await self._c.fetchrow(
            """INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, created_by)
            SELECT $1, $2, $3, coalesce(max(number), 0) + 1, 'validating', $4
            FROM adapter_version WHERE tenant_id = $1 AND adapter_id = $3 RETURNING id, number""",
            self._tenant, ids.uuid7(), adapter_id, key_id,
        )  # fmt: skip
        return _id(row["id"]), row["number"]

    async def reject(self, version_id: UUID, reason: str, report: Mapping[str, Any]) -> bool:
        """validating -> rejected. False when the version is in another state by now."""
        done = await self._c.fetchval(
            """UPDATE adapter_version SET state = 'rejected', state_reason = $3, report = $4
            WHERE tenant_id = $1 AND id = $2 AND state = 'validating' RETURNING true""",
            self._tenant, version_id, reason, dict(report),
        )  # fmt: skip
        return bool(done)

    async def make_ready(
        self, version_id: UUID, digest: bytes, size: int, rank: int, targets: list[str], manifest: Any, report: Any
    ) -> bool:
        """validating -> ready. False when the version is in another state by now."""
        await self._c.execute(
            "INSERT INTO artifact (tenant_id, digest, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self._tenant, digest, size,
        )  # fmt: skip
        done = await self._c.fetchval(
            """UPDATE adapter_version SET state = 'ready', digest = $3, bytes = $4, rank = $5, targets = $6,
            manifest = $7, report = $8 WHERE tenant_id = $1 AND id = $2 AND state = 'validating' RETURNING true""",
            self._tenant, version_id, digest, size, rank, targets, manifest, report,
        )  # fmt: skip
        return bool(done)

    async def set_state(self, version_id: UUID, was: State, becomes: State, reason: str = "") -> bool:
        done = await self._c.fetchval(
            """UPDATE adapter_version SET state = $4, state_reason = $5
            WHERE tenant_id = $1 AND id = $2 AND state = $3 RETURNING true""",
            self._tenant, version_id, was, becomes, reason,
        )  # fmt: skip
        return bool(done)

    async def alias(self, adapter_id: UUID, alias: str) -> Alias | None:
        row = await self._c.fetchrow(
            f"{_ALIAS} AND l.adapter_id = $2 AND l.alias = $3", self._tenant, adapter_id, alias
        )
        return Alias(**_plain(row)) if row else None

    async def aliases(self, adapter_id: UUID) -> list[Alias]:
        rows = await self._c.fetch(f"{_ALIAS} AND l.adapter_id = $2 ORDER BY l.alias", self._tenant, adapter_id)
        return [Alias(**_plain(row)) for row in rows]

    async def answering(
        self, base_id: UUID, limit: int, after: tuple[str, str], text: str | None = None, name: str | None = None
    ) -> list[tuple[str, str, Version]]:
        """(adapter, alias, version) of aliases that answer requests, by name, from `after` on. text: part of a name.
        name: of one adapter alone."""
        rows = await self._c.fetch(
            """SELECT v.*, a.name, l.alias FROM adapter_alias l
            JOIN adapter a ON a.tenant_id = l.tenant_id AND a.id = l.adapter_id AND a.deleted_at IS NULL
            JOIN adapter_version v ON v.tenant_id = l.tenant_id AND v.id = l.version_id AND v.state = 'ready'
            WHERE l.tenant_id = $1 AND a.base_model_id = $2 AND (a.name, l.alias) > ($3, $4) AND a.name >= $3
              AND ($5::text IS NULL OR position($5 IN a.name) > 0) AND ($6::text IS NULL OR a.name = $6)
            ORDER BY a.name, l.alias LIMIT $7""",
            self._tenant, base_id, *after, text, name, limit,
        )  # fmt: skip
        return [(row["name"], row["alias"], _version(row)) for row in rows]

    async def put_alias(self, adapter_id: UUID, alias: str, version_id: UUID, etag: int | None) -> int | None:
        """Create (etag None) or move by compare-and-set; the new etag, or None when someone was faster."""
        if etag is None:
            made = await self._c.fetchval(
                """INSERT INTO adapter_alias (tenant_id, adapter_id, alias, version_id) VALUES ($1, $2, $3, $4)
                ON CONFLICT DO NOTHING RETURNING etag""",
                self._tenant, adapter_id, alias, version_id,
            )  # fmt: skip
        else:
            made = await self._c.fetchval(
                """UPDATE adapter_alias SET version_id = $4, etag = etag + 1, updated_at = now()
                WHERE tenant_id = $1 AND adapter_id = $2 AND alias = $3 AND etag = $5 RETURNING etag""",
                self._tenant, adapter_id, alias, version_id, etag,
            )  # fmt: skip
        return int(made) if made is not None else None

    async def delete_alias(self, adapter_id: UUID, alias: str, etag: int) -> bool:
        done = await self._c.fetchval(
            """DELETE FROM adapter_alias WHERE tenant_id = $1 AND adapter_id = $2 AND alias = $3 AND etag = $4
            RETURNING true""",
            self._tenant, adapter_id, alias, etag,
        )  # fmt: skip
        return bool(done)

    async def record_move(
        self, adapter_id: UUID, alias: str, before: UUID | None, after: UUID | None, actor: UUID | None, reason: str
    ) -> None:
        await self._c.execute(
            """INSERT INTO alias_event
            (tenant_id, id, adapter_id, alias, from_version, to_version, actor_key_id, reason)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)""",
            self._tenant, ids.uuid7(), adapter_id, alias, before, after, actor, reason,
        )  # fmt: skip

    async def moves(self, adapter_id: UUID, alias: str, after: UUID | None, limit: int) -> list[AliasEvent]:
        """Newest first."""
        rows = await self._c.fetch(
            f"""SELECT e.id, f.number AS from_number, t.number AS to_number, e.reason, e.at, {ACTOR_COLUMNS}
            FROM alias_event e
            LEFT JOIN api_key k ON k.tenant_id = e.tenant_id AND k.id = e.actor_key_id
            LEFT JOIN adapter_version f ON f.tenant_id = e.tenant_id AND f.id = e.from_version
            LEFT JOIN adapter_version t ON t.tenant_id = e.tenant_id AND t.id = e.to_version
            WHERE e.tenant_id = $1 AND e.adapter_id = $2 AND e.alias = $3 AND ($4::uuid IS NULL OR e.id < $4)
            ORDER BY e.id DESC LIMIT $5""",  # noqa: S608 - literals
            self._tenant, adapter_id, alias, after, limit,
        )  # fmt: skip
        return [
            AliasEvent(_id(row["id"]), row["from_number"], row["to_number"], actor_of(row), row["reason"], row["at"])
            for row in rows
        ]

    async def held(self) -> Held:
        row = await self._c.fetchrow(
            """SELECT (SELECT count(*) FROM adapter WHERE tenant_id = $1 AND deleted_at IS NULL) AS adapters,
            (SELECT coalesce(sum(bytes), 0) FROM adapter_version WHERE tenant_id = $1 AND state = 'ready') AS bytes,
            (SELECT count(*) FROM adapter_version WHERE tenant_id = $1
              AND created_at > now() - interval '1 hour') AS uploads""",
            self._tenant,
        )
        return Held(row["adapters"], int(row["bytes"]), row["uploads"])

    async def answers_with(self, digest: bytes) -> bool:
        """Whether a ready version of this tenant still has the digest."""
        found = await self._c.fetchval(
            "SELECT EXISTS (SELECT FROM adapter_version WHERE tenant_id = $1 AND digest = $2 AND state = 'ready')",
            self._tenant, digest,
        )  # fmt: skip
        return bool(found)


def _id(value: UUID) -> UUID:
    """The driver's own uuid class does not encode as JSON; the standard one does."""
    return UUID(int=value.int)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _id(value) if isinstance(value, UUID) else value for name, value in row.items()}


def _adapter(row: Mapping[str, Any]) -> Adapter:
    return Adapter(**_plain(row))


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        _id(row["id"]), _id(row["adapter_id"]), row["number"], State(row["state"]), row["state_reason"],
        row["digest"], row["bytes"], row["rank"], row["targets"], row["report"], row["created_at"],
    )  # fmt: skip


async def holders(connection: Connection, digests: Iterable[bytes]) -> list[Holder]:
    """Whose adapters' versions these are, of all tenants that the connection may see."""
    rows = await connection.fetch(
        """SELECT v.tenant_id, t.name AS tenant, a.name, v.number, v.digest FROM adapter_version v
        JOIN adapter a ON a.tenant_id = v.tenant_id AND a.id = v.adapter_id JOIN tenant t ON t.id = v.tenant_id
        WHERE v.digest = ANY($1::bytea[]) ORDER BY v.tenant_id, a.name, v.number""",
        list(digests),
    )
    return [Holder(_id(r["tenant_id"]), r["tenant"], r["name"], r["number"], r["digest"]) for r in rows]
