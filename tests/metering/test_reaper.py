"""What a dead gateway left open is settled from the engine's journal, once, and for exactly what was counted."""

import asyncio
import os
import time
from pathlib import Path

import asyncpg
import msgspec
import pytest

from tenantry.platform.core import ids
from tenantry.platform.core.telemetry import Telemetry
from tenantry.platform.metering import wallet
from tenantry.platform.metering.admission import Admission
from tenantry.platform.metering.epochs import Epoch
from tenantry.platform.metering.journal import Journal
from tenantry.platform.metering.reaper import OVERDUE_S, PATIENCE_S, Reaper
from tenantry.platform.metering.receipt import encode
from tenantry.platform.metering.reconcile import reconcile
from tenantry.runtime.journal import Closed, Counted, JournalWriter, Opened
from tenantry.runtime.messages import Usage


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """The journal side of an engine, written by hand."""

    def __init__(self, directory: Path, epoch: str = "e1") -> None:
        self.directory = directory
        self.writer = JournalWriter(directory, epoch)

    def opened(self, ticket) -> None:
        self.writer.append([Opened(str(ticket.request_id), ticket.receipt_bytes)])

    def counted(self, ticket, *usage: int) -> None:
        self.writer.append([Counted({str(ticket.request_id): Usage(*usage)})])

    def closed(self, ticket, *usage: int) -> None:
        self.writer.append([Closed(str(ticket.request_id), Usage(*usage), "stop")])


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path / "journal")
    yield engine
    engine.writer.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reaper(ledger, engine, clock) -> Reaper:
    return Reaper(ledger.database, Journal(engine.directory), clock=clock)


@pytest.fixture
async def dead(ledger):
    """A gateway that admits and then dies without a word."""
    epoch = Epoch(ledger.database)
    await epoch.beat()
    return Admission(ledger.database, epoch, ledger.settler)


async def bury(pg) -> None:
    admin = await asyncpg.connect(pg.admin)
    await admin.execute("UPDATE node SET seen_at = now() - interval '11 s'")
    await admin.close()


async def events(ledger) -> dict:
    rows = await ledger.rows("SELECT * FROM usage_event")
    return {r["request_id"]: (r["prompt"], r["cached"], r["completion"], r["outcome"]) for r in rows}


async def balanced(ledger, journal: Journal) -> None:
    found = journal.read()
    async with ledger.database.operator() as c:
        report = await reconcile(c, found)
    assert report.findings == ()
    assert report.unreconciled_tokens == 0


async def test_a_dead_gateways_requests_are_settled_from_the_journal(pg, ledger, engine, clock, reaper, dead):
    done, running, never = [await dead.admit(ledger.order()) for _ in range(3)]
    for ticket in (done, running):
        engine.opened(ticket)
        engine.counted(ticket, 10, 0, 4)
    engine.closed(done, 10, 2, 9, 8, 5)
    assert await reaper.reap() == set()  # its gateway is alive
    await bury(pg)
    await ledger.epoch.beat()
    assert await reaper.reap() == {done.request_id}  # the others may still be counted
    engine.counted(running, 10, 0, 6)
    clock.now = PATIENCE_S
    assert await reaper.reap() == {never.request_id}  # no record, no tokens; the other one moved
    clock.now = 2 * PATIENCE_S
    assert await reaper.reap() == {running.request_id}
    assert await events(ledger) == {
        done.request_id: (10, 2, 9, "recovered"),
        running.request_id: (10, 0, 6, "recovered"),
        never.request_id: (0, 0, 0, "recovered"),
    }
    assert await reaper.reap() == set()
    assert await ledger.value("SELECT sum(reserved_nano) FROM request WHERE state = 'admitted'") is None
    async with ledger.database.tenant(ledger.tenant_id) as c:
        assert await wallet.balance(c, ledger.tenant_id) == -(
            8 * 500 + 2 * 50 + 9 * 1500 + 3 * 7 + 10 * 500 + 6 * 1500
        )
    await balanced(ledger, Journal(engine.directory))


async def test_a_new_life_of_the_engine_makes_the_old_ones_counts_final(pg, ledger, engine, reaper, dead):
    ticket = await dead.admit(ledger.order())
    engine.opened(ticket)
    engine.counted(ticket, 10, 0, 4)
    engine.writer.close()  # the engine died without closing the request
    engine.writer = JournalWriter(engine.directory, "e2")
    await bury(pg)
    assert await reaper.reap() == {ticket.request_id}
    assert (await events(ledger))[ticket.request_id] == (10, 0, 4, "recovered")


