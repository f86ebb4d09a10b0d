"""Every request is settled exactly once, whatever is duplicated, raced, cut or crashed; and the books balance."""

import asyncio
import random
import shutil
import tempfile
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tenantry.platform.core import embedded, ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import PlatformError
from tenantry.platform.core.migrate import migrate
from tenantry.platform.core.roles import OWNER, ensure_roles
from tenantry.platform.core.settings import load
from tenantry.platform.metering import usage as usage_queries
from tenantry.platform.metering import wallet
from tenantry.platform.metering.admission import Admission, Order
from tenantry.platform.metering.epochs import Epoch
from tenantry.platform.metering.prices import add_price
from tenantry.platform.metering.pricing import Price, ceiling, charge
from tenantry.platform.metering.receipt import decode, encode
from tenantry.platform.metering.reconcile import reconcile
from tenantry.platform.metering.settlement import Settlement, Settler, settle
from tenantry.platform.tenants import service
from tenantry.runtime.messages import MAX_REJECTED_PER_TOKEN, Usage

counts = st.integers(0, 1 << 20)


rates = st.integers(0, 10**9)


@given(rates, rates, rates, rates, counts, counts, counts, counts, counts)
def test_a_cost_is_the_sum_of_its_parts_and_under_its_ceiling(
    prompt_rate, cached_rate, rate, rejected_rate, prompt, cached, completion, accepted, rejected
):
    price = Price(UUID(int=1), max(prompt_rate, cached_rate), min(prompt_rate, cached_rate), rate, rejected_rate)
    accepted, rejected = min(accepted, completion), min(rejected, MAX_REJECTED_PER_TOKEN * completion)
    usage = Usage(prompt, min(prompt, cached), completion, accepted + rejected, accepted)
    cost = charge(price, usage)
    assert cost.total == cost.prompt + cost.cached + cost.completion + cost.rejected
    assert cost.rejected == rejected * rejected_rate
    assert 0 <= cost.total <= ceiling(price, prompt, completion)
    assert cost.total == sum(
        charge(price, part).total
        for part in (
            Usage(prompt=usage.cached, cached=usage.cached),
            Usage(prompt=prompt - usage.cached),
            Usage(completion=completion, drafted=accepted, accepted=accepted),
            Usage(drafted=rejected),
        )
    )


async def test_a_settlement_writes_event_rollup_spend_and_wallet(ledger):
    ticket = await ledger.admission.admit(ledger.order())
    await ledger.settler.submit(ticket, Usage(prompt=10, cached=4, completion=7, drafted=5, accepted=3), "completed")
    nano = 6 * 500 + 4 * 50 + 7 * 1500 + 2 * 7
    async with ledger.database.tenant(ledger.tenant_id) as c:
        [event] = await usage_queries.list_events(c, ledger.tenant_id)
        [total] = await usage_queries.summarize(c, ledger.tenant_id, "total")
        [entry] = await wallet.list_entries(c, ledger.tenant_id)
        assert await wallet.balance(c, ledger.tenant_id) == -nano
    assert (event.request_id, event.nano, event.outcome, event.accepted) == (ticket.request_id, nano, "completed", 3)
    assert event.price_id == ticket.price.id
    assert (total.requests, total.prompt, total.cached, total.completion, total.nano) == (1, 10, 4, 7, nano)
    assert (total.drafted, total.accepted) == (5, 3)
    assert (entry.seq, entry.kind, entry.nano, entry.balance_after) == (1, "usage", -nano, -nano)
    async with ledger.database.operator() as c:
        assert (await reconcile(c)).balanced


async def test_duplicates_races_and_reorderings_settle_once(pg, ledger):
    """Each of 60 requests is settled by up to 8 callers with different counts: the first wins, and only it."""
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(60)]
    rng = random.Random(3)
    wide = await Database.connect(pg.app, load({}, pool_size=30, pool_wait=30))
    won: list[tuple[UUID, int]] = []

    async def batch() -> None:
        chosen = rng.sample(tickets, 30) * 2
        rng.shuffle(chosen)
        counted = {t.request_id: rng.randrange(1, 20) for t in chosen}
        async with wide.operator() as c:
            items = [
                Settlement(t.request_id, t.receipt, t.price, Usage(10, 0, counted[t.request_id]), "completed")
                for t in chosen
            ]
            settled = await settle(c, items)
        won.extend((i, counted[i]) for i in settled)

    with capture_logs() as logs:
        await asyncio.gather(*(batch() for _ in range(25)))
    assert logs == []  # elected by the upsert, not refused by a constraint
    assert len(won) == len(dict(won)) == 60
    events = {r["request_id"]: r["completion"] for r in await ledger.rows("SELECT * FROM usage_event")}
    assert events == dict(won)
    async with ledger.database.operator() as c:
        report = await reconcile(c)
    assert (report.findings, report.events, report.open_requests) == ((), 60, 0)
    await wide.close()


