"""The one door to the engine: limits, reservation and request row in one short transaction, before any token exists.

Owns the translation of the database's decision into typed refusals. The decision itself is the SQL function `admit`.
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tenantry.platform.core import ids, money
from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.errors import (
    ConcurrencyLimited,
    DatabaseUnavailable,
    InvalidInput,
    MeteringUnavailable,
    PlatformError,
    QuotaExceeded,
    RateLimited,
)
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.metering.epochs import Epoch
from tenantry.platform.metering.pricing import Price, most_rejected
from tenantry.platform.metering.receipt import Receipt, encode
from tenantry.platform.metering.settlement import Settler

MAX_TOKENS = 1 << 31


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for. Token counts are upper bounds: prompt, and max_tokens times n. guesses: whether the
    engine may guess for it, so that what is reserved must cover guesses that fall."""

    tenant_id: UUID
    key_id: UUID
    base_model_id: UUID
    adapter_id: UUID | None
    adapter_version_id: UUID | None
    model: str
    prompt_tokens: int
    completion_tokens: int
    guesses: bool = True


@dataclass(frozen=True, slots=True)
class Ticket:
    """An admitted request: settle it exactly once, or abandon it to the journal. headers go on the response."""

    request_id: UUID
    receipt: Receipt
    price: Price
    reserved_nano: int
    headers: dict[str, str]

    @property
    def receipt_bytes(self) -> bytes:
        """For runtime.messages.Submit.receipt."""
        return encode(self.receipt)


async def admit(connection: Connection, epoch: UUID, request_id: UUID, order: Order) -> Ticket:
    """One round trip. Raises RateLimited, ConcurrencyLimited, QuotaExceeded or MeteringUnavailable.

    Calling it again with the same request_id, when the first answer was lost, admits once.
    """
    if not (0 <= order.prompt_tokens <= MAX_TOKENS and 0 <= order.completion_tokens <= MAX_TOKENS):
        raise InvalidInput("The request's token counts are out of bounds.", param="max_tokens")
    row = await connection.fetchrow(
        "SELECT * FROM admit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        order.tenant_id,
        order.key_id,
        request_id,
        epoch,
        order.base_model_id,
        order.adapter_id,
        order.adapter_version_id,
        order.model,
        order.prompt_tokens,
        order.completion_tokens,
        most_rejected(order.completion_tokens) if order.guesses else 0,
    )
    if row["decision"] != "admitted":
        raise refusal(row)
    rates = (row[name] for name in ("prompt_nano", "cached_nano", "completion_nano", "rejected_nano"))
    price = Price(row["price_id"], *rates)
    receipt = Receipt(
        tenant_id=order.tenant_id,
        key_id=order.key_id,
        base_model_id=order.base_model_id,
        adapter_id=order.adapter_id,
        adapter_version_id=order.adapter_version_id,
        model=order.model,
        price_id=price.id,
        admitted_at=row["admitted"],
    )
    headers = {}
    if row["rate_limit"] is not None:
        headers["x-ratelimit-limit-requests"] = str(row["rate_limit"])
        headers["x-ratelimit-remaining-requests"] = str(row["rate_remaining"])
    return Ticket(request_id, receipt, price, row["reserved"], headers)


def refusal(row: Any) -> PlatformError:
    """The database's decision as an answer to the caller."""
    whose = "this tenant" if row["scope"] == "tenant" else "this API key"
    match row["decision"]:
        case "rate":
            return RateLimited(
                f"The limit of {row['rate_limit']} requests per minute of {whose} is reached.",
                retry_ms=row["retry_ms"],
            )
        case "concurrency":
            return ConcurrencyLimited(
                f"The limit of {row['rate_limit']} concurrent requests of {whose} is reached.",
                retry_ms=row["retry_ms"],
            )
        case "budget":
            return QuotaExceeded(
                f"The budget of {money.render(row['budget'])} of {whose} does not cover this request's maximum cost "
                f"of {money.render(row['reserved'])}.",
                param="max_tokens",
            )
        case "unpriced":
            return MeteringUnavailable("This base model has no price, so it cannot be served.", code="no_price")
        case "fenced":
            return MeteringUnavailable("This gateway cannot reach its ledger in time.")
        case decision:
            return MeteringUnavailable(f"This request is already {decision}.", code="request_already_settled")


class Admission:
    """admit() for the gateway: owns the connection, the fence, and what becomes of an admission nobody heard."""

    def __init__(
        self, database: Database, epoch: Epoch, settler: Settler, telemetry: Telemetry | None = None
    ) -> None:
        self._database = database
        self._epoch = epoch
        self._settler = settler
        self._telemetry = telemetry or Telemetry.create()
        self._running: set[asyncio.Task[Ticket]] = set()

    async def admit(self, order: Order, request_id: UUID | None = None) -> Ticket:
        """Raises as the function admit does, and DatabaseUnavailable. A cancelled caller leaves no hold behind."""
        if self._epoch.fenced:
            raise MeteringUnavailable("This gateway cannot reach its ledger in time.")
        name = request_id or ids.uuid7()
        task = asyncio.create_task(self._admit(order, name))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda t: self._forsake(t, order.tenant_id, name))
            raise
        except DatabaseUnavailable:
            self._settler.abandon(order.tenant_id, name)  # the commit may have happened all the same
            raise
        except PlatformError as error:
            self._telemetry.rejections.labels(error.code).inc()
            raise

    def _forsake(self, task: asyncio.Task[Ticket], tenant_id: UUID, request_id: UUID) -> None:
        if task.cancelled() or task.exception() is None or isinstance(task.exception(), DatabaseUnavailable):
            self._settler.abandon(tenant_id, request_id)

    async def _admit(self, order: Order, request_id: UUID) -> Ticket:
        with self._telemetry.admit_seconds.time():
            async with self._database.autocommit() as connection:
                return await admit(connection, self._epoch.id, request_id, order)