async def test_a_request_its_gateway_abandoned_is_settled_from_the_journal(ledger, engine, reaper):
    ticket = await ledger.admission.admit(ledger.order())
    engine.opened(ticket)
    engine.counted(ticket, 10, 0, 3)
    assert await reaper.reap() == set()
    ledger.settler.abandon(ledger.tenant_id, ticket.request_id)
    assert await ledger.settler.drain(5)
    assert await reaper.reap() == set()  # the engine may still be alive
    engine.closed(ticket, 10, 0, 3)
    assert await reaper.reap() == {ticket.request_id}


async def test_an_admission_the_database_forgot_is_billed_from_its_receipt(pg, ledger, engine, clock, reaper):
    closed, cut = [await ledger.admission.admit(ledger.order()) for _ in range(2)]
    admin = await asyncpg.connect(pg.admin)
    await admin.execute("DELETE FROM request")
    await admin.close()
    for ticket in (closed, cut):
        engine.opened(ticket)
    engine.closed(closed, 10, 0, 5)
    engine.counted(cut, 10, 0, 2)
    assert await reaper.reap() == {closed.request_id}
    clock.now = PATIENCE_S
    assert await reaper.reap() == {cut.request_id}
    assert await events(ledger) == {
        closed.request_id: (10, 0, 5, "recovered"),
        cut.request_id: (10, 0, 2, "recovered"),
    }
    row = (await ledger.rows("SELECT * FROM usage_event WHERE request_id = $1", closed.request_id))[0]
    assert (row["tenant_id"], row["key_id"], row["price_id"]) == (ledger.tenant_id, ledger.key_id, closed.price.id)
    await balanced(ledger, Journal(engine.directory))


async def test_a_gateway_that_was_only_paused_loses_to_the_reaper(pg, ledger, engine, clock, reaper, dead):
    ticket = await dead.admit(ledger.order())
    engine.opened(ticket)
    engine.closed(ticket, 10, 0, 5)
    await bury(pg)
    assert await reaper.reap() == {ticket.request_id}
    await ledger.settler.submit(ticket, Usage(10, 0, 5), "completed")  # it wakes up and settles, too late
    assert await events(ledger) == {ticket.request_id: (10, 0, 5, "recovered")}


async def test_two_reapers_and_the_owner_at_once_settle_once(pg, ledger, engine, dead):
    tickets = [await dead.admit(ledger.order()) for _ in range(40)]
    for ticket in tickets:
        engine.opened(ticket)
        engine.closed(ticket, 10, 0, 5)
    await bury(pg)
    reapers = [Reaper(ledger.database, Journal(engine.directory)) for _ in range(3)]
    owner = [ledger.settler.submit(t, Usage(10, 0, 5), "completed") for t in tickets]
    won = await asyncio.gather(*(r.reap() for r in reapers))
    await asyncio.gather(*owner)
    assert sum(map(len, won)) == len(set().union(*won))
    assert len(await events(ledger)) == 40
    await balanced(ledger, Journal(engine.directory))


async def test_a_live_gateway_that_never_settles_is_overruled_in_the_end(ledger, engine, clock, reaper):
    ticket = await ledger.admission.admit(ledger.order())
    engine.opened(ticket)
    engine.closed(ticket, 10, 0, 5)
    assert await reaper.reap() == set()
    clock.now = OVERDUE_S - 1
    assert await reaper.reap() == set()
    clock.now = OVERDUE_S
    assert await reaper.reap() == {ticket.request_id}


async def test_foreign_and_damaged_records_bill_nobody(pg, ledger, engine, clock, reaper, tmp_path):
    ours = await ledger.admission.admit(ledger.order())
    engine.opened(ours)
    engine.writer.append(
        [
            Opened("not-a-uuid", ours.receipt_bytes),
            Opened(str(ids.uuid7()), b"not a receipt"),
            Opened(str(ids.uuid7()), b""),
            Closed(str(ids.uuid7()), Usage(1, 0, 1), "stop"),
        ]
    )
    with (engine.directory / "e1-00000000.journal").open("ab") as file:
        file.write(os.urandom(300))
    engine.closed(ours, 10, 0, 5)
    await bury(pg)
    clock.now = PATIENCE_S * 4
    assert await reaper.reap() == {ours.request_id}
    assert len(await events(ledger)) == 1


