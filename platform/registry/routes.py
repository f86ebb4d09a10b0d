"""/api/v1/adapters: adapters, their immutable versions, and the aliases that point at them.

Owns the mapping between HTTP and the registry. An upload is answered when its verdict is known: 201, or 422 with
every problem.
"""

import re
from typing import Annotated, Any, Literal

from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import Parameter

from tenantry.platform.core import ids
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import After, Limit, cursor, cut
from tenantry.platform.core.policy import tenant, under
from tenantry.platform.registry import schemas
from tenantry.platform.registry.intake import Intake
from tenantry.platform.registry.listing import Listing, Sort
from tenantry.platform.registry.models import State
from tenantry.platform.registry.residency import Holdings
from tenantry.platform.registry.service import Registry
from tenantry.platform.tenants.principal import Principal

Name = Annotated[str, Parameter(max_length=63, description="The adapter's name.")]
HavingState = Annotated[State | None, Parameter(query="state", description="Of any of its versions.")]
NamePart = Annotated[str | None, Parameter(max_length=63, description="Part of a name.")]
OnDevice = Annotated[bool, Parameter(query="on_device", description="Those that some engine's device holds now.")]
Number = Annotated[int, Parameter(ge=1, le=1 << 30)]
IfMatch = Annotated[str | None, Parameter(header="If-Match", max_length=64)]
Revoke = Annotated[bool, Parameter(query="revoke", description="End requests under way within two seconds.")]
UPLOAD_OVERHEAD = 1 << 20
_MANAGE = under(tenant("manage"))


@post("/adapters", opt=_MANAGE)
async def create_adapter(
    data: schemas.AdapterCreate, principal: Principal, registry: Registry
) -> schemas.AdapterView:
    data.check()
    return schemas.AdapterView.of(await registry.create(principal.tenant_id, principal, data.name, data.description))


@get("/adapters", opt=_MANAGE)
async def list_adapters(
    principal: Principal,
    registry: Registry,
    holdings: Holdings,
    limit: Limit = 20,
    after: After = None,
    name: NamePart = None,
    having: HavingState = None,
    on_device: OnDevice = False,
    sort: Sort = "created",
    order: Literal["asc", "desc"] = "desc",
) -> schemas.AdapterPage:
    """Newest first, or by name; those whose name holds a text, that have a version in a state, or one on a device."""
    held = holdings.on_device() if on_device else None
    listing = Listing(name, having, held, sort, order == "desc")
    found = await registry.adapters(principal.tenant_id, listing, cursor("adapter", after), limit + 1)
    rows, more = cut(found, limit)
    data = [schemas.AdapterRow.of(row) for row in rows]
    return schemas.AdapterPage(data=data, has_more=more, next=data[-1].id if more else None)


@get("/adapters/{name:str}", opt=_MANAGE)
async def get_adapter(name: Name, principal: Principal, registry: Registry) -> Response[schemas.AdapterView]:
    view = schemas.AdapterView.of(*await registry.adapter(principal.tenant_id, name))
    return Response(view, headers={"etag": view.etag})


@delete("/adapters/{name:str}", opt=_MANAGE, status_code=202)
async def delete_adapter(
    name: Name, principal: Principal, registry: Registry, if_match: IfMatch = None, revoke: Revoke = False
) -> schemas.Accepted:
    await registry.delete(principal.tenant_id, principal, name, _etag(if_match), revoke)
    return schemas.Accepted()


@post("/adapters/{name:str}/versions", opt=_MANAGE | {"no_idempotency_key": True}, request_max_body_size=None)
async def upload_version(
    name: Name, request: Request[Principal, Any, Any], principal: Principal, intake: Intake
) -> schemas.VersionView:
    """multipart/form-data: adapter_config.json and adapter_model.safetensors as PEFT saved them, or one zip of them.

    Makes the adapter if it is new; its first ready version becomes `default`. Optional: Content-Digest of the body,
    and a field `sha256` of the weights (or zip).
    """
    version = await intake.take(
        principal.tenant_id, principal, name, request.stream(), request.headers.get("content-type", ""),
        request.headers.get("content-digest"),
    )  # fmt: skip
    return schemas.VersionView.of(name, version)


