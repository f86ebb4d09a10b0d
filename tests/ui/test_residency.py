"""Which engine holds what: each engine by itself, for the operator by everyone's names, for a tenant only its own."""

import itertools
import json
import re
from dataclasses import dataclass
from uuid import UUID

import pytest

from tenantry.platform.cli.console import document
from tenantry.platform.fleet.report import report
from tenantry.platform.gateway.chat import tenant_share
from tenantry.runtime.counts import AdapterState, Stats, TenantShare
from tenantry.runtime.messages import Pong
from tests.ui.test_views import Api, ready_adapters

NAMES = itertools.count()


@dataclass
class Client:
    """An engine's, as far as reports ask."""

    stats: Stats
    ready: bool = True
    open: int = 0

    @property
    def last_pong(self) -> Pong:
        return Pong("e", 1, True, self.stats)


def holding(*states, **counts):
    return Client(Stats(adapters=tuple(AdapterState(digest, state, 100, 1) for digest, state in states), **counts))


@pytest.fixture
def api(live):
    with Api(live, live.make_tenant(f"mine-{next(NAMES)}")[1]) as client:
        yield client


@pytest.fixture
def operator(live):
    with Api(live, live.operator_key) as client:
        yield client


@pytest.fixture(autouse=True)
def _reset(live):
    yield
    live.engine.reported = []


def digest_of(api, name):
    [version] = api.get(f"/api/v1/adapters/{name}/versions").json()["data"]
    return bytes.fromhex(version["digest"])


def stats_of(api, name):
    made = api.get(f"/api/v1/adapters/{name}").json()["id"]
    return api.get("/api/v1/adapter-stats", params={"adapter": made}).json()


def test_every_engine_tells_by_itself_what_it_holds(live, api):
    ready_adapters(live, api, ["support", "orders"])
    support, orders = digest_of(api, "support"), digest_of(api, "orders")
    live.engine.reported = [
        report("engine-0", "prefill", holding((support, "loading"), (orders, "failed")), 0, 0),
        report("engine-1", "decode", holding((support, "resident")), 0, 0),
        report("engine-2", "decode", holding(), 0, 0),
    ]
    told = stats_of(api, "support")
    assert [(e["name"], e["role"], e["state"]) for e in told["engines"]] == [
        ("engine-0", "prefill", "ready"), ("engine-1", "decode", "ready"), ("engine-2", "decode", "ready"),
    ]  # fmt: skip
    [row] = told["data"]
    assert row["resident"] == [
        {
            "version": 1,
            "state": "resident",
            "engines": [{"engine": "engine-0", "state": "loading"}, {"engine": "engine-1", "state": "resident"}],
        }
    ]
    [row] = stats_of(api, "orders")["data"]
    assert [(one["state"], len(one["engines"])) for one in row["resident"]] == [("failed", 1)]
    assert api.get("/api/v1/overview").json()["resident_versions"] == 1


def test_the_list_is_filtered_by_what_is_on_a_device_and_agrees_with_the_overview(live, api):
    ready_adapters(live, api, ["support", "orders", "dates"])
    with Api(live, live.make_tenant(f"other-{next(NAMES)}")[1]) as other:
        ready_adapters(live, other, ["theirs"])
        theirs = digest_of(other, "theirs")
    live.engine.reported = [
        report("engine-0", "both", holding((digest_of(api, "support"), "loading"), (theirs, "resident")), 0, 0),
        report("engine-1", "both", holding((digest_of(api, "orders"), "resident")), 0, 0),
    ]
    named = [row["name"] for row in api.get("/api/v1/adapters", params={"on_device": True}).json()["data"]]
    assert named == ["orders"]
    assert api.get("/api/v1/overview").json()["resident_versions"] == len(named)
    live.engine.reported = []
    assert api.get("/api/v1/adapters", params={"on_device": True}).json()["data"] == []
    assert len(api.get("/api/v1/adapters").json()["data"]) == 3