async def test_a_receipt_that_names_no_real_key_is_reported_and_holds_nobody_up(pg, ledger, engine, reaper, dead):
    good, bad = [await dead.admit(ledger.order()) for _ in range(2)]
    name, strange = str(ids.uuid7()), encode(msgspec.structs.replace(bad.receipt, key_id=ids.uuid7()))
    engine.writer.append([Opened(name, strange), Closed(name, Usage(1, 0, 1), "stop")])
    engine.opened(good)
    engine.closed(good, 10, 0, 5)
    await bury(pg)
    assert await reaper.reap() == {good.request_id}


async def test_reconciliation_compares_the_journal_to_the_token(ledger, engine):
    right, wrong, lost, open_ = [await ledger.admission.admit(ledger.order()) for _ in range(4)]
    for ticket in (right, wrong, lost, open_):
        engine.opened(ticket)
        engine.closed(ticket, 10, 0, 5, 4, 1)
    ghost = ids.uuid7()
    engine.writer.append([Opened(str(ghost), lost.receipt_bytes), Closed(str(ghost), Usage(3, 0, 4), "stop")])
    await asyncio.gather(
        ledger.settler.submit(right, Usage(10, 0, 5, 4, 1), "completed"),
        ledger.settler.submit(wrong, Usage(10, 0, 5, 3, 0), "completed"),
        ledger.settler.submit(lost, Usage(10, 0, 5, 4, 1), "completed"),
    )
    telemetry = Telemetry.create()
    report = await Reaper(ledger.database, Journal(engine.directory), telemetry).reconcile()
    assert report.unreconciled_tokens == 2 + 7
    assert b"tenantry_metering_unreconciled_tokens 9.0" in telemetry.render()[0]
    assert {f.split()[1].rstrip(":") for f in report.findings} == {str(wrong.request_id), str(ghost)}
    assert (report.events, report.open_requests) == (3, 1)
    assert 0 < report.oldest_open_seconds < 60


async def test_settled_segments_go_after_a_while_and_disagreeing_ones_never(ledger, tmp_path, clock):
    directory = tmp_path / "journal"
    writer = JournalWriter(directory, "e1", segment_bytes=200)
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(4)]
    for ticket in tickets:
        writer.append([Opened(str(ticket.request_id), ticket.receipt_bytes)])
        writer.append([Closed(str(ticket.request_id), Usage(10, 0, 5), "stop")])
    for i, ticket in enumerate(tickets):
        await ledger.settler.submit(ticket, Usage(10, 0, 4 if i == 1 else 5), "completed")
    segments = sorted(directory.glob("*.journal"))
    assert len(segments) > 4
    kept = Reaper(ledger.database, Journal(directory, keep_s=3600), clock=clock)
    await kept.reap()
    assert sorted(directory.glob("*.journal")) == segments
    old = time.time() - 7200
    for path in segments:
        os.utime(path, (old, old))
    await kept.reap()
    left = Journal(directory).read()
    assert tickets[1].request_id in left  # its event disagrees: the evidence stays
    assert not {tickets[0].request_id, tickets[2].request_id} & left.keys()
    writer.close()


async def test_the_recovery_is_counted_for_operators(pg, ledger, engine, dead):
    telemetry = Telemetry.create()
    ticket = await dead.admit(ledger.order())
    engine.opened(ticket)
    engine.closed(ticket, 1, 0, 1)
    await bury(pg)
    await Reaper(ledger.database, Journal(engine.directory), telemetry).reap()
    text, kind = telemetry.render()
    assert b"tenantry_metering_recovered_total 1.0" in text
    assert "text/plain" in kind


async def test_an_epoch_that_stops_leaves_its_requests_to_the_reaper_at_once(ledger, engine, reaper):
    epoch = Epoch(ledger.database)
    await epoch.start()
    ticket = await Admission(ledger.database, epoch, ledger.settler).admit(ledger.order())
    engine.opened(ticket)
    engine.closed(ticket, 10, 0, 1)
    await epoch.stop()
    assert epoch.fenced
    assert await reaper.reap() == {ticket.request_id}
