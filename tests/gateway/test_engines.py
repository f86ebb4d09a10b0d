"""Operators see every engine; tenants do not: adapters are named by digest there, whoever's they are."""

from uuid import UUID

import httpx

from tenantry.platform.fleet.report import report
from tenantry.platform.fleet.views import STAGES
from tenantry.platform.gateway.chat import tenant_share
from tenantry.runtime.counts import AdapterState, ProposerCounts, Stats, StepTimes, TenantShare, TierCounts
from tenantry.runtime.messages import Pong
from tenantry.runtime.pressure import Stage


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
    assert engine["adapters"] == [
        {"digest": "01" * 32, "state": "resident", "bytes": 100, "users": 1, "versions": [], "known": 0}
    ]
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


def test_step_times_tiers_memory_and_guesses_are_told_as_the_engine_counts_them(live):
    client = Client()
    stats = Stats(
        pages_total=10, pages_free=4, kv_live_bytes=200, kv_cached_bytes=100, pages_evicted=3, prompt_tokens=90,
        cached_tokens=48, cached_host=20, cached_disk=12, memory_stage=2, memory_used=0.97, memory_limit=0.95,
        refused_memory=5, refused_early=1, yielded=2, adapter_bytes_limit=1000,
        step_times=StepTimes(measured=80, error=0.04, expected=0.012, took=0.0125, step=0.01),
        tiers=(TierCounts("host", 2, 8, 64, 5, 1, shed=4), TierCounts("disk", 6, 9, 96, 3, 0, bad=1, failures=2)),
        proposers=(ProposerCounts("ngram", True, 3, 9, 6, (3, 3), (3, 2)),),
    )  # fmt: skip
    client.last_pong = Pong("e1", 7, True, stats)
    live.engine.reported = [report("engine-0", "both", client, 0, 0)]
    [engine] = httpx.get(
        f"{live.url}/api/v1/engines", headers={"authorization": f"Bearer {live.operator_key}"}
    ).json()["data"]
    names = ("tier", "pages", "pages_total", "bytes", "found_tokens", "evictions", "shed", "bad", "failures")
    assert [tuple(tier[name] for name in names) for tier in engine["tiers"]] == [
        ("device", 6, 10, 300, 16, 3, 0, 0, 0),
        ("host", 2, 8, 64, 20, 1, 4, 0, 0),
        ("disk", 6, 9, 96, 12, 0, 0, 1, 2),
    ]  # fmt: skip
    assert engine["host_memory"] == {"stage": "shed_queue", "used": 0.97, "limit": 0.95, "refused": 5}
    times = engine["step_times"]
    assert (times["measured"], times["expected"], times["took"], times["error"]) == (80, 0.012, 0.0125, 0.04)
    assert engine["guesses"] == [
        {"proposer": "ngram", "adapted": True, "drafted_tokens": 9, "accepted_tokens": 6}
    ]  # fmt: skip
    assert (engine["yielded"], engine["refused_early"], engine["adapter_bytes_limit"]) == (2, 1, 1000)


def test_stages_of_memory_have_the_names_that_the_engine_counts_them_by():
    assert tuple(stage.name.lower() for stage in Stage) == STAGES


def test_a_tenant_does_not(api):
    assert api.get("/api/v1/engines").status_code == 403
