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

from tenantry.platform.core import ids
from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import InvalidInput, NotFound, PermissionDenied
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.tenants import keys, repository
from tenantry.platform.tenants.models import ApiKey, Quota, Status, Tenant
from tenantry.platform.tenants.principal import Principal

T = TypeVar("T")
SCOPES: Final = ("inference", "manage", "operator")
DEFAULT_SCOPES: Final = ("inference", "manage")
MAX_PAGE: Final = 101  # a page of 100, and one row that tells whether there are more
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """text is the only copy of the secret there will ever be."""

    key: ApiKey
    text: str = field(repr=False)


@runtime_checkable
class Departure(Protocol):
    """Everything that is to go with a tenant, in rooms above this one (platform/sessions/departure.py)."""

    async def delete(self, tenant_id: UUID) -> Tenant: ...


async def create_tenant(connection: Connection, name: str, *, is_operator: bool = False) -> Tenant:
    """As the operator. Raises InvalidInput, or Conflict when the name is taken."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("name must match [a-z0-9][a-z0-9._-]{0,62}.", param="name")
    return await repository.insert_tenant(connection, ids.uuid7(), name, is_operator)


async def get_tenant(connection: Connection, tenant_id: UUID) -> Tenant:
    return _found(await repository.tenant_by_id(connection, tenant_id), "tenant")


async def list_tenants(connection: Connection, limit: int = 20, after: UUID | None = None) -> list[Tenant]:
    """As the operator, newest first; the operator's own tenant is not listed."""
    return await repository.list_tenants(connection, _page(limit), after)


async def names(connection: Connection) -> list[tuple[UUID, str]]:
    """As the operator: everyone's, the operator's own tenant included."""
    return await repository.names(connection)


async def set_status(connection: Connection, tenant_id: UUID, status: Status) -> Tenant:
    """As the operator. A suspended tenant's keys stop within the authenticator's ttl."""
    if status not in ("active", "suspended"):
        raise InvalidInput("status must be active or suspended.", param="status")
    return _found(await repository.set_status(connection, tenant_id, status), "tenant")


async def delete_tenant(connection: Connection, tenant_id: UUID) -> Tenant:
    """As the operator. For good: its keys are revoked, its name stays taken, its usage stays in the books."""
    tenant = _found(await repository.set_status(connection, tenant_id, "deleted"), "tenant")
    await repository.revoke_keys(connection, tenant_id)
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
    return await _issue(connection, tenant_id, peppers, name, env, sorted(set(scopes)), expires_at, person)


async def create_operator_key(connection: Connection, tenant: Tenant, peppers: Peppers, env: str) -> IssuedKey:
    """In an operator transaction, for the operator's own tenant alone."""
    if not tenant.is_operator:
        raise PermissionDenied("Only the operator's tenant may hold operator keys.")
    return await _issue(connection, tenant.id, peppers, "operator", env, list(SCOPES), None)


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
    return _found(await repository.revoke_key(connection, tenant_id, key_id), "key")


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


async def set_tenant_quota(connection: Connection, tenant_id: UUID, quota: Quota) -> None:
    """As the operator: a tenant cannot raise its own limits."""
    await get_tenant(connection, tenant_id)
    await repository.put_quota(connection, tenant_id, tenant_id, quota)


async def set_key_quota(connection: Connection, tenant_id: UUID, key_id: UUID, quota: Quota) -> None:
    """As the operator."""
    await get_key(connection, tenant_id, key_id)
    await repository.put_quota(connection, tenant_id, key_id, quota)


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
