"""Operators see every engine; tenants do not: adapters are named by digest there, whoever's they are."""

import httpx

from tenantry.platform.fleet.report import report
from tenantry.runtime.counts import AdapterState, Stats
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


def test_a_tenant_does_not(api):
    assert api.get("/api/v1/engines").status_code == 403
