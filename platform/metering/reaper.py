"""Settles what its gateway cannot: requests of dead or abandoned epochs, and journalled requests without a row.

The engine's journal is the only witness. A final record is believed at once; an open one only after it stood still
for PATIENCE_S (the engine aborts the requests of a silent gateway well before that). No record means no tokens.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from uuid import UUID

import structlog

from tenantry.platform.core.database import Connection, Database
from tenantry.platform.core.rounds import go_round
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.metering.epochs import DEAD_S
from tenantry.platform.metering.journal import Entry, Journal
from tenantry.platform.metering.prices import prices_by_id
from tenantry.platform.metering.receipt import Receipt
from tenantry.platform.metering.reconcile import Reconciliation, reconcile
from tenantry.platform.metering.settlement import BATCH, Settlement, settle
from tenantry.runtime.messages import BILLED, Usage

PATIENCE_S: Final = 15.0
OVERDUE_S: Final = 60.0  # a live gateway that knows the end and still has not settled it is taken for broken
EVERY_S: Final = 2.0
log = structlog.get_logger(__name__)

_ORPHANS = """
SELECT r.* FROM request r LEFT JOIN node n ON n.epoch = r.epoch
WHERE r.state = 'admitted' AND (n.epoch IS NULL OR n.seen_at < clock_timestamp() - make_interval(secs => $1))
ORDER BY r.tenant_id, r.id LIMIT $2
"""
_KNOWN = """
SELECT r.id, r.state, e.prompt, e.cached, e.completion, e.drafted, e.accepted
FROM unnest($1::uuid[], $2::uuid[]) AS x (tenant_id, id)
JOIN request r USING (tenant_id, id) LEFT JOIN usage_event e ON e.tenant_id = r.tenant_id AND e.request_id = r.id
"""


@dataclass(frozen=True, slots=True)
class _Orphan:
    """wait_s: how long its counters must have stood still before they are believed."""

    request_id: UUID
    receipt: Receipt
    usage: Usage
    wait_s: float


class Reaper:
    """Several may run at once: settlement elects one winner whoever asks."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        telemetry: Telemetry | None = None,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._journal = journal
        self._telemetry = telemetry or Telemetry.create()
        self._patience = patience_s
        self._clock = clock
        self._reading = asyncio.Lock()
        self._still: dict[UUID, tuple[Usage, float]] = {}  # counters, and since when they have not moved

    async def run(self) -> None:
        """Forever; an outage only delays it."""
        await go_round(self.reap, EVERY_S, log, "reaping will be retried")

    async def reap(self) -> set[UUID]:
        """One pass. Returns the requests it settled."""
        async with self._database.operator() as connection:
            rows = await connection.fetch(_ORPHANS, DEAD_S, BATCH)
        entries = await self._read()  # after the rows: what is dead by now writes no more
        async with self._database.operator() as connection:
            known = await self._known(connection, entries)
            orphans = {o.request_id: o for row in rows if (o := self._orphan(row, entries))}
            for request_id, entry in entries.items():
                state = known.get(request_id)
                if state is None:  # the database forgot the admission
                    wait = 0.0 if entry.final else self._patience
                elif state["state"] == "admitted" and entry.final:
                    wait = OVERDUE_S
                else:
                    continue
                orphans.setdefault(request_id, _Orphan(request_id, entry.receipt, entry.usage, wait))
            won = await self._settle(connection, self._ripe(list(orphans.values())))
        done = [i for i, row in known.items() if row["state"] == "settled" and _agrees(row, entries[i])]
        async with self._reading:
            await asyncio.to_thread(self._journal.forget, done)
        self._telemetry.recovered.inc(len(won))
        if won:
            log.info("recovered requests from the journal", count=len(won))
        return won

    async def reconcile(self) -> Reconciliation:
        """Proves the books against the journal, and sets the gauges that operators watch."""
        entries = await self._read()  # before the snapshot: what is final here has its event there, or is still open
        async with self._database.operator() as connection:
            found = await reconcile(connection, entries)
        self._telemetry.unreconciled_tokens.set(found.unreconciled_tokens)
        self._telemetry.oldest_open_seconds.set(found.oldest_open_seconds)
        for finding in found.findings:
            log.error("the books disagree", finding=finding)
        return found

    async def _read(self) -> dict[UUID, Entry]:
        async with self._reading:
            return await asyncio.to_thread(self._journal.read)

    @staticmethod
    async def _known(connection: Connection, entries: dict[UUID, Entry]) -> dict[UUID, Any]:
        rows = await connection.fetch(_KNOWN, [e.receipt.tenant_id for e in entries.values()], list(entries))
        return {row["id"]: row for row in rows}

    def _orphan(self, row: Any, entries: dict[UUID, Entry]) -> _Orphan:
        receipt = Receipt(*(row[name] for name in Receipt.__struct_fields__))
        request_id = row["id"]
        entry = entries.get(request_id)
        if entry is None:
            return _Orphan(request_id, receipt, Usage(), self._patience)
        return _Orphan(request_id, receipt, entry.usage, 0.0 if entry.final else self._patience)

    def _ripe(self, orphans: Sequence[_Orphan]) -> list[_Orphan]:
        """Those whose counters have stood still for long enough."""
        now, before = self._clock(), self._still
        self._still = {}
        for o in orphans:
            usage, since = before.get(o.request_id, (o.usage, now))
            self._still[o.request_id] = (usage, since) if usage == o.usage else (o.usage, now)
        return [o for o in orphans if now - self._still[o.request_id][1] >= o.wait_s]

    @staticmethod
    async def _settle(connection: Connection, orphans: Sequence[_Orphan]) -> set[UUID]:
        if not orphans:
            return set()
        prices = await prices_by_id(connection, (o.receipt.price_id for o in orphans))
        items = []
        for o in orphans:
            if o.receipt.price_id in prices:
                items.append(Settlement(o.request_id, o.receipt, prices[o.receipt.price_id], o.usage, "recovered"))
            else:
                log.error("cannot recover a request at an unknown price", request_id=str(o.request_id))
        return await settle(connection, items)


def _agrees(row: Any, entry: Entry) -> bool:
    """An entry that disagrees with its event is kept, so that reconciliation keeps reporting it."""
    return entry.final and all(getattr(entry.usage, name) == row[name] for name in BILLED)
