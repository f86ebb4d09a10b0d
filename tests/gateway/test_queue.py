"""The Engines page's numbers, of a real engine whose queue is really full: whose work waits, runs and was done."""

import asyncio

import httpx
import pytest

from tenantry.platform.fleet.router import Router
from tenantry.platform.testing import running_gateway, write_tiny_model
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.rehearsal import WorkerProcess

ASKED = {"first": 2, "many": 9, "few": 4}  # requests of each tenant


@pytest.fixture
async def worker(tmp_path):
    worker = WorkerProcess(
        tmp_path, write_tiny_model(tmp_path / "model"), step_s=0.05,
        cache=CacheConfig(pages=1024), schedule=ScheduleConfig(max_running=2, max_context=512),
    )  # fmt: skip
    await worker.start()
    yield worker
    await worker.stop()


@pytest.fixture
async def wired(pg, tmp_path, worker):
    router = Router.alone(worker.client)
    async with running_gateway(pg.app, tmp_path, worker=router, tenant_weights="many=2") as wired:
        yield wired


def client_of(wired, key):
    return httpx.AsyncClient(base_url=wired.url, headers={"authorization": f"Bearer {key}"}, timeout=300)


async def say(wired, key):
    async with client_of(wired, key) as client:
        body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json={**body, "ignore_eos": True}) as reply:
            assert reply.status_code == 200
            await reply.aread()


async def the_engine(wired, until):
    """The report, once it is as it should be, and its tenants by name."""
    engine = None
    async with client_of(wired, wired.operator_key) as client:
        for _ in range(300):
            [engine] = (await client.get("/api/v1/engines")).json()["data"]
            if until(engine):
                return engine, {one["tenant"]: one for one in engine["tenants"]}
            await asyncio.sleep(0.2)
    raise AssertionError(engine)


async def billed(wired, key, count):
    """The tenant's usage events, once all are settled."""
    async with client_of(wired, key) as client, asyncio.timeout(60):
        while len(found := (await client.get("/api/v1/usage/events")).json()["data"]) < count:
            await asyncio.sleep(0.2)
    return found


async def test_who_waits_and_runs_is_told_by_tenant_and_whose_work_was_done(wired):
    keys = {name: (await wired._make_tenant(name))[1] for name in ASKED}
    asked = [asyncio.create_task(say(wired, keys["first"])) for _ in range(ASKED["first"])]
    _, by_tenant = await the_engine(wired, lambda engine: engine["running"] == 2)
    assert list(by_tenant) == ["first"]
    assert by_tenant["first"]["share"] == 1.0, "nobody else was served anything yet"

    asked += [asyncio.create_task(say(wired, keys[name])) for name in ("many", "few") for _ in range(ASKED[name])]
    engine, by_tenant = await the_engine(wired, lambda engine: engine["open"] == 15 and engine["waiting"] == 13)
    rows = by_tenant.values()
    assert {name: one["waiting"] + one["running"] for name, one in by_tenant.items()} == ASKED
    assert sum(one["waiting"] for one in rows) == 13
    assert sum(one["running"] for one in rows) == engine["running"] == 2
    assert sum(one["waiting"] > 0 for one in rows) == engine["tenants_waiting"] >= 2
    assert {name: one["weight"] for name, one in by_tenant.items()} == {"first": 1.0, "many": 2.0, "few": 1.0}

    await the_engine(wired, lambda engine: sum(one["work"] > 0 for one in engine["tenants"]) >= 2)
    for one in asked:
        one.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    engine, by_tenant = await the_engine(wired, lambda engine: not engine["open"] and not engine["running"])
    assert (engine["waiting"], engine["tenants_waiting"]) == (0, 0)
    work = {name: one["work"] for name, one in by_tenant.items()}
    drawn = 0
    for name, count in ASKED.items():
        events = await billed(wired, keys[name], count)
        drawn += sum(event["completion_tokens"] for event in events)
        tokens = sum(
            event["prompt_tokens"] - event["cached_tokens"] + 2 * event["completion_tokens"] for event in events
        )
        assert tokens <= work[name] <= 1.5 * tokens, "its tokens by weight, and a little for the pages that it held"
        assert by_tenant[name]["share"] == pytest.approx(work[name] / sum(work.values()), abs=1e-3)
    assert engine["completion_tokens"] == drawn > 0