def test_the_operator_reads_names_also_of_what_is_gone(live, api, operator):
    ready_adapters(live, api, ["support", "orders"])
    tenant = api.get("/api/v1/me").json()["tenant_name"]
    digests = digest_of(api, "support"), digest_of(api, "orders"), b"?" * 32
    etag = api.get("/api/v1/adapters/orders").json()["etag"]
    assert api.delete("/api/v1/adapters/orders", headers={"if-match": etag}).is_success
    live.engine.reported = [report("engine-0", "both", holding(*((d, "resident") for d in digests)), 0, 0)]
    [engine] = operator.get("/api/v1/engines").json()["data"]
    assert [(one["versions"], one["known"]) for one in engine["adapters"]] == [
        ([{"tenant": tenant, "model": "support:1", "state": "ready"}], 1),
        ([{"tenant": tenant, "model": "orders:1", "state": "deleted"}], 1),
        ([], 0),
    ]


def test_of_weights_that_many_have_a_few_holders_are_named_and_all_are_counted(live, api, operator):
    ready_adapters(live, api, ["first"])
    digest = digest_of(api, "first")
    tenant = UUID(hex=api.get("/api/v1/me").json()["tenant"].partition("_")[2])

    async def copy(times):
        async with live.gateway.parts.database.tenant(tenant) as c:
            await c.execute(
                """INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, digest, manifest)
                SELECT tenant_id, gen_random_uuid(), adapter_id, n, 'retired', digest, '{}'
                FROM adapter_version, generate_series(2, $2) n WHERE digest = $1 AND number = 1""",
                digest, times,
            )  # fmt: skip

    live.run(copy(6))
    live.engine.reported = [report("engine-0", "both", holding((digest, "resident")), 0, 0)]
    [engine] = operator.get("/api/v1/engines").json()["data"]
    [adapter] = engine["adapters"]
    assert [(v["model"], v["state"]) for v in adapter["versions"]] == [
        ("first:1", "ready"), ("first:2", "retired"), ("first:3", "retired"),
    ]  # fmt: skip
    assert adapter["known"] == 6


def test_no_route_of_a_tenant_names_another_tenant_or_what_is_its(live, api):
    """Every GET of the document that a tenant's key may ask, while engines hold and queue the other's work."""
    name = f"theirs-{next(NAMES)}"
    tenant, key = live.make_tenant(name)
    with Api(live, key) as other:
        ready_adapters(live, other, ["hidden-adapter"])
        digest = digest_of(other, "hidden-adapter")
        other.say("hidden-adapter")
        whose = UUID(hex=tenant.partition("_")[2])
        their_key = other.get("/api/v1/me").json()["key"]
        adapter = other.get("/api/v1/adapters/hidden-adapter").json()["id"]
    share = TenantShare(tenant_share(whose), 1.0, 3, 1, 30.0, 5.5)
    client = holding((digest, "resident"), tenants=(share,))
    live.engine.reported = [report("engine-0", "both", client, 0, 0)]
    live.engine.stats = client.stats
    ready_adapters(live, api, ["mine"])
    theirs = (adapter, "hidden-adapter", tenant, their_key, digest.hex())
    secrets = (*theirs, name, whose.hex, str(whose), share.tenant)
    answered = []
    try:
        for path in asked_by_get():
            for hint in ("mine", *theirs) if "{" in path else ("",):
                reply = api.get(re.sub(r"\{\w+\}", hint, path), params={"adapter": adapter} if not hint else {})
                assert reply.status_code < 500, (path, reply.text)
                assert hint not in theirs or not reply.is_success, path
                if reply.is_success:
                    answered.append(path)
                    assert not [one for one in secrets if one in reply.text.replace(f'"{adapter}"', "", 1)], path
    finally:
        live.engine.stats = None
    assert {"/api/v1/overview", "/api/v1/adapter-stats", "/api/v1/adapters", "/v1/models"} <= set(answered)


def asked_by_get():
    """Paths of the API but for the one that streams."""
    paths = json.loads(document())["paths"]
    return [
        path for path, ways in paths.items()
        if "get" in ways and path.startswith(("/api/", "/v1/")) and path != "/api/v1/events"
    ]  # fmt: skip
