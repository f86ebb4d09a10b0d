"""/api/v1: usage, wallets and prices. A tenant reads its own; the operator sets prices and grants.

Owns the mapping between HTTP and the services. Everything here is read from what settlement wrote.
"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Router, get, post
from litestar.params import Parameter

from tenantry.platform.core import ids, money
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import InvalidInput, NotFound
from tenantry.platform.core.paging import After, Limit, cursor, cut
from tenantry.platform.core.policy import OPERATOR, tenant, under
from tenantry.platform.metering import prices, schemas, usage, wallet
from tenantry.platform.tenants.principal import Principal

From = Annotated[
    datetime | None, Parameter(query="from", description="Start, a whole hour counts if it begins after.")
]
To = Annotated[datetime | None, Parameter(query="to", description="End, not included.")]
KeyFilter = Annotated[str | None, Parameter(query="key", max_length=64)]
BaseId = Annotated[str, Parameter(max_length=64, description="base_ and 32 hex digits, as /v1/models tells")]
AdapterFilter = Annotated[str | None, Parameter(query="adapter", max_length=64)]


@get("/usage", opt=under(tenant("manage")))
async def summarize(
    principal: Principal,
    database: Database,
    group_by: usage.GroupBy = "adapter",
    start: From = None,
    end: To = None,
    key: KeyFilter = None,
    adapter: AdapterFilter = None,
) -> schemas.UsageReport:
    """Requests, tokens and cost by adapter, key, model, hour, or in total."""
    window = usage.Window(start, end, _filter("key", key), _filter("adapter", adapter))
    async with database.tenant(principal.tenant_id) as connection:
        rows = await usage.summarize(connection, principal.tenant_id, group_by, window)
    return schemas.UsageReport(group_by, [schemas.UsageRow.of(group_by, row) for row in rows])


@get("/usage/events", opt=under(tenant("manage")))
async def list_events(
    principal: Principal,
    database: Database,
    limit: Limit = 20,
    after: After = None,
    key: KeyFilter = None,
    adapter: AdapterFilter = None,
) -> schemas.UsageEventPage:
    """Single requests, newest first."""
    begin, by_key, by_adapter = cursor("request", after), _filter("key", key), _filter("adapter", adapter)
    async with database.tenant(principal.tenant_id) as connection:
        found = await usage.list_events(connection, principal.tenant_id, limit + 1, begin, by_key, by_adapter)
    rows, more = cut(found, limit)
    data = [schemas.UsageEventView.of(row) for row in rows]
    return schemas.UsageEventPage(data=data, has_more=more, next=data[-1].request_id if more else None)


@get("/wallet", opt=under(tenant("manage")))
async def read_wallet(
    principal: Principal,
    database: Database,
    limit: Limit = 20,
    after: Annotated[int | None, Parameter(ge=0, le=1 << 62)] = None,
) -> schemas.WalletPage:
    """The balance and what made it, newest first. after: the `next` of the page before."""
    async with database.tenant(principal.tenant_id) as connection:
        balance = await wallet.balance(connection, principal.tenant_id)
        found = await wallet.list_entries(connection, principal.tenant_id, limit + 1, after)
    rows, more = cut(found, limit)
    data = [schemas.WalletEntryView.of(row) for row in rows]
    return schemas.WalletPage(
        balance=money.render(balance), data=data, has_more=more, next=str(data[-1].seq) if more else None
    )


@post("/tenants/{tenant_id:str}/wallet", opt=under(OPERATOR))
async def enter(tenant_id: str, data: schemas.WalletEnter, database: Database) -> dict[str, str]:
    """A grant or a correction; entries are never changed."""
    if "\0" in data.note:
        raise InvalidInput("note must not hold a NUL.", param="note")
    found, nano = ids.from_text("tenant", tenant_id), money.parse(data.amount)
    async with database.operator() as connection:
        return {
            "object": "wallet",
            "balance": money.render(await wallet.enter(connection, found, data.kind, nano, data.note)),
        }


@get("/prices/current", opt=under(tenant()))
async def current_price(database: Database, base_model: BaseId) -> schemas.PriceView:
    """What a token costs now."""
    base_id = ids.from_text("base", base_model)
    async with database.operator() as connection:
        price = await prices.current_price(connection, base_id)
    if price is None:
        raise NotFound("The base model has no price.", code="price_not_found")
    return schemas.PriceView.of(price)


@post("/prices", opt=under(OPERATOR))
async def add_price(data: schemas.PriceBody, database: Database, base_model: BaseId) -> schemas.PriceView:
    """A new price, from now or later; events keep the price they were admitted under."""
    async with database.operator() as connection:
        price = await prices.add_price(
            connection,
            ids.from_text("base", base_model),
            prompt_nano=money.parse(data.prompt, "prompt"),
            cached_nano=money.parse(data.cached, "cached"),
            completion_nano=money.parse(data.completion, "completion"),
            rejected_nano=money.parse(data.rejected, "rejected"),
            effective_from=data.effective_from,
        )
    return schemas.PriceView.of(price)


def _filter(kind: ids.Kind, text: str | None) -> UUID | None:
    return ids.from_text(kind, text) if text is not None else None


router = Router(
    "/api/v1",
    route_handlers=[summarize, list_events, read_wallet, enter, current_price, add_price],
    tags=["metering"],
)