async def test_a_row_the_database_refuses_does_not_hold_up_the_rest(ledger):
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(9)]
    bad = Usage(prompt=1, cached=2)  # more found than there was
    waiting = [
        ledger.settler.submit(t, bad if i == 4 else Usage(1, 0, 1), "completed") for i, t in enumerate(tickets)
    ]
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert await ledger.value("SELECT count(*) FROM usage_event") == 8
    assert await ledger.value("SELECT id FROM request WHERE state = 'admitted'") == tickets[4].request_id


async def test_a_settlement_whose_commit_was_not_heard_is_sent_again_and_counts_once(pg, ledger):
    """Connections are killed while batches commit: some commits happen and are not heard, some do not happen."""
    rng = random.Random(11)
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(300)]
    admin = await asyncpg.connect(pg.admin)
    stop = asyncio.Event()

    async def cut() -> int:
        cuts = 0
        while not stop.is_set():
            await asyncio.sleep(rng.random() * 0.01)
            cuts += await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = 'tenantry_app' AND query LIKE '%settle%'"
            )
        return cuts

    cutter = asyncio.create_task(cut())
    waiting = []
    for ticket in tickets:
        waiting.append(ledger.settler.submit(ticket, Usage(10, 2, rng.randrange(20)), "completed"))
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.3)
    stop.set()
    cuts = await cutter
    await asyncio.wait_for(asyncio.gather(*waiting), 20)
    await admin.close()
    print(f"connections cut while settling: {cuts}")
    assert cuts > 0
    async with ledger.database.operator() as c:
        report = await reconcile(c)
    assert (report.findings, report.events, report.open_requests) == ((), 300, 0)


async def test_the_reply_of_a_commit_is_lost(ledger, monkeypatch):
    """The worst case by construction: every first commit happens, and every first answer is an outage."""
    from tenantry.platform.core.errors import DatabaseUnavailable
    from tenantry.platform.metering import settlement as module

    real, heard = module.settle, set()

    class Deaf:
        def __init__(self, scope):
            self.scope = scope

        async def __aenter__(self):
            return await self.scope.__aenter__()

        async def __aexit__(self, *error):
            await self.scope.__aexit__(*error)
            if error == (None, None, None) and len(heard) < 3:
                heard.add(len(heard))
                raise DatabaseUnavailable("COMMIT was sent, its reply was lost")

    operator = ledger.database.operator
    monkeypatch.setattr(ledger.settler._database, "operator", lambda: Deaf(operator()), raising=False)
    ticket = await ledger.admission.admit(ledger.order())
    await asyncio.wait_for(ledger.settler.submit(ticket, Usage(10, 0, 5), "completed"), 10)
    monkeypatch.undo()
    assert module.settle is real
    assert len(heard) == 3
    assert await ledger.value("SELECT count(*) FROM usage_event") == 1
    assert await ledger.value("SELECT -balance_nano FROM wallet WHERE tenant_id = $1", ledger.tenant_id) == 12_500


async def test_a_settlement_without_its_admission_still_counts(pg, ledger):
    """A crash of the server may forget an asynchronously committed admission; the settlement brings it back."""
    ticket = await ledger.admission.admit(ledger.order())
    admin = await asyncpg.connect(pg.admin)
    await admin.execute("DELETE FROM request")
    await admin.close()
    again = Settlement(ticket.request_id, decode(encode(ticket.receipt)), ticket.price, Usage(10, 0, 1), "completed")
    async with ledger.database.operator() as c:
        assert await settle(c, [again]) == {ticket.request_id}
        assert await settle(c, [again]) == set()
    row = (await ledger.rows("SELECT * FROM request"))[0]
    assert (row["state"], row["key_id"], row["admitted_at"]) == ("settled", ledger.key_id, ticket.receipt.admitted_at)