@get("/adapters/{name:str}/versions", opt=_MANAGE)
async def list_versions(
    name: Name, principal: Principal, registry: Registry, limit: Limit = 20, after: After = None
) -> schemas.VersionPage:
    found = await registry.versions(principal.tenant_id, name, cursor("version", after), limit + 1)
    rows, more = cut(found, limit)
    data = [schemas.VersionView.of(name, row) for row in rows]
    return schemas.VersionPage(data=data, has_more=more, next=data[-1].id if more else None)


@get("/adapters/{name:str}/versions/{number:int}", opt=_MANAGE)
async def get_version(name: Name, number: Number, principal: Principal, registry: Registry) -> schemas.VersionView:
    return schemas.VersionView.of(name, await registry.version(principal.tenant_id, name, number))


@delete("/adapters/{name:str}/versions/{number:int}", opt=_MANAGE, status_code=202)
async def retire_version(
    name: Name, number: Number, principal: Principal, registry: Registry, revoke: Revoke = False
) -> schemas.Accepted:
    await registry.retire(principal.tenant_id, principal, name, number, revoke)
    return schemas.Accepted()


@get("/adapters/{name:str}/aliases/{alias:str}", opt=_MANAGE)
async def get_alias(name: Name, alias: Name, principal: Principal, registry: Registry) -> Response[schemas.AliasView]:
    view = schemas.AliasView.of(await registry.alias(principal.tenant_id, name, alias))
    return Response(view, headers={"etag": view.etag})


@put("/adapters/{name:str}/aliases/{alias:str}", opt=_MANAGE)
async def put_alias(
    name: Name,
    alias: Name,
    data: schemas.AliasPut,
    principal: Principal,
    registry: Registry,
    if_match: IfMatch = None,
) -> Response[schemas.AliasView]:
    """Point an alias at a ready version. Moving one needs its ETag as If-Match; creating one needs none."""
    data.check()
    moved = await registry.put_alias(
        principal.tenant_id, principal, name, alias, data.version, _etag(if_match), data.reason
    )
    view = schemas.AliasView.of(moved)
    return Response(view, headers={"etag": view.etag})


@delete("/adapters/{name:str}/aliases/{alias:str}", opt=_MANAGE)
async def delete_alias(
    name: Name, alias: Name, principal: Principal, registry: Registry, if_match: IfMatch = None
) -> None:
    await registry.delete_alias(principal.tenant_id, principal, name, alias, _etag(if_match))


@get("/adapters/{name:str}/aliases/{alias:str}/history", opt=_MANAGE)
async def alias_history(
    name: Name, alias: Name, principal: Principal, registry: Registry, limit: Limit = 20, after: After = None
) -> schemas.AliasMovePage:
    found = await registry.moves(principal.tenant_id, name, alias, cursor("event", after), limit + 1)
    rows, more = cut(found, limit)
    data = [schemas.AliasMove.of(row) for row in rows]
    return schemas.AliasMovePage(data=data, has_more=more, next=ids.to_text("event", rows[-1].id) if more else None)


def _etag(header: str | None) -> int | None:
    """Ours are quoted numbers. Raises InvalidInput for anything else."""
    if header is None:
        return None
    match = re.fullmatch(r'"([0-9]{1,18})"', header)
    if match is None:
        raise InvalidInput("If-Match must be an ETag of ours.", param="If-Match")
    return int(match[1])


router = Router(
    "/api/v1",
    route_handlers=[
        create_adapter, list_adapters, get_adapter, delete_adapter, upload_version, list_versions, get_version,
        retire_version, get_alias, put_alias, delete_alias, alias_history,
    ],
    tags=["adapters"],
)  # fmt: skip
