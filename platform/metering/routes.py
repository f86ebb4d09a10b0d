"""/api/v1: usage, wallets and prices. A tenant reads its own; the operator sets prices and grants.

Owns the mapping between HTTP and the services. Everything here is read from what settlement wrote.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Router, get, post
from litestar.params import Parameter

from tenantry.platform.core import ids, money
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import InvalidInput, NotFound
from tenantry.platform.core.paging import After, Limit, cursor, cut
from tenantry.platform.core.policy import OPERATOR, tenant, under
from tenantry.platform.metering import prices, schemas, usage, wallet
from tenantry.platform.metering.chart import Bucket, Measure, SeriesBy, Shape
from tenantry.platform.metering.headroom import Headroom, headroom
from tenantry.platform.metering.series import series
from tenantry.platform.tenants import service as tenants
from tenantry.platform.tenants.principal import Principal

From = Annotated[
    datetime | None, Parameter(query="from", description="Start, a whole hour counts if it begins after.")
]
To = Annotated[datetime | None, Parameter(query="to", description="End, not included.")]
RequestId = Annotated[str, Parameter(max_length=64, description="req_ and 32 hex digits")]
TenantId = Annotated[str, Parameter(max_length=64, description="ten_ and 32 hex digits")]
KeyFilter = Annotated[str | None, Parameter(query="key", max_length=64)]
AfterEntry = Annotated[int | None, Parameter(ge=0, le=1 << 62)]
BaseId = Annotated[str, Parameter(max_length=64, description="base_ and 32 hex digits, as /v1/models tells")]
AdapterFilter = Annotated[str | None, Parameter(query="adapter", max_length=64)]
VersionFilter = Annotated[str | None, Parameter(query="version", max_length=64)]
BaseFilter = Annotated[
    str | None, Parameter(query="base", max_length=200, description="A base model's name: requests of no adapter.")
]


@get("/usage", opt=under(tenant("manage")))
async def summarize(
    principal: Principal,
    database: Database,
    group_by: usage.GroupBy = "adapter",
    limit: Limit = 100,
    after: After = None,
    start: From = None,
    end: To = None,
    key: KeyFilter = None,
    adapter: AdapterFilter = None,
) -> schemas.UsageReport:
    """Requests, tokens and cost by adapter, key or model, the dearest first; by hour; or in total."""
    begin = usage.Place.read(after) if after is not None else None
    window = usage.Window(start, end, _filter("key", key), _filter("adapter", adapter))
    async with database.tenant(principal.tenant_id) as connection:
        found = await usage.summarize(connection, principal.tenant_id, group_by, window, limit + 1, begin)
    rows, more = cut(found, limit)
    data = [schemas.UsageRow.of(group_by, row) for row in rows]
    return schemas.UsageReport(
        group_by=group_by, data=data, has_more=more, next=str(rows[-1].place) if more else None
    )


@get("/usage/events", opt=under(tenant("manage")))
async def list_events(
    principal: Principal,
    database: Database,
    limit: Limit = 20,
    after: After = None,
    key: KeyFilter = None,
    adapter: AdapterFilter = None,
    version: VersionFilter = None,
    base: BaseFilter = None,
    start: From = None,
    end: To = None,
) -> schemas.UsageEventPage:
    """Single requests, newest first."""
    begin = cursor("request", after)
    window = usage.Window(start, end, _filter("key", key), _filter("adapter", adapter))
    async with database.tenant(principal.tenant_id) as connection:
        found = await usage.list_events(
            connection, principal.tenant_id, limit + 1, begin, window,
            version_id=_filter("version", version), base=base,
        )  # fmt: skip
    rows, more = cut(found, limit)
    data = [schemas.UsageEventView.of(row) for row in rows]
    return schemas.UsageEventPage(data=data, has_more=more, next=data[-1].request_id if more else None)


@get("/usage/events/{request_id:str}", opt=under(tenant("manage")))
async def get_event(request_id: RequestId, principal: Principal, database: Database) -> schemas.UsageEventView:
    """One request, once it is settled: a 404 until then."""
    which = ids.from_text("request", request_id)
    async with database.tenant(principal.tenant_id) as connection:
        found = await usage.event(connection, principal.tenant_id, which)
    if found is None:
        raise NotFound("No settled request has this id.", code="request_not_found")
    return schemas.UsageEventView.of(found)


@get("/usage/series", opt=under(tenant("manage")))
async def read_series(
    principal: Principal,
    database: Database,
    group_by: SeriesBy = "adapter",
    bucket: Bucket = "hour",
    measure: Measure = "cost",
    groups: Annotated[int, Parameter(ge=1, le=20, description="How many groups are told apart.")] = 8,
    start: From = None,
    end: To = None,
    key: KeyFilter = None,
    adapter: AdapterFilter = None,
) -> schemas.UsageSeries:
    """Usage over time by adapter, version, key or in total; the dearest groups by name, all others as one."""
    window = usage.Window(start, end, _filter("key", key), _filter("adapter", adapter))
    async with database.tenant(principal.tenant_id) as connection:
        points = await series(connection, principal.tenant_id, Shape(group_by, bucket, measure, groups), window)
    return schemas.UsageSeries(group_by, bucket, [schemas.SeriesPoint.of(group_by, point) for point in points])


@get("/limits", opt=under(tenant("manage")))
async def read_limits(
    principal: Principal, database: Database, limit: Limit = 20, after: After = None
) -> schemas.HeadroomPage:
    """The tenant's limits, then those of its keys, with what is left of them now."""
    start = cursor("key", after)
    async with database.tenant(principal.tenant_id) as connection:
        return _rooms(await headroom(connection, principal.tenant_id, limit + 1, start), limit)