async def test_rollups_equal_events_by_every_dimension(ledger, tmp_path):
    rng = random.Random(5)
    keys = [ledger.key_id, await ledger.another_key(tmp_path)]
    waiting = []
    for _ in range(120):
        ticket = await ledger.admission.admit(ledger.order(key_id=rng.choice(keys)))
        accepted = rng.randrange(9)
        used = Usage(
            rng.randrange(5, 11), rng.randrange(5), rng.randrange(21), accepted + rng.randrange(40), accepted
        )
        waiting.append(ledger.settler.submit(ticket, used, rng.choice(["completed", "cancelled", "failed"])))
    await asyncio.gather(*waiting)
    async with ledger.database.tenant(ledger.tenant_id) as c:
        events = await usage_queries.list_events(c, ledger.tenant_id, limit=1000)
        for by, key in (
            ("key", lambda e: e.key_id),
            ("adapter", lambda e: e.adapter_id or ledger.base_id),
            ("hour", lambda e: None),
        ):
            sums = await usage_queries.summarize(c, ledger.tenant_id, by)
            for s in sums:
                mine = [e for e in events if by == "hour" or key(e) == s.id]
                assert s.requests == len(mine)
                assert s.nano == sum(e.nano for e in mine)
                counted = ("prompt", "cached", "completion", "drafted", "accepted")
                assert [getattr(s, f) for f in counted] == [sum(getattr(e, f) for e in mine) for f in counted]
            assert sum(s.requests for s in sums) == 120
        window = usage_queries.Window(key_id=keys[1])
        [one] = await usage_queries.summarize(c, ledger.tenant_id, "total", window)
        assert one.requests == sum(e.key_id == keys[1] for e in events)
        assert (
            await usage_queries.summarize(
                c, ledger.tenant_id, "total", usage_queries.Window(end=events[-1].admitted_at.replace(year=2020))
            )
            == []
        )
        paged, after = [], None
        while page := await usage_queries.list_events(c, ledger.tenant_id, limit=50, after=after):
            paged += page
            after = page[-1].request_id
        assert paged == events


async def test_the_wallet_is_a_running_balance_without_gaps(ledger):
    async with ledger.database.operator() as c:
        assert await wallet.enter(c, ledger.tenant_id, "grant", 10**9, "first month") == 10**9
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(20)]
    await asyncio.gather(*(ledger.settler.submit(t, Usage(3, 0, i), "completed") for i, t in enumerate(tickets)))
    async with ledger.database.tenant(ledger.tenant_id) as c:
        entries = (await wallet.list_entries(c, ledger.tenant_id))[::-1]
    assert [e.seq for e in entries] == list(range(1, 22))
    running = 0
    for entry in entries:
        running += entry.nano
        assert entry.balance_after == running


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE usage_event SET completion = completion + 1 WHERE request_id = $1", "hourly rollups"),
        ("UPDATE usage_event SET nano = nano + 1 WHERE request_id = $1", "their price"),
        ("UPDATE usage_event SET accepted = accepted - 1 WHERE request_id = $1", "their price"),
        ("UPDATE usage_event SET drafted = drafted + 1, accepted = accepted + 1 WHERE request_id = $1", "rollups"),
        ("UPDATE usage_hour SET drafted = drafted + 1 WHERE $1::uuid IS NOT NULL", "hourly rollups"),
        ("UPDATE usage_hour SET prompt = prompt + 1 WHERE $1::uuid IS NOT NULL", "hourly rollups"),
        ("UPDATE usage_hour SET requests = requests + 1 WHERE $1::uuid IS NOT NULL", "hourly rollups"),
        ("UPDATE wallet SET balance_nano = balance_nano + 1 WHERE $1::uuid IS NOT NULL", "wallet balance"),
        ("UPDATE wallet SET seq = seq + 1 WHERE $1::uuid IS NOT NULL", "wallet sequence"),
        ("UPDATE spend SET nano = nano + 1 WHERE $1::uuid IS NOT NULL", "spend"),
        ("DELETE FROM wallet_entry WHERE request_id = $1", "wallet entries"),
        ("UPDATE request SET state = 'admitted' WHERE id = $1", "settled requests and events"),
    ],
)
async def test_reconciliation_notices_every_planted_lie(pg, ledger, sql, what):
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(3)]
    await asyncio.gather(*(ledger.settler.submit(t, Usage(3, 0, 4, 9, 2), "completed") for t in tickets))
    async with ledger.database.operator() as c:
        assert (await reconcile(c)).balanced
    admin = await asyncpg.connect(pg.admin)
    await admin.execute(sql, tickets[1].request_id)
    await admin.close()
    async with ledger.database.operator() as c:
        report = await reconcile(c)
    assert any(what in finding for finding in report.findings), report.findings
    assert report.unreconciled_tokens + report.unreconciled_nano > 0


