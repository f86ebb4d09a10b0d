"""The price table: effective-dated rows that never change. Admission takes the one in force by database time."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from tenantry.platform.core import ids, money
from tenantry.platform.core.database import Connection
from tenantry.platform.core.errors import Conflict, InvalidInput
from tenantry.platform.metering.pricing import Price
from tenantry.platform.tenants.acts import Act, record
from tenantry.platform.tenants.principal import Principal

AGREED: Final = timedelta(minutes=1)  # by so much clocks may differ, and forms tell whole minutes
_IS_PAST: Final = "SELECT $1::timestamptz < clock_timestamp() - $2::interval"
_MILLION: Final = 1_000_000


async def add_price(
    connection: Connection,
    base_model_id: UUID,
    *,
    prompt_nano: int,
    cached_nano: int,
    completion_nano: int,
    rejected_nano: int = 0,
    effective_from: datetime | None = None,
    by: Principal | None = None,
) -> Price:
    """As the operator. Nano-units per token; effective now unless a later time is given: what was admitted before is
    charged as it was admitted, so an earlier one is refused. by: who asks, None for the installation itself."""
    if not 0 <= cached_nano <= prompt_nano:
        raise InvalidInput("A cached token cannot cost more than a computed one.", param="cached_nano")
    if not 0 <= rejected_nano <= completion_nano:
        raise InvalidInput("A rejected guess cannot cost more than a token.", param="rejected_nano")
    if effective_from is not None and effective_from.tzinfo is None:
        raise InvalidInput("effective_from must carry a time zone.", param="effective_from")
    if effective_from is not None and await connection.fetchval(_IS_PAST, effective_from, AGREED):
        raise InvalidInput("effective_from is in the past: leave it out for now.", param="effective_from")
    try:
        row = await connection.fetchrow(
            "INSERT INTO price (id, base_model_id, prompt_nano, cached_nano, completion_nano, rejected_nano, "
            "effective_from) "
            "VALUES ($1, $2, $3, $4, $5, $6, greatest($7::timestamptz, clock_timestamp())) RETURNING *",
            ids.uuid7(),
            base_model_id,
            prompt_nano,
            cached_nano,
            completion_nano,
            rejected_nano,
            effective_from,
        )
    except (asyncpg.CheckViolationError, asyncpg.DataError):
        raise InvalidInput("A price is out of bounds.", param="price") from None
    except asyncpg.UniqueViolationError:
        raise Conflict("Another price takes effect at that very time.", param="effective_from") from None
    price = _price(row)
    if by is not None:
        await record(connection, by.tenant_id, by, Act("price_set", await _named(connection, row), _told(price)))
    return price


async def ensure_price(
    connection: Connection,
    base_model_id: UUID,
    prompt_nano: int,
    cached_nano: int,
    completion_nano: int,
    rejected_nano: int = 0,
) -> Price:
    """As the operator: the price in force, made from these numbers when there is none yet."""
    found = await current_price(connection, base_model_id)
    return found or await add_price(
        connection,
        base_model_id,
        prompt_nano=prompt_nano,
        cached_nano=cached_nano,
        completion_nano=completion_nano,
        rejected_nano=rejected_nano,
    )


async def current_price(connection: Connection, base_model_id: UUID) -> Price | None:
    row = await connection.fetchrow(
        "SELECT * FROM price WHERE base_model_id = $1 AND effective_from <= clock_timestamp() "
        "ORDER BY effective_from DESC LIMIT 1",
        base_model_id,
    )
    return _price(row) if row else None


@dataclass(frozen=True, slots=True)
class Dated:
    """A price and when it takes effect, or took."""

    price: Price
    effective_from: datetime


async def list_prices(
    connection: Connection, base_model_id: UUID, limit: int = 100, after: UUID | None = None
) -> list[Dated]:
    """The latest first, those that are still to come included."""
    rows = await connection.fetch(
        "SELECT * FROM price WHERE base_model_id = $1 AND ($2::uuid IS NULL OR effective_from < "
        "(SELECT x.effective_from FROM price x WHERE x.id = $2)) ORDER BY effective_from DESC LIMIT $3",
        base_model_id,
        after,
        limit,
    )
    return [Dated(_price(row), row["effective_from"]) for row in rows]


async def prices_by_id(connection: Connection, price_ids: Iterable[UUID]) -> dict[UUID, Price]:
    rows = await connection.fetch("SELECT * FROM price WHERE id = ANY($1::uuid[])", list(set(price_ids)))
    return {price.id: price for price in map(_price, rows)}


async def _named(connection: Connection, row: asyncpg.Record) -> str:
    """The base model, and from when the price holds."""
    name = await connection.fetchval("SELECT name FROM base_model WHERE id = $1", row["base_model_id"])
    return f"{name} from {row['effective_from']:%Y-%m-%d %H:%M} UTC"


def _told(price: Price) -> str:
    kinds = {
        "prompt": price.prompt_nano, "cached": price.cached_nano, "completion": price.completion_nano,
        "rejected": price.rejected_nano,
    }  # fmt: skip
    return ", ".join(f"{kind} {money.render(nano * _MILLION)}" for kind, nano in kinds.items()) + " per million"


def _price(row: asyncpg.Record) -> Price:
    return Price(row["id"], row["prompt_nano"], row["cached_nano"], row["completion_nano"], row["rejected_nano"])
