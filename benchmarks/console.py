"""Every list and sum that the console asks for, over HTTP, in a tenant with 10^5 adapters and 10^6 usage events.

    python -m benchmarks.console [--adapters N] [--events N] [--rounds N] [--out FILE]

A real gateway and a real PostgreSQL of its own, seeded by benchmarks.console_rows; the engine is a scripted one, for
no list asks it. Each route once to warm up, then `rounds` times; the slowest is judged.
"""

import argparse
import asyncio
import logging
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import structlog

from benchmarks.console_rows import Size, seed
from benchmarks.report import Report
from tenantry.platform.core import embedded
from tenantry.platform.core.database import Database
from tenantry.platform.core.migrate import migrate
from tenantry.platform.core.roles import APP, DATABASE, OWNER, SUPERUSER, ensure_roles
from tenantry.platform.metering.closing import Closer
from tenantry.platform.tenants.acts import KINDS
from tenantry.platform.testing import GatewayThread

TARGET = "<= 300"
PAGE = 50
Ask = tuple[str, str, dict[str, Any]]


def measure(report: Report, size: Size, rounds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tenantry-"))
    server = embedded.start(folder, {})
    try:
        asyncio.run(_prepare(server))
        migrate(server.dsn(OWNER))
        with (
            GatewayThread(server.dsn(APP), folder / "data") as live,
            httpx.Client(base_url=live.url, timeout=60) as mine,
            httpx.Client(base_url=live.url, timeout=60) as operators,
        ):
            tenant, key = live.make_tenant("big")
            mine.headers["authorization"] = f"Bearer {key}"
            operators.headers["authorization"] = f"Bearer {live.operator_key.strip()}"
            base = mine.get("/v1/models").json()["data"][0]["x_base_model_id"]
            _price(operators, base)
            began = perf_counter()
            asyncio.run(_seed(report, server, tenant, base, size))
            report.add("seeding", perf_counter() - began, "s", adapters=size.adapters, events=size.events)
            for who, asks in ((mine, tenant_asks(mine)), (operators, operator_asks(tenant, base))):
                for what, path, params in asks:
                    _time(report, who, what, path, params, rounds)
    finally:
        server.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


def tenant_asks(client: httpx.Client) -> list[Ask]:
    """Each list at its first page, in the middle and filtered; each chart over every range and grouping."""
    adapters = client.get("/api/v1/adapters", params={"limit": PAGE}).json()["data"]
    oldest = client.get("/api/v1/adapters", params={"limit": PAGE, "order": "asc"}).json()["data"]
    rare, busy, name = adapters[0]["id"], oldest[0]["id"], oldest[0]["name"]
    key = client.get("/api/v1/keys", params={"limit": 100}).json()["data"][-1]["id"]
    half = (datetime.now(UTC) - timedelta(days=15)).isoformat()
    events = client.get("/api/v1/usage/events", params={"to": half, "limit": 1}).json()["data"]
    version = client.get(f"/api/v1/adapters/{name}/versions").json()["data"][-1]["id"]
    sessions = client.get("/api/v1/sessions", params={"limit": 1}).json()["data"]
    lists: list[Ask] = [
        ("overview", "overview", {}),
        ("adapters, newest", "adapters", {"limit": PAGE}),
        ("adapters, by name", "adapters", {"limit": PAGE, "sort": "name", "order": "asc"}),
        ("adapters, by name from the middle", "adapters",
         {"limit": PAGE, "sort": "name", "order": "asc", "after": oldest[-1]["id"]}),
        ("adapters, part of a name", "adapters", {"limit": PAGE, "name": "77777"}),
        ("adapters, a name that is not there", "adapters", {"limit": PAGE, "name": "nobody"}),
        ("adapters, ready", "adapters", {"limit": PAGE, "state": "ready"}),
        ("adapters, rejected", "adapters", {"limit": PAGE, "state": "rejected"}),
        ("adapters, quarantined: none", "adapters", {"limit": PAGE, "state": "quarantined"}),
        ("adapters, the palette", "adapters", {"limit": 8, "name": "9", "sort": "name", "order": "asc"}),
        ("a page's stats", "adapter-stats", {"adapter": [one["id"] for one in oldest]}),
        ("an adapter", f"adapters/{name}", {}),
        ("its versions", f"adapters/{name}/versions", {}),
        ("its alias's history", f"adapters/{name}/aliases/default/history", {}),
        ("what deleting it hits", "impact", {"adapter": name}),
        ("what revoking a key hits", "impact", {"key": key}),
        ("models", "/v1/models", {"limit": PAGE}),
        ("models, part of a name", "/v1/models", {"limit": 20, "name": "4242"}),
        ("events", "usage/events", {"limit": PAGE}),
        ("events, from the middle", "usage/events", {"limit": PAGE, "after": events[0]["request_id"]}),
        ("events of a busy adapter", "usage/events", {"limit": PAGE, "adapter": busy}),
        ("events of a rare adapter", "usage/events", {"limit": PAGE, "adapter": rare}),
        ("events of a key", "usage/events", {"limit": PAGE, "key": key}),
        ("events of a busy version", "usage/events", {"limit": PAGE, "version": version}),
        ("events of the base model: none", "usage/events", {"limit": PAGE, "base": "base"}),
        ("events of an hour", "usage/events",
         {"limit": PAGE, "from": half, "to": (datetime.now(UTC) - timedelta(days=14)).isoformat()}),
        ("limits", "limits", {}),
        ("wallet", "wallet", {}),
        ("keys", "keys", {"limit": PAGE}),
        ("activity", "activity", {"limit": PAGE}),
        ("activity, from the middle", "activity", {"limit": PAGE, "to": half}),
        ("activity but sign-ins", "activity", {"limit": PAGE, "kind": [k for k in KINDS if k != "signed_in"]}),
        ("activity, two rare kinds", "activity", {"limit": PAGE, "kind": ["key_revoked", "adapter_deleted"]}),
        ("activity of an adapter", "activity", {"limit": PAGE, "adapter": name}),
        ("team", "team", {"limit": PAGE}),
        ("sessions", "sessions", {"limit": PAGE}),
        ("a session's turns", f"sessions/{sessions[0]['id']}/turns", {}),
    ]  # fmt: skip
    charts: list[Ask] = []
    for days, bucket in ((1, "hour"), (7, "day"), (30, "day"), (90, "day")):
        span = {"bucket": bucket, "from": (datetime.now(UTC) - timedelta(days=days)).isoformat()}
        for by in ("adapter", "version", "key", "total"):
            charts.append((f"{days} d by {by}", "usage/series", {**span, "group_by": by}))
        charts.append((f"{days} d by adapter, tokens", "usage/series", {**span, "measure": "tokens"}))
        charts.append((f"{days} d of one adapter", "usage/series", {**span, "group_by": "version", "adapter": busy}))
        charts.append((f"{days} d of one key", "usage/series", {**span, "key": key}))
    return lists + charts


def operator_asks(tenant: str, base: str) -> list[Ask]:
    return [
        ("operator: overview", "overview/all", {}),
        ("operator: tenants", "tenants", {"limit": PAGE}),
        ("operator: what suspending hits", f"tenants/{tenant}/impact", {}),
        ("operator: a tenant's limits", f"tenants/{tenant}/limits", {}),
        ("operator: activity", "activity", {"limit": PAGE}),
        ("operator: prices", "prices", {"base_model": base}),
        ("operator: engines", "engines", {}),
    ]


def _time(report: Report, client: httpx.Client, what: str, path: str, params: dict[str, Any], rounds: int) -> None:
    url = path if path.startswith("/") else f"/api/v1/{path}"
    took = []
    for _ in range(rounds + 1):
        began = perf_counter()
        reply = client.get(url, params=params)
        took.append((perf_counter() - began) * 1e3)
        if reply.status_code != 200:
            report.absent(what, f"{reply.status_code}: {reply.text[:200]}", TARGET)
            return
    rows = len(reply.json().get("data", [0]))
    report.judge(what, max(took[1:]), TARGET, "ms", median=median(took[1:]), first=took[0], rows=rows)


def _price(operator: httpx.Client, base: str) -> None:
    body = {"prompt": "0.000001", "cached": "0", "completion": "0.000003"}
    operator.post("/api/v1/prices", params={"base_model": base}, json=body).raise_for_status()


async def _prepare(server: embedded.EmbeddedPostgres) -> None:
    await embedded.wait_until_open(server)
    await ensure_roles(server.admin_dsn, DATABASE)


async def _seed(report: Report, server: embedded.EmbeddedPostgres, tenant: str, base: str, size: Size) -> None:
    admin = server.dsn(SUPERUSER)
    connection = await asyncpg.connect(admin)
    price = await connection.fetchval("SELECT id FROM price LIMIT 1")
    await connection.close()
    await seed(admin, UUID(hex=tenant.partition("_")[2]), UUID(hex=base.partition("_")[2]), price, size)
    began = perf_counter()
    await _closed(server.dsn(APP))
    report.add("closing days", perf_counter() - began, "s")


async def _closed(dsn: str) -> None:
    """Until every day is closed, by whoever: the gateway goes round as well."""
    database = await Database.connect(dsn)
    waits = (
        "SELECT EXISTS (SELECT FROM usage_closed WHERE until < date_trunc('day', now() - interval '1 hour', 'UTC'))"
    )
    try:
        while True:
            await Closer(database).close()
            async with database.operator() as connection:
                if not await connection.fetchval(waits):
                    return
            await asyncio.sleep(0.2)
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the rows as JSON here")
    a = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    report = Report("console")
    measure(report, Size(a.adapters, a.events), a.rounds)
    if a.out:
        report.write(a.out)
    print(report.summary())


if __name__ == "__main__":
    main()
