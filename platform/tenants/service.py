"""What people do with tenants, keys and quotas: rules and answers on top of the repository.

Takes connections, never requests. Tenant and quota functions run in an operator transaction; key functions in the
tenant's own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from tenantry.platform.core import ids, money
from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput, NotFound, PermissionDenied
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.tenants import keys, repository
from tenantry.platform.tenants.acts import Act, Kind, record
from tenantry.platform.tenants.models import ApiKey, Quota, Status, Tenant
from tenantry.platform.tenants.principal import Principal

T = TypeVar("T")
SCOPES: Final = ("inference", "manage", "operator")
DEFAULT_SCOPES: Final = ("inference", "manage")
MAX_PAGE: Final = 101  # a page of 100, and one row that tells whether there are more
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_PART: Final = re.compile(r"[a-z0-9._-]+", re.ASCII)
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """text is the only copy of the secret there will ever be."""

    key: ApiKey
    text: str = field(repr=False)


@runtime_checkable
class Departure(Protocol):
    """Everything that is to go with a tenant, in rooms above this one (platform/sessions/departure.py)."""

    async def delete(self, tenant_id: UUID, by: Principal) -> Tenant: ...


async def create_tenant(
    connection: Connection, name: str, *, by: Principal | None = None, is_operator: bool = False
) -> Tenant:
    """As the operator. by: who asks, here and below; None for the installation itself. Raises InvalidInput, or
    Conflict when the name is taken."""
    if not _NAME.fullmatch(name):
        rule = "name must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit."
        raise InvalidInput(rule, param="name")
    tenant = await repository.insert_tenant(connection, ids.uuid7(), name, is_operator)
    await record(connection, tenant.id, by, Act("tenant_created", name))
    return tenant


async def get_tenant(connection: Connection, tenant_id: UUID) -> Tenant:
    return _found(await repository.tenant_by_id(connection, tenant_id), "tenant")


async def list_tenants(
    connection: Connection, limit: int = 20, after: UUID | None = None, name: str | None = None
) -> list[Tenant]:
    """As the operator, newest first; the operator's own tenant is not listed. name: part of one, every letter as it
    is. What cannot be in a name is in none."""
    if name and not _PART.fullmatch(name):
        return []
    return await repository.list_tenants(connection, _page(limit), after, name or None)


async def names(connection: Connection) -> list[tuple[UUID, str]]:
    """As the operator: everyone's, the operator's own tenant included."""
    return await repository.names(connection)


async def set_status(
    connection: Connection, tenant_id: UUID, status: Status, *, by: Principal | None = None
) -> Tenant:
    """As the operator. A suspended tenant's keys stop within the authenticator's ttl."""
    if status not in ("active", "suspended"):
        raise InvalidInput("status must be active or suspended.", param="status")
    before = await repository.lock_tenant(connection, tenant_id)
    tenant = _found(await repository.set_status(connection, tenant_id, status), "tenant")
    if before is not None and before.status != status:
        kind: Kind = "tenant_suspended" if status == "suspended" else "tenant_resumed"
        await record(connection, tenant_id, by, Act(kind, tenant.name))
    return tenant


async def delete_tenant(connection: Connection, tenant_id: UUID, *, by: Principal | None = None) -> Tenant:
    """As the operator. For good: its keys are revoked, its name stays taken, its usage stays in the books."""
    tenant = _found(await repository.set_status(connection, tenant_id, "deleted"), "tenant")
    await repository.revoke_keys(connection, tenant_id)
    await record(connection, tenant_id, by, Act("tenant_deleted", tenant.name))
    return tenant


async def create_key(
    connection: Connection,
    tenant_id: UUID,
    peppers: Peppers,
    *,
    by: Principal | None,
    name: str,
    env: str = "live",
    scopes: Sequence[str] = DEFAULT_SCOPES,
    expires_at: datetime | None = None,
    person: bool = False,
) -> IssuedKey:
    """In the tenant's transaction. by: who asks, None for the installation itself. Operator keys can only be made in
    an operator transaction, by bootstrap. Raises InvalidInput, or PermissionDenied for scopes that `by` lacks."""
    if not _LABEL.fullmatch(name):
        raise InvalidInput("name must hold 1 to 100 printable characters.", param="name")
    if env not in ("live", "test"):
        raise InvalidInput("env must be live or test.", param="env")
    if not scopes or not set(scopes) <= set(DEFAULT_SCOPES):
        raise InvalidInput("scopes must be one or more of inference and manage.", param="scopes")
    if by is not None:
        by.require_to_give(scopes)
    issued = await _issue(connection, tenant_id, peppers, name, env, sorted(set(scopes)), expires_at, person)
    await record(connection, tenant_id, by, Act("key_created", name, ", ".join(issued.key.scopes)))
    return issued


async def create_operator_key(connection: Connection, tenant: Tenant, peppers: Peppers, env: str) -> IssuedKey:
    """In an operator transaction, for the operator's own tenant alone."""
    if not tenant.is_operator:
        raise PermissionDenied("Only the operator's tenant may hold operator keys.")
    issued = await _issue(connection, tenant.id, peppers, "operator", env, list(SCOPES), None)
    await record(connection, tenant.id, None, Act("key_created", issued.key.name, ", ".join(issued.key.scopes)))
    return issued


