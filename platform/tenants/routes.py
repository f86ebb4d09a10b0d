"""/api/v1: who am I, tenants (the operator's), and keys (one's own tenant's, or any for the operator).

Owns the mapping between HTTP and the service. A tenant's id in a path is read on operator routes alone; everywhere
else the tenant is the key's own.
"""

from typing import Annotated

from litestar import Router, delete, get, patch, post, put
from litestar.params import Parameter

from tenantry.platform.core import ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.paging import After, Limit, cursor, cut
from tenantry.platform.core.policy import OPERATOR, tenant, under
from tenantry.platform.core.secrets import Peppers
from tenantry.platform.core.settings import Settings
from tenantry.platform.tenants import schemas, service
from tenantry.platform.tenants.principal import Principal

TenantId = Annotated[str, Parameter(description="ten_ and 32 hex digits")]
NamePart = Annotated[str | None, Parameter(max_length=63, description="Part of a name.")]
KeyId = Annotated[str, Parameter(description="key_ and 32 hex digits")]
ANSWER_ONCE = {"never_kept": True}  # an answer that holds a secret is not kept for Idempotency-Key replays


@get("/me", opt=under(tenant()))
async def me(principal: Principal) -> schemas.Me:
    return schemas.Me.of(principal)


@post("/tenants", opt=under(OPERATOR))
async def create_tenant(data: schemas.TenantCreate, principal: Principal, database: Database) -> schemas.TenantView:
    async with database.operator() as connection:
        return schemas.TenantView.of(await service.create_tenant(connection, data.name, by=principal))


@get("/tenants", opt=under(OPERATOR))
async def list_tenants(
    database: Database, limit: Limit = 20, after: After = None, name: NamePart = None
) -> schemas.TenantPage:
    """Newest first; those whose name holds a text."""
    start = cursor("tenant", after)
    async with database.operator() as connection:
        rows, more = cut(await service.list_tenants(connection, limit + 1, start, name), limit)
    data = [schemas.TenantView.of(row) for row in rows]
    return schemas.TenantPage(data=data, has_more=more, next=data[-1].id if more else None)


@get("/tenants/{tenant_id:str}", opt=under(OPERATOR))
async def get_tenant(tenant_id: TenantId, database: Database) -> schemas.TenantView:
    async with database.operator() as connection:
        return schemas.TenantView.of(await service.get_tenant(connection, ids.from_text("tenant", tenant_id)))


@patch("/tenants/{tenant_id:str}", opt=under(OPERATOR))
async def update_tenant(
    tenant_id: TenantId, data: schemas.TenantUpdate, principal: Principal, database: Database
) -> schemas.TenantView:
    async with database.operator() as connection:
        found = ids.from_text("tenant", tenant_id)
        return schemas.TenantView.of(await service.set_status(connection, found, data.status, by=principal))


@delete("/tenants/{tenant_id:str}", opt=under(OPERATOR), status_code=200)
async def delete_tenant(
    tenant_id: TenantId, principal: Principal, departure: service.Departure
) -> schemas.TenantView:
    """For good: keys, adapters, conversations and cached KV go, requests under way end; usage stays."""
    return schemas.TenantView.of(await departure.delete(ids.from_text("tenant", tenant_id), principal))


@get("/tenants/{tenant_id:str}/quota", opt=under(OPERATOR))
async def get_tenant_quota(tenant_id: TenantId, database: Database) -> schemas.QuotaBody:
    found = ids.from_text("tenant", tenant_id)
    async with database.operator() as connection:
        await service.get_tenant(connection, found)
        return schemas.QuotaBody.of(await service.tenant_quota(connection, found))


@put("/tenants/{tenant_id:str}/quota", opt=under(OPERATOR))
async def put_tenant_quota(
    tenant_id: TenantId, data: schemas.QuotaBody, principal: Principal, database: Database
) -> schemas.QuotaBody:
    found = ids.from_text("tenant", tenant_id)
    async with database.operator() as connection:
        await service.set_tenant_quota(connection, found, data.quota(), by=principal)
    return data


@post("/tenants/{tenant_id:str}/keys", opt=under(OPERATOR) | ANSWER_ONCE)
async def create_key_of_tenant(
    tenant_id: TenantId,
    data: schemas.KeyCreate,
    principal: Principal,
    database: Database,
    peppers: Peppers,
    settings: Settings,
) -> schemas.KeyView:
    """The operator gives a tenant its first key."""
    found = ids.from_text("tenant", tenant_id)
    async with database.operator() as connection:
        await service.get_tenant(connection, found)
        issued = await service.create_key(
            connection, found, peppers, by=principal, name=data.name, env=settings.environment, scopes=data.scopes,
            expires_at=data.expires_at,
        )  # fmt: skip
    return schemas.KeyView.of(issued.key, issued.text)


@put("/tenants/{tenant_id:str}/keys/{key_id:str}/quota", opt=under(OPERATOR))
async def put_key_quota(
    tenant_id: TenantId, key_id: KeyId, data: schemas.QuotaBody, principal: Principal, database: Database
) -> schemas.QuotaBody:
    whose, which = ids.from_text("tenant", tenant_id), ids.from_text("key", key_id)
    async with database.operator() as connection:
        await service.set_key_quota(connection, whose, which, data.quota(), by=principal)
    return data


@post("/keys", opt=under(tenant("manage")) | ANSWER_ONCE)
async def create_key(
    data: schemas.KeyCreate, principal: Principal, database: Database, peppers: Peppers, settings: Settings
) -> schemas.KeyView:
    """The answer holds the key; it is never shown again. It may do no more than the key that asks."""
    async with database.tenant(principal.tenant_id) as connection:
        issued = await service.create_key(
            connection, principal.tenant_id, peppers, by=principal, name=data.name, env=settings.environment,
            scopes=data.scopes, expires_at=data.expires_at,
        )  # fmt: skip
    return schemas.KeyView.of(issued.key, issued.text)


@get("/keys", opt=under(tenant("manage")))
async def list_keys(
    principal: Principal, database: Database, limit: Limit = 20, after: After = None
) -> schemas.KeyPage:
    start = cursor("key", after)
    async with database.tenant(principal.tenant_id) as connection:
        found = await service.list_keys(connection, principal.tenant_id, limit + 1, start)
    rows, more = cut(found, limit)
    data = [schemas.KeyView.of(row) for row in rows]
    return schemas.KeyPage(data=data, has_more=more, next=data[-1].id if more else None)


@get("/keys/{key_id:str}", opt=under(tenant("manage")))
async def get_key(key_id: KeyId, principal: Principal, database: Database) -> schemas.KeyView:
    async with database.tenant(principal.tenant_id) as connection:
        found = await service.get_key(connection, principal.tenant_id, ids.from_text("key", key_id))
    return schemas.KeyView.of(found)


@delete("/keys/{key_id:str}", opt=under(tenant("manage")), status_code=200)
async def revoke_key(key_id: KeyId, principal: Principal, database: Database) -> schemas.KeyView:
    """Seen by every gateway within two seconds. Revoking twice is not an error. A key that may do more than the
    calling one is refused."""
    async with database.tenant(principal.tenant_id) as connection:
        found = await service.revoke_key(connection, principal.tenant_id, ids.from_text("key", key_id), by=principal)
    return schemas.KeyView.of(found)


router = Router(
    "/api/v1",
    route_handlers=[
        me, create_tenant, list_tenants, get_tenant, update_tenant, delete_tenant, get_tenant_quota, put_tenant_quota,
        create_key_of_tenant, put_key_quota, create_key, list_keys, get_key, revoke_key,
    ],
    tags=["tenancy"],
)  # fmt: skip