@get("/tenants/{tenant_id:str}/limits", opt=under(OPERATOR))
async def read_limits_of_tenant(
    tenant_id: TenantId, database: Database, limit: Limit = 20, after: After = None
) -> schemas.HeadroomPage:
    found, start = ids.from_text("tenant", tenant_id), cursor("key", after)
    async with database.operator() as connection:
        await tenants.get_tenant(connection, found)
        return _rooms(await headroom(connection, found, limit + 1, start), limit)


@get("/wallet", opt=under(tenant("manage")))
async def read_wallet(
    principal: Principal,
    database: Database,
    limit: Limit = 20,
    after: AfterEntry = None,
) -> schemas.WalletPage:
    """The balance and what made it, newest first. after: the `next` of the page before."""
    async with database.tenant(principal.tenant_id) as connection:
        return await _wallet(connection, principal.tenant_id, limit, after)


@get("/tenants/{tenant_id:str}/wallet", opt=under(OPERATOR))
async def read_wallet_of_tenant(
    tenant_id: TenantId, database: Database, limit: Limit = 20, after: AfterEntry = None
) -> schemas.WalletPage:
    """As /wallet, of any tenant; a deleted one's is kept with the books."""
    found = ids.from_text("tenant", tenant_id)
    async with database.operator() as connection:
        await tenants.get_tenant(connection, found)
        return await _wallet(connection, found, limit, after)


@post("/tenants/{tenant_id:str}/wallet", opt=under(OPERATOR))
async def enter(
    tenant_id: str, data: schemas.WalletEnter, principal: Principal, database: Database
) -> dict[str, str]:
    """A grant or a correction; entries are never changed."""
    if "\0" in data.note:
        raise InvalidInput("note must not hold a NUL.", param="note")
    found, nano = ids.from_text("tenant", tenant_id), money.parse(data.amount)
    async with database.operator() as connection:
        balance = await wallet.enter(connection, found, data.kind, nano, data.note, principal)
    return {"object": "wallet", "balance": money.render(balance)}


@get("/prices/current", opt=under(tenant()))
async def current_price(database: Database, base_model: BaseId) -> schemas.PriceView:
    """What a token costs now."""
    base_id = ids.from_text("base", base_model)
    async with database.operator() as connection:
        price = await prices.current_price(connection, base_id)
    if price is None:
        raise NotFound("The base model has no price.", code="price_not_found")
    return schemas.PriceView.of(price)


@get("/prices", opt=under(tenant()))
async def list_prices(
    database: Database, base_model: BaseId, limit: Limit = 20, after: After = None
) -> schemas.PricePage:
    """Every price the base model had, has, or is going to have; the latest first."""
    base_id, start = ids.from_text("base", base_model), cursor("price", after)
    async with database.operator() as connection:
        rows, more = cut(await prices.list_prices(connection, base_id, limit + 1, start), limit)
    data = [schemas.DatedPrice.of(row) for row in rows]
    return schemas.PricePage(data=data, has_more=more, next=data[-1].id if more else None)


@post("/prices", opt=under(OPERATOR))
async def add_price(
    data: schemas.PriceBody, principal: Principal, database: Database, base_model: BaseId
) -> schemas.PriceView:
    """A new price, from now or later, never from the past; events keep the price they were admitted under."""
    async with database.operator() as connection:
        price = await prices.add_price(
            connection,
            ids.from_text("base", base_model),
            prompt_nano=money.parse(data.prompt, "prompt"),
            cached_nano=money.parse(data.cached, "cached"),
            completion_nano=money.parse(data.completion, "completion"),
            rejected_nano=money.parse(data.rejected, "rejected"),
            effective_from=data.effective_from,
            by=principal,
        )
    return schemas.PriceView.of(price)


def _rooms(found: list[Headroom], limit: int) -> schemas.HeadroomPage:
    """The tenant's own row, on the first page, comes on top of the limit; its cursor is always a key's."""
    keys, more = cut([room for room in found if room.name is not None], limit)
    data = [schemas.HeadroomView.of(room) for room in (*(r for r in found if r.name is None), *keys)]
    return schemas.HeadroomPage(data=data, has_more=more, next=data[-1].key if more else None)


async def _wallet(connection: Connection, tenant_id: UUID, limit: int, after: int | None) -> schemas.WalletPage:
    balance = await wallet.balance(connection, tenant_id)
    rows, more = cut(await wallet.list_entries(connection, tenant_id, limit + 1, after), limit)
    data = [schemas.WalletEntryView.of(row) for row in rows]
    return schemas.WalletPage(
        balance=money.render(balance), data=data, has_more=more, next=str(data[-1].seq) if more else None
    )


def _filter(kind: ids.Kind, text: str | None) -> UUID | None:
    return ids.from_text(kind, text) if text is not None else None


router = Router(
    "/api/v1",
    route_handlers=[
        summarize,
        list_events,
        get_event,
        read_series,
        read_limits,
        read_limits_of_tenant,
        read_wallet,
        read_wallet_of_tenant,
        enter,
        current_price,
        list_prices,
        add_price,
    ],
    tags=["metering"],
)
