"""Nothing is admitted past a limit, however many ask at once, and every refusal says which limit."""

import asyncio
import random
import time

import asyncpg
import pytest

from tenantry.platform.core import ids
from tenantry.platform.core.database import Database
from tenantry.platform.core.errors import (
    ConcurrencyLimited,
    DatabaseUnavailable,
    InvalidInput,
    MeteringUnavailable,
    PlatformError,
    QuotaExceeded,
    RateLimited,
)
from tenantry.platform.core.settings import load
from tenantry.platform.metering.admission import Admission, admit
from tenantry.platform.metering.epochs import Epoch
from tenantry.platform.metering.prices import add_price
from tenantry.platform.metering.pricing import ceiling
from tenantry.platform.metering.settlement import Settler
from tenantry.runtime.messages import Usage

COST = 10 * 500 + 20 * 1500 + 20 * 16 * 7  # of ledger.order(): the most it can cost


async def attempt(ledger, order=None) -> object:
    try:
        return await ledger.admission.admit(order or ledger.order())
    except PlatformError as refusal:
        return refusal


async def test_an_admission_is_a_row_a_reservation_and_a_receipt(ledger):
    ticket = await ledger.admission.admit(ledger.order())
    assert ticket.reserved_nano == COST == ceiling(ticket.price, 10, 20)
    row = (await ledger.rows("SELECT * FROM request"))[0]
    assert (row["id"], row["state"], row["reserved_nano"]) == (ticket.request_id, "admitted", COST)
    assert (row["epoch"], row["price_id"], row["key_id"]) == (ledger.epoch.id, ticket.price.id, ledger.key_id)
    assert ticket.receipt.admitted_at.tzinfo is not None


async def test_a_request_that_declines_guesses_reserves_nothing_for_them(ledger):
    ticket = await ledger.admission.admit(ledger.order(guesses=False))
    assert ticket.reserved_nano == COST - 20 * 16 * 7


@pytest.mark.parametrize(("completion", "rejected"), [(10, 11), (10, -1), (0, 1)])
async def test_a_rejected_guess_is_never_dearer_than_a_token(pg, ledger, completion, rejected):
    rates = {"prompt_nano": 1, "cached_nano": 1, "completion_nano": completion, "rejected_nano": rejected}
    async with ledger.database.operator() as c:
        with pytest.raises(InvalidInput, match="rejected guess"):
            await add_price(c, ledger.base_id, **rates)
    admin = await asyncpg.connect(pg.admin)
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute("UPDATE price SET completion_nano = $1, rejected_nano = $2", completion, rejected)
    await admin.close()


