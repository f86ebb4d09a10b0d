"""Operators see every engine; tenants do not: adapters are named by digest there, whoever's they are."""

from uuid import UUID

import httpx

from tenantry.platform.fleet.report import report
from tenantry.platform.gateway.chat import tenant_share
from tenantry.runtime.counts import AdapterState, Stats, TenantShare
from tenantry.runtime.messages import Pong


class Client:
    ready, open = True, 3
    last_pong = Pong(
        "e1", 7, True,
        Stats(steps=7, running=2, waiting=1, pages_total=10, pages_free=4, step_seconds=0.25,
              adapters=(AdapterState(b"\1" * 32, "resident", 100, 1),)),
    )  # fmt: skip


def test_the_operator_sees_every_engine(live):
    live.engine.reported = [report("engine-0", "both", Client(), 5, 2)]
    headers = {"authorization": f"Bearer {live.operator_key}"}
    [engine] = httpx.get(f"{live.url}/api/v1/engines", headers=headers).json()["data"]
    assert (engine["name"], engine["role"], engine["state"], engine["epoch"]) == ("engine-0", "both", "ready", "e1")
    assert (engine["open"], engine["running"], engine["waiting"], engine["step_seconds"]) == (3, 2, 1, 0.25)
    assert engine["pages"] == {"total": 10, "free": 4, "cached": 0, "live_bytes": 0, "cached_bytes": 0}
    assert engine["adapters"] == [{"digest": "01" * 32, "state": "resident", "bytes": 100, "users": 1}]
    assert (engine["known_prefix_blocks"], engine["rerouted"]) == (5, 2)


def test_shares_of_work_are_told_by_the_tenants_names(live):
    whose, _ = live.make_tenant("busy-one")
    shares = (
        TenantShare(tenant_share(UUID(hex=whose.partition("_")[2])), 2.0, 3, 1, 30.0, 5.5),
        TenantShare("of nobody", 1.0, 0, 0, 10.0, 0.0),
    )
    client = Client()
    client.last_pong = Pong(
        "e1", 7, True, Stats(tenants=shares, tenants_waiting=1, pages_evicted=4, adapters_evicted=2)
    )
    live.engine.reported = [report("engine-0", "both", client, 0, 0)]
    headers = {"authorization": f"Bearer {live.operator_key}"}
    [engine] = httpx.get(f"{live.url}/api/v1/engines", headers=headers).json()["data"]
    assert engine["tenants"] == [
        {"tenant": "busy-one", "weight": 2.0, "waiting": 3, "running": 1, "work": 30.0, "share": 0.75, "ahead": 5.5},
        {"tenant": "of nobody", "weight": 1.0, "waiting": 0, "running": 0, "work": 10.0, "share": 0.25, "ahead": 0.0},
    ]
    assert (engine["tenants_waiting"], engine["pages_evicted"], engine["adapters_evicted"]) == (1, 4, 2)


def test_a_tenant_does_not(api):
    assert api.get("/api/v1/engines").status_code == 403
