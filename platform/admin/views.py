"""/api/v1: what the console's pages show beyond the other rooms' lists. Reads only, a tenant's own or the operator's.

Owns the mapping between HTTP and console.py, live.py and activity.py.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from litestar import Router, get
from litestar.params import Parameter
from litestar.response import Stream

from tenantry.platform.admin import schemas
from tenantry.platform.admin.activity import Asked, activity
from tenantry.platform.admin.console import Console
from tenantry.platform.admin.live import Watchers
from tenantry.platform.core import ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import InvalidInput
from tenantry.platform.core.paging import After, Limit, cut
from tenantry.platform.core.policy import OPERATOR, tenant, under
from tenantry.platform.tenants.acts import KINDS, Kind
from tenantry.platform.tenants.principal import Principal

MAX_ASKED = 100
_MANAGE = under(tenant("manage"))
_SSE = {"cache-control": "no-store", "x-accel-buffering": "no"}
AdapterIds = Annotated[list[str], Parameter(query="adapter", description=f"At most {MAX_ASKED}; repeatable.")]
AdapterName = Annotated[str | None, Parameter(query="adapter", max_length=63, description="An adapter's name.")]
VersionNumber = Annotated[int | None, Parameter(query="version", ge=1, le=1 << 30)]
KeyId = Annotated[str | None, Parameter(query="key", max_length=64)]
From = Annotated[datetime | None, Parameter(query="from", description="Start.")]
To = Annotated[datetime | None, Parameter(query="to", description="End, not included.")]
Kinds = Annotated[
    list[Kind] | None, Parameter(query="kind", max_items=len(KINDS), description="Only such acts; repeatable.")
]
TenantId = Annotated[str, Parameter(max_length=64, description="ten_ and 32 hex digits")]


@get("/overview", opt=_MANAGE)
async def overview(principal: Principal, console: Console) -> schemas.OverviewView:
    """How it goes now, the last day, what is left of the limits, and whether the books agree."""
    found = await console.overview(principal.tenant_id)
    return schemas.OverviewView.of(found, console.books, console.engine.ready)


@get("/overview/all", opt=under(OPERATOR))
async def overview_of_all(console: Console) -> schemas.OverviewView:
    """The same for all tenants together."""
    return schemas.OverviewView.of(await console.overview_of_all(), console.books, console.engine.ready)


@get("/live", opt=_MANAGE)
async def live(principal: Principal, console: Console) -> schemas.PaceView:
    """One look; for those who cannot keep a stream open."""
    return _look(principal, console)()


@get("/events", opt=_MANAGE, media_type="text/event-stream")
async def events(principal: Principal, console: Console, watchers: Watchers) -> Stream:
    """The same every two seconds, as server-sent events. Ends after ten minutes; clients ask again."""
    stream = watchers.watch(principal.tenant_id, _look(principal, console))
    return Stream(stream, media_type="text/event-stream", headers=_SSE)


@get("/adapter-stats", opt=_MANAGE)
async def adapter_stats(principal: Principal, console: Console, adapter: AdapterIds) -> schemas.AdapterStatsList:
    """Use, cost, speed and residency of some adapters: those on the page that is being looked at."""
    if len(adapter) > MAX_ASKED:
        raise InvalidInput(f"At most {MAX_ASKED} adapters at once.", param="adapter")
    wanted = [ids.from_text("adapter", one) for one in dict.fromkeys(adapter)]
    found = await console.adapter_stats(principal.tenant_id, wanted)
    return schemas.AdapterStatsList(
        [schemas.AdapterStatsView.of(i, stats) for i, stats in found.items()],
        [schemas.EngineRef(engine.name, engine.role, engine.state) for engine in console.engine.reports()],
    )


@get("/impact", opt=_MANAGE)
async def impact(
    principal: Principal,
    console: Console,
    key: KeyId = None,
    adapter: AdapterName = None,
    version: VersionNumber = None,
) -> schemas.ImpactView:
    """What revoking a key, or deleting an adapter or retiring one of its versions, would hit now."""
    if (key is None) == (adapter is None):
        raise InvalidInput("Name either a key or an adapter.", param="key")
    if key is not None:
        return schemas.ImpactView.of(await console.impact_of_key(principal.tenant_id, ids.from_text("key", key)))
    return schemas.ImpactView.of(await console.impact_of_adapter(principal.tenant_id, adapter or "", version))


@get("/tenants/{tenant_id:str}/impact", opt=under(OPERATOR))
async def impact_of_tenant(tenant_id: TenantId, console: Console) -> schemas.ImpactView:
    """What suspending or deleting a tenant would hit now."""
    return schemas.ImpactView.of(await console.impact_of_tenant(ids.from_text("tenant", tenant_id)))


@get("/activity", opt=_MANAGE)
async def list_activity(
    principal: Principal,
    database: Database,
    limit: Limit = 20,
    after: After = None,
    start: From = None,
    end: To = None,
    adapter: AdapterName = None,
    kind: Kinds = None,
) -> schemas.ActPage:
    """Who did what, newest first; the operator also sees what was done to others with the operator's keys."""
    asked = Asked(start, end, adapter, tuple(kind) if kind else KINDS, elsewhere=principal.is_operator)
    scope = database.operator() if principal.is_operator else database.tenant(principal.tenant_id)
    async with scope as connection:
        rows, more = cut(await activity(connection, principal.tenant_id, limit + 1, after, asked), limit)
    data = [schemas.ActView.of(row) for row in rows]
    return schemas.ActPage(data=data, has_more=more, next=rows[-1].cursor if more else None)


def _look(principal: Principal, console: Console) -> Callable[[], schemas.PaceView]:
    return lambda: schemas.PaceView.of(console.recent.pace(principal.tenant_id), console.engine.ready)


router = Router(
    "/api/v1",
    route_handlers=[
        overview, overview_of_all, live, events, adapter_stats, impact, impact_of_tenant, list_activity,
    ],
    tags=["console"],
)  # fmt: skip
