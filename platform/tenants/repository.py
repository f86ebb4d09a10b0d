"""The SQL of tenants, keys and quotas. Every function takes a connection inside the right transaction.

Key and quota statements name the tenant themselves; row-level security would stop them if they forgot.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import Conflict, InvalidInput
from tenantry.platform.tenants.keys import NewKey
from tenantry.platform.tenants.models import ApiKey, Quota, Status, Tenant, key_of, quota_of, tenant_of


async def insert_tenant(connection: Connection, tenant_id: UUID, name: str, is_operator: bool) -> Tenant:
    try:
        row = await connection.fetchrow(
            "INSERT INTO tenant (id, name, is_operator) VALUES ($1, $2, $3) RETURNING *", tenant_id, name, is_operator
        )
    except asyncpg.UniqueViolationError:
        raise Conflict(f"A tenant named {name} exists already.", code="name_taken", param="name") from None
    return tenant_of(row)


async def tenant_by_name(connection: Connection, name: str) -> Tenant | None:
    row = await connection.fetchrow("SELECT * FROM tenant WHERE name = $1", name)
    return tenant_of(row) if row else None


async def tenant_by_id(connection: Connection, tenant_id: UUID) -> Tenant | None:
    row = await connection.fetchrow("SELECT * FROM tenant WHERE id = $1", tenant_id)
    return tenant_of(row) if row else None


async def lock_tenant(connection: Connection, tenant_id: UUID) -> Tenant | None:
    """As tenant_by_id; nobody else changes it until the transaction ends."""
    row = await connection.fetchrow("SELECT * FROM tenant WHERE id = $1 FOR UPDATE", tenant_id)
    return tenant_of(row) if row else None


async def list_tenants(connection: Connection, limit: int, after: UUID | None, name: str | None) -> list[Tenant]:
    """Newest first, without those deleted. after: the last id of the page before. name: part of one; None for any."""
    rows = await connection.fetch(
        "SELECT * FROM tenant WHERE NOT is_operator AND status <> 'deleted' AND ($1::uuid IS NULL OR id < $1) "
        "AND ($3::text IS NULL OR position($3 IN name) > 0) ORDER BY id DESC LIMIT $2",
        after,
        limit,
        name,
    )
    return [tenant_of(row) for row in rows]


async def names(connection: Connection) -> list[tuple[UUID, str]]:
    return [(row["id"], row["name"]) for row in await connection.fetch("SELECT id, name FROM tenant")]


async def set_status(connection: Connection, tenant_id: UUID, status: Status) -> Tenant | None:
    row = await connection.fetchrow(
        "UPDATE tenant SET status = $2, etag = etag + 1 WHERE id = $1 AND NOT is_operator AND status <> 'deleted' "
        "RETURNING *",
        tenant_id,
        status,
    )
    return tenant_of(row) if row else None


async def revoke_keys(connection: Connection, tenant_id: UUID) -> None:
    """All of a tenant's that are not revoked yet. As the operator."""
    await connection.execute(
        "UPDATE api_key SET revoked_at = clock_timestamp() WHERE tenant_id = $1 AND revoked_at IS NULL", tenant_id
    )


async def insert_key(
    connection: Connection,
    tenant_id: UUID,
    key_id: UUID,
    made: NewKey,
    name: str,
    env: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    person: bool = False,
) -> ApiKey:
    row = await connection.fetchrow(
        "INSERT INTO api_key (tenant_id, id, key_id, name, env, scopes, pepper_id, mac, expires_at, person) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *",
        tenant_id,
        key_id,
        made.public_id,
        name,
        env,
        list(scopes),
        made.pepper_id,
        made.mac,
        expires_at,
        person,
    )
    return key_of(row)


async def key_by_id(connection: Connection, tenant_id: UUID, key_id: UUID) -> ApiKey | None:
    row = await connection.fetchrow("SELECT * FROM api_key WHERE tenant_id = $1 AND id = $2", tenant_id, key_id)
    return key_of(row) if row else None


async def list_keys(connection: Connection, tenant_id: UUID, limit: int, after: UUID | None) -> list[ApiKey]:
    """Newest first, revoked ones too. after: the last id of the page before."""
    rows = await connection.fetch(
        "SELECT * FROM api_key WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        tenant_id,
        after,
        limit,
    )
    return [key_of(row) for row in rows]


async def revoke_key(connection: Connection, tenant_id: UUID, key_id: UUID) -> ApiKey | None:
    """Once and for good; None for a key that is revoked already, or is not there."""
    row = await connection.fetchrow(
        "UPDATE api_key SET revoked_at = clock_timestamp() "
        "WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING *",
        tenant_id,
        key_id,
    )
    return key_of(row) if row else None


async def expire_key(connection: Connection, tenant_id: UUID, key_id: UUID, at: datetime) -> ApiKey | None:
    """Expiry only ever comes closer: a leaked key cannot be given more time."""
    row = await connection.fetchrow(
        "UPDATE api_key SET expires_at = least(expires_at, $3) WHERE tenant_id = $1 AND id = $2 RETURNING *",
        tenant_id,
        key_id,
        at,
    )
    return key_of(row) if row else None


async def quota(connection: Connection, tenant_id: UUID, scope_id: UUID) -> Quota:
    row = await connection.fetchrow("SELECT * FROM quota WHERE tenant_id = $1 AND scope_id = $2", tenant_id, scope_id)
    return quota_of(row) if row else Quota()


async def put_quota(connection: Connection, tenant_id: UUID, scope_id: UUID, value: Quota) -> None:
    """As the operator. An unlimited quota is no row, so that admission has nothing to lock."""
    if value.is_unlimited:
        await connection.execute("DELETE FROM quota WHERE tenant_id = $1 AND scope_id = $2", tenant_id, scope_id)
        return
    try:
        await connection.execute(
            "INSERT INTO quota (tenant_id, scope_id, concurrency, requests_per_minute, budget_nano, budget_period) "
            "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, scope_id) DO UPDATE SET "
            "concurrency = excluded.concurrency, requests_per_minute = excluded.requests_per_minute, "
            "budget_nano = excluded.budget_nano, budget_period = excluded.budget_period",
            tenant_id,
            scope_id,
            value.concurrency,
            value.requests_per_minute,
            value.budget_nano,
            value.budget_period,
        )
    except (asyncpg.CheckViolationError, asyncpg.DataError):
        raise InvalidInput("A limit is out of bounds.", param="quota") from None