async def list_keys(
    connection: Connection, tenant_id: UUID, limit: int = 20, after: UUID | None = None
) -> list[ApiKey]:
    return await repository.list_keys(connection, tenant_id, _page(limit), after)


async def get_key(connection: Connection, tenant_id: UUID, key_id: UUID) -> ApiKey:
    return _found(await repository.key_by_id(connection, tenant_id, key_id), "key")


async def revoke_key(connection: Connection, tenant_id: UUID, key_id: UUID, *, by: Principal | None) -> ApiKey:
    """Seen by every gateway within the authenticator's ttl. Revoking twice is not an error. by: as of create_key;
    raises PermissionDenied towards a key that may do more."""
    await _check_end(connection, tenant_id, key_id, by)
    revoked = await repository.revoke_key(connection, tenant_id, key_id)
    if revoked is None:
        return await get_key(connection, tenant_id, key_id)
    await record(connection, tenant_id, by, Act("key_revoked", revoked.name))
    return revoked


async def expire_key(
    connection: Connection, tenant_id: UUID, key_id: UUID, at: datetime, *, by: Principal | None
) -> ApiKey:
    """Brings the end closer, never further away. by: as of revoke_key."""
    await _check_end(connection, tenant_id, key_id, by)
    if at.tzinfo is None:
        raise InvalidInput("expires_at must carry a time zone.", param="expires_at")
    return _found(await repository.expire_key(connection, tenant_id, key_id, at), "key")


async def tenant_quota(connection: Connection, tenant_id: UUID) -> Quota:
    return await repository.quota(connection, tenant_id, tenant_id)


async def key_quota(connection: Connection, tenant_id: UUID, key_id: UUID) -> Quota:
    return await repository.quota(connection, tenant_id, key_id)


async def set_tenant_quota(
    connection: Connection, tenant_id: UUID, quota: Quota, *, by: Principal | None = None
) -> None:
    """As the operator: a tenant cannot raise its own limits."""
    tenant = await get_tenant(connection, tenant_id)
    await _put_quota(connection, tenant_id, tenant_id, quota, by, tenant.name)


async def set_key_quota(
    connection: Connection, tenant_id: UUID, key_id: UUID, quota: Quota, *, by: Principal | None = None
) -> None:
    """As the operator."""
    key = await get_key(connection, tenant_id, key_id)
    await _put_quota(connection, tenant_id, key_id, quota, by, f"key {key.name}")


async def _put_quota(
    connection: Connection, tenant_id: UUID, scope_id: UUID, quota: Quota, by: Principal | None, subject: str
) -> None:
    before = await repository.quota(connection, tenant_id, scope_id)
    await repository.put_quota(connection, tenant_id, scope_id, quota)
    if _told(before) != _told(quota):
        act = Act("quota_changed", subject, f"{_told(before)} → {_told(quota)}")
        await record(connection, tenant_id, by, act)


def _told(quota: Quota) -> str:
    """For people to read."""
    budget = money.render(quota.budget_nano) if quota.budget_nano is not None else None
    limits = (
        (quota.concurrency, "at once"), (quota.requests_per_minute, "requests a minute"),
        (budget, "a month" if quota.budget_period == "month" else "in all"),
    )  # fmt: skip
    return ", ".join(f"{limit} {unit}" for limit, unit in limits if limit is not None) or "unlimited"


async def _check_end(connection: Connection, tenant_id: UUID, key_id: UUID, by: Principal | None) -> None:
    found = await get_key(connection, tenant_id, key_id)
    if by is not None:
        by.require_to_end(found.scopes)


async def _issue(
    connection: Connection,
    tenant_id: UUID,
    peppers: Peppers,
    name: str,
    env: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    person: bool = False,
) -> IssuedKey:
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidInput("expires_at must carry a time zone.", param="expires_at")
    made = keys.make(env, peppers)
    key = await repository.insert_key(connection, tenant_id, ids.uuid7(), made, name, env, scopes, expires_at, person)
    return IssuedKey(key, made.text)


def _found(value: T | None, kind: str) -> T:
    if value is None:
        raise NotFound(f"No such {kind}.", code=f"{kind}_not_found", param="id")
    return value


def _page(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"limit must be from 1 to {MAX_PAGE}.", param="limit")
    return limit