async def test_the_settler_waits_out_an_outage_and_drains(postgres, pg, ledger):
    ticket = await ledger.admission.admit(ledger.order())
    admin = await asyncpg.connect(postgres.admin_dsn)
    await admin.execute(f"ALTER DATABASE {pg.name} ALLOW_CONNECTIONS false")
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", pg.name)
    done = ledger.settler.submit(ticket, Usage(1, 0, 1), "completed")
    assert not await ledger.settler.drain(0.3)
    assert ledger.settler.pending == 1
    await admin.execute(f"ALTER DATABASE {pg.name} ALLOW_CONNECTIONS true")
    await admin.close()
    assert await ledger.settler.drain(10)
    assert done.done()
    assert await ledger.value("SELECT count(*) FROM usage_event") == 1


async def test_the_books_survive_crashes_of_the_server():
    """PostgreSQL is stopped without a checkpoint, twice, under load. Settlement brings back forgotten admissions."""
    folder = Path(tempfile.mkdtemp(prefix="tenantry-"))
    server = await asyncio.to_thread(
        embedded.start, folder, {"fsync": "off"}
    )  # the machine does not crash, only the server
    try:
        await crash_and_compare(folder, server)
    finally:
        (await asyncio.to_thread(embedded.start, folder)).stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


async def crash_and_compare(folder: Path, server: embedded.EmbeddedPostgres) -> None:
    await ensure_roles(server.admin_dsn)
    await asyncio.to_thread(migrate, server.dsn(OWNER))
    database = await Database.connect(server.dsn())
    async with database.operator() as c:
        tenant = await service.create_tenant(c, "acme")
        base, key = ids.uuid7(), ids.uuid7()
        await c.execute("INSERT INTO base_model (id, name, digest) VALUES ($1, 'base', $2)", base, b"b" * 32)
        await c.execute(
            "INSERT INTO api_key (tenant_id, id, key_id, name, env, scopes, pepper_id, mac) "
            "VALUES ($1, $2, 'abcdefghijklmnop', 'k', 'live', '{inference}', 1, $3)",
            tenant.id, key, b"m" * 32,
        )  # fmt: skip
        await add_price(c, base, prompt_nano=2, cached_nano=1, completion_nano=4)
    epoch, settler = Epoch(database), Settler(database)
    await epoch.start()
    settler.start()
    admission = Admission(database, epoch, settler)
    truth: dict[UUID, int] = {}
    waiting: list[asyncio.Future[None]] = []
    stop = asyncio.Event()

    async def client(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                ticket = await admission.admit(Order(tenant.id, key, base, None, None, "base", 10, 20))
            except PlatformError:
                await asyncio.sleep(0.05)
                continue
            await asyncio.sleep(rng.random() * 0.02)
            truth[ticket.request_id] = rng.randrange(20)
            waiting.append(settler.submit(ticket, Usage(10, 0, truth[ticket.request_id]), "completed"))

    clients = [asyncio.create_task(client(i)) for i in range(8)]
    for _ in range(2):
        await asyncio.sleep(0.6)
        await asyncio.to_thread(server.stop, immediate=True)
        server = await asyncio.to_thread(embedded.start, folder, {"fsync": "off"})
    await asyncio.sleep(0.6)
    stop.set()
    await asyncio.gather(*clients)
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    async with database.operator() as c:
        report = await reconcile(c)
        found = {r["request_id"]: r["completion"] for r in await c.fetch("SELECT * FROM usage_event")}
    print(f"two crashes: {len(truth)} requests, {len(found)} events")
    assert found == truth
    assert report.findings == ()
    await settler.stop()
    await epoch.stop()
    await database.close()