async def test_a_budget_is_never_overspent_by_200_at_once(pg, ledger):
    await ledger.limit(budget_nano=COST * 37 + COST // 2)
    wide = await Database.connect(pg.app, load({}, pool_size=40, pool_wait=30))
    admission = Admission(wide, ledger.epoch, ledger.settler)

    async def one() -> object:
        try:
            return await admission.admit(ledger.order())
        except PlatformError as refusal:
            return refusal

    results = await asyncio.gather(*(one() for _ in range(200)))
    refusals = [r for r in results if isinstance(r, PlatformError)]
    assert len(results) - len(refusals) == 37  # not one more, and every affordable one
    assert {type(r) for r in refusals} == {QuotaExceeded}
    assert refusals[0].status == 429
    assert refusals[0].type == "insufficient_quota"
    assert refusals[0].headers == {"x-should-retry": "false"}
    await wide.close()


async def test_reserved_money_comes_back_when_less_was_used(ledger):
    await ledger.limit(budget_nano=COST)
    ticket = await ledger.admission.admit(ledger.order())
    assert isinstance(await attempt(ledger), QuotaExceeded)
    await ledger.settler.submit(ticket, Usage(), "refused")
    second = await ledger.admission.admit(ledger.order())
    await ledger.settler.submit(second, Usage(prompt=10, completion=0), "completed")
    assert isinstance(await attempt(ledger), QuotaExceeded)  # what is left does not cover the maximum
    assert not isinstance(await attempt(ledger, ledger.order(completion=16)), PlatformError)


async def test_money_in_flight_is_held_or_spent_but_never_neither(ledger):
    """Admissions race settlements of the whole reservation: the sum of both may never pass the budget."""
    budget = COST * 5
    await ledger.limit(budget_nano=budget)
    rng = random.Random(7)
    spent = 0

    async def one() -> None:
        nonlocal spent
        for _ in range(6):
            ticket = await attempt(ledger)
            if isinstance(ticket, QuotaExceeded):
                continue
            await asyncio.sleep(rng.random() * 0.005)
            used = rng.choice([20, 20, 3])
            dearest = Usage(prompt=10, completion=used, drafted=16 * used)
            await ledger.settler.submit(ticket, dearest, "completed")
            spent += 10 * 500 + used * 1500 + 16 * used * 7

    await asyncio.gather(*(one() for _ in range(12)))
    assert spent == await ledger.value(
        "SELECT nano FROM spend WHERE scope_id = $1 AND period = '-infinity'", ledger.tenant_id
    )
    assert budget - COST < spent <= budget


async def test_a_keys_budget_binds_that_key_alone(ledger, tmp_path):
    await ledger.limit_key(budget_nano=COST)
    await ledger.admission.admit(ledger.order())
    refusal = await attempt(ledger)
    assert isinstance(refusal, QuotaExceeded)
    assert "this API key" in refusal.message
    other = await ledger.another_key(tmp_path)
    assert not isinstance(await attempt(ledger, ledger.order(key_id=other)), PlatformError)


async def test_a_tenants_budget_binds_all_its_keys_and_nobody_elses(ledger, tmp_path):
    await ledger.limit(budget_nano=COST, budget_period="month")
    await ledger.admission.admit(ledger.order())
    other = await ledger.another_key(tmp_path)
    assert isinstance(await attempt(ledger, ledger.order(key_id=other)), QuotaExceeded)
    tenant, key = await ledger.another_tenant(tmp_path)
    assert not isinstance(await attempt(ledger, ledger.order(tenant_id=tenant, key_id=key)), PlatformError)


async def test_a_monthly_budget_forgets_last_month(pg, ledger):
    await ledger.limit(budget_nano=COST, budget_period="month")
    admin = await asyncpg.connect(pg.admin)
    await admin.execute(
        "INSERT INTO spend VALUES "
        "($1, $1, (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date, $2)",
        ledger.tenant_id,
        COST * 9,
    )
    assert not isinstance(await attempt(ledger), PlatformError)
    await admin.close()


async def test_requests_per_minute_admits_its_burst_then_names_the_wait(ledger):
    await ledger.limit(requests_per_minute=5)
    results = await asyncio.gather(*(attempt(ledger) for _ in range(20)))
    refusals = [r for r in results if isinstance(r, PlatformError)]
    assert len(refusals) == 15
    assert {type(r) for r in refusals} == {RateLimited}
    assert refusals[0].code == "rate_limit_exceeded"
    assert 1 <= int(refusals[0].headers["retry-after"]) <= 12
    assert (
        min(int(t.headers["x-ratelimit-remaining-requests"]) for t in results if not isinstance(t, PlatformError))
        == 0
    )


async def test_the_rate_refills_with_the_databases_time(ledger):
    await ledger.limit(requests_per_minute=120)
    started = time.monotonic()
    done = await asyncio.gather(*(attempt(ledger) for _ in range(130)))
    admitted = sum(not isinstance(r, PlatformError) for r in done)
    assert 120 <= admitted <= 120 + 2 * (time.monotonic() - started) + 1
    assert any(isinstance(r, RateLimited) for r in done)
    await asyncio.sleep(0.6)
    assert not isinstance(await attempt(ledger), PlatformError)


async def test_concurrency_counts_open_requests_and_frees_on_settlement(ledger):
    await ledger.limit(concurrency=3)
    results = await asyncio.gather(*(attempt(ledger) for _ in range(30)))
    tickets = [r for r in results if not isinstance(r, PlatformError)]
    assert len(tickets) == 3
    assert {type(r) for r in results if isinstance(r, PlatformError)} == {ConcurrencyLimited}
    await ledger.settler.submit(tickets[0], Usage(), "cancelled")
    assert not isinstance(await attempt(ledger), PlatformError)
    assert isinstance(await attempt(ledger), ConcurrencyLimited)


async def test_slots_of_a_dead_gateway_do_not_count(pg, ledger):
    await ledger.limit(concurrency=1)
    await ledger.admission.admit(ledger.order())
    assert isinstance(await attempt(ledger), ConcurrencyLimited)
    heir = Epoch(ledger.database)
    await heir.start()
    await ledger.epoch.stop()
    await Admission(ledger.database, heir, ledger.settler).admit(ledger.order())
    await heir.stop()


async def test_a_refused_request_leaves_no_trace(ledger):
    await ledger.limit(requests_per_minute=1, budget_nano=0)
    assert isinstance(await attempt(ledger), QuotaExceeded)
    assert await ledger.value("SELECT count(*) FROM request") == 0
    await ledger.limit(requests_per_minute=1)
    assert not isinstance(await attempt(ledger), PlatformError)  # the refusal did not use up the minute


async def test_asking_twice_with_one_id_admits_once(ledger):
    await ledger.limit(budget_nano=COST, requests_per_minute=1, concurrency=1)
    name = ids.uuid7()
    first = await ledger.admission.admit(ledger.order(), name)
    again = await ledger.admission.admit(ledger.order(), name)
    assert (again.request_id, again.reserved_nano, again.price) == (name, COST, first.price)
    assert await ledger.value("SELECT count(*) FROM request") == 1
    await ledger.settler.submit(first, Usage(), "completed")
    with pytest.raises(MeteringUnavailable, match="settled"):
        await ledger.admission.admit(ledger.order(), name)


async def test_a_gateway_without_a_heartbeat_admits_nothing(pg, ledger):
    clock = type("Clock", (), {"now": 0.0, "__call__": lambda self: self.now})()
    epoch = Epoch(ledger.database, clock)
    assert epoch.fenced
    await epoch.beat()
    assert not epoch.fenced
    clock.now = 4.1
    assert epoch.fenced
    with pytest.raises(MeteringUnavailable):
        await Admission(ledger.database, epoch, ledger.settler).admit(ledger.order())
    clock.now = 0.0  # a paused process may not know how late it is: the database does
    admin = await asyncpg.connect(pg.admin)
    await admin.execute("UPDATE node SET seen_at = now() - interval '6 s' WHERE epoch = $1", epoch.id)
    await admin.close()
    with pytest.raises(MeteringUnavailable, match="ledger"):
        await Admission(ledger.database, epoch, ledger.settler).admit(ledger.order())


async def test_a_base_model_without_a_price_is_not_served(ledger):
    base = ids.uuid7()
    async with ledger.database.operator() as c:
        await c.execute("INSERT INTO base_model (id, name, digest) VALUES ($1, 'new', $2)", base, b"n" * 32)
    refusal = await attempt(ledger, ledger.order(base_model_id=base))
    assert isinstance(refusal, MeteringUnavailable)
    assert refusal.code == "no_price"


async def test_a_new_price_takes_effect_for_new_requests_only(ledger):
    old = await ledger.admission.admit(ledger.order())
    async with ledger.database.operator() as c:
        await add_price(c, ledger.base_id, prompt_nano=7, cached_nano=7, completion_nano=7)
    new = await ledger.admission.admit(ledger.order())
    assert (old.price.completion_nano, new.price.completion_nano) == (1500, 7)
    await asyncio.gather(*(ledger.settler.submit(t, Usage(prompt=1, completion=1), "completed") for t in (old, new)))
    found = {r["request_id"]: r["nano"] for r in await ledger.rows("SELECT * FROM usage_event")}
    assert found == {old.request_id: 2000, new.request_id: 14}


async def test_a_caller_cancelled_while_asking_leaves_no_hold(ledger):
    await ledger.limit(budget_nano=COST)
    for pause in (0, 0, 0.001, 0.003):
        task = asyncio.create_task(ledger.admission.admit(ledger.order()))
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    deadline = time.monotonic() + 5
    while await ledger.value("SELECT count(*) FROM request WHERE epoch IS NOT NULL") and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert await ledger.value("SELECT count(*) FROM request WHERE epoch IS NOT NULL") == 0


async def test_an_admission_that_was_not_heard_is_abandoned_to_the_journal(pg, ledger, monkeypatch):
    """The row commits and the connection dies before the answer: the hold must not live as long as the gateway."""
    from tenantry.platform.metering import admission as module

    real = module.admit

    async def deaf(*args):
        await real(*args)
        raise DatabaseUnavailable("the reply was lost")

    monkeypatch.setattr(module, "admit", deaf)
    with pytest.raises(DatabaseUnavailable):
        await ledger.admission.admit(ledger.order())
    await ledger.settler.drain(5)
    assert [r["epoch"] for r in await ledger.rows("SELECT epoch FROM request")] == [None]


async def test_only_admissions_commit_asynchronously_and_no_setting_outlives_them(ledger):
    setting = (
        "SELECT current_setting('synchronous_commit') || ':' || coalesce(current_setting('app.tenant_id', true), '')"
    )
    async with ledger.database.autocommit() as c:
        async with c.transaction():
            await admit(c, ledger.epoch.id, ids.uuid7(), ledger.order())
            assert await c.fetchval(setting) == f"off:{ledger.tenant_id}"
        assert await c.fetchval(setting) == "on:"
        await admit(c, ledger.epoch.id, ids.uuid7(), ledger.order())  # in its own transaction, as the gateway does
        assert await c.fetchval(setting) == "on:"
        assert await c.fetch("SELECT * FROM request") == []


async def test_the_time_of_an_admission_is_printed(pg, ledger):
    for name, quota in {
        "no limits": {},
        "all limits": {"concurrency": 500, "requests_per_minute": 100_000, "budget_nano": 10**15},
    }.items():
        await ledger.limit(**quota)
        times = []
        for _ in range(100):
            started = time.perf_counter()
            ticket = await ledger.admission.admit(ledger.order())
            times.append(time.perf_counter() - started)
            ledger.settler.submit(ticket, Usage(prompt=1), "completed")
        times.sort()
        print(f"admit, {name}: median {times[50] * 1e3:.2f} ms, p95 {times[95] * 1e3:.2f} ms")
    settler = Settler(ledger.database)
    settler.start()
    tickets = [await ledger.admission.admit(ledger.order()) for _ in range(500)]
    started = time.perf_counter()
    await asyncio.gather(*(settler.submit(t, Usage(prompt=1), "completed") for t in tickets))
    print(f"settle: {500 / (time.perf_counter() - started):.0f} requests/s in one batch")
    await settler.stop()
