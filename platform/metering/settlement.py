"""Money moves here only: one statement per batch elects one winner per request and writes everything that follows.

Owns the Settler, whose task belongs to the process and not to a request, so no disconnect can cut it short. Retrying
with the same id is a no-op, hence an unheard COMMIT is simply sent again. The SQL is the function `settle`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from logging import ERROR, WARNING
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import asyncpg
import msgspec
import structlog

from tenantry.platform.core.database import Connection, Database, translated
from tenantry.platform.core.errors import Conflict, DatabaseUnavailable
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.metering.pricing import Price, charge
from tenantry.platform.metering.receipt import Receipt
from tenantry.runtime.messages import Usage

if TYPE_CHECKING:
    from tenantry.platform.metering.admission import Ticket

Outcome = Literal["completed", "cancelled", "failed", "refused", "recovered"]
Commit = Callable[[Connection], Awaitable[None]]
BATCH: Final = 500
GATHER_S: Final = 0.005
RETRY_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one request: the engine's counts, and how it ended. Zero is zero, not missing."""

    request_id: UUID
    receipt: Receipt
    price: Price
    usage: Usage
    outcome: Outcome


async def settle(connection: Connection, items: Sequence[Settlement]) -> set[UUID]:
    """In an operator transaction. Returns the ids settled by this call; the others already were.

    An item the database refuses (it breaks a constraint) is logged and left out; it never holds up the rest.
    """
    if not items:
        return set()
    try:
        async with connection.transaction():
            return {row[0] for row in await connection.fetch("SELECT settle($1)", [_row(item) for item in items])}
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        if len(items) == 1:
            log.error("settlement refused", request_id=str(items[0].request_id), error=str(error))
            return set()
    half = len(items) // 2
    return await settle(connection, items[:half]) | await settle(connection, items[half:])


async def abandon(connection: Connection, requests: Sequence[tuple[UUID, UUID]]) -> None:
    """(tenant, request) pairs whose counts this gateway does not know: the reaper asks the journal. As operator."""
    await connection.execute(
        "UPDATE request r SET epoch = NULL FROM unnest($1::uuid[], $2::uuid[]) AS x (tenant_id, id) "
        "WHERE r.tenant_id = x.tenant_id AND r.id = x.id AND r.state = 'admitted'",
        [tenant for tenant, _ in requests],
        [request for _, request in requests],
    )


def _row(item: Settlement) -> dict[str, Any]:
    usage = item.usage
    return {
        **msgspec.structs.asdict(item.receipt),
        "request_id": item.request_id,
        "prompt": usage.prompt,
        "cached": usage.cached,
        "completion": usage.completion,
        "drafted": usage.drafted,
        "accepted": usage.accepted,
        "nano": charge(item.price, usage).total,
        "outcome": item.outcome,
    }


@dataclass(slots=True)
class _Waiting:
    """done: settled; its result is what kept `commit` from being written, if anything did."""

    item: Settlement
    commit: Commit | None = None
    done: "asyncio.Future[Exception | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Settler:
    """Batches what arrives within a few milliseconds and never gives up on an outage."""

    def __init__(self, database: Database, telemetry: Telemetry | None = None) -> None:
        self._database = database
        self._telemetry = telemetry or Telemetry.create()
        self._waiting: list[_Waiting] = []
        self._abandoned: list[tuple[UUID, UUID]] = []
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def submit(
        self, ticket: "Ticket", usage: Usage, outcome: Outcome, commit: Commit | None = None
    ) -> "asyncio.Future[Exception | None]":
        """Returns at once. The future is done once the ledger has it; nobody needs to wait for it.

        commit: writes what becomes true with this settlement, in its transaction and only if it wins. If it fails,
        what it wrote is undone, the settlement stands, and the future's result says why.
        """
        waiting = _Waiting(Settlement(ticket.request_id, ticket.receipt, ticket.price, usage, outcome), commit)
        self._waiting.append(waiting)
        self._wake()
        return waiting.done

    def abandon(self, tenant_id: UUID, request_id: UUID) -> None:
        """The engine never said how this request ended: leave it to its journal. Returns at once."""
        self._abandoned.append((tenant_id, request_id))
        self._wake()

    @property
    def pending(self) -> int:
        return len(self._waiting) + len(self._abandoned)

    async def drain(self, timeout_s: float) -> bool:
        """Waits until nothing is pending; False when time ran out first (the reaper will do the rest)."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _wake(self) -> None:
        self._idle.clear()
        self._more.set()
        self._telemetry.unsettled.set(self.pending)

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._more.wait()
            await asyncio.sleep(GATHER_S)
            try:
                await self._flush()
                failures = 0
            except Exception as error:  # an outage, or a bug: either way what is owed stays in the queue
                known = isinstance(error, DatabaseUnavailable)
                log.log(
                    WARNING if known else ERROR,
                    "settlement will be retried",
                    pending=self.pending,
                    exc_info=not known,
                )
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            self._telemetry.unsettled.set(self.pending)
            if not self.pending:
                self._more.clear()
                self._idle.set()

    async def _flush(self) -> None:
        """What was written leaves the queue only after its commit was heard."""
        batch = self._waiting[:BATCH]
        if batch:
            await self._settle(batch)
            del self._waiting[: len(batch)]
        leaving = self._abandoned[:BATCH]
        if leaving:
            async with self._database.operator() as connection:
                await abandon(connection, leaving)
            del self._abandoned[: len(leaving)]

    async def _settle(self, batch: list[_Waiting]) -> None:
        with self._telemetry.settle_seconds.time():
            async with self._database.operator() as connection:
                won = await settle(connection, [w.item for w in batch])
                failures = [await _commit(connection, w, won) for w in batch]
        for waiting, failure in zip(batch, failures, strict=True):
            if waiting.item.request_id in won:
                self._telemetry.settled.labels(waiting.item.outcome).inc()
            if not waiting.done.done():
                waiting.done.set_result(failure)


async def _commit(connection: Connection, waiting: _Waiting, won: set[UUID]) -> Exception | None:
    """Raises DatabaseUnavailable alone: then nothing of the batch is written, and all of it is tried again."""
    if waiting.commit is None:
        return None
    if waiting.item.request_id not in won:
        return Conflict("This request was settled before.", code="request_already_settled")
    try:
        with translated():
            async with connection.transaction():
                await waiting.commit(connection)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # a refusal, or a bug: neither may hold up anybody's bill
        return error
    return None
