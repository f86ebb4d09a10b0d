"""What the console's pages are made of: a tenant's own numbers, told once, paged and bounded."""

import itertools
import json
from types import SimpleNamespace
from uuid import UUID, uuid4

import httpx
import pytest

from tenantry.platform.admin.live import AT_ONCE, Watchers
from tenantry.platform.core.errors import RateLimited
from tenantry.platform.fleet.report import report
from tenantry.runtime.counts import AdapterState, Stats
from tenantry.runtime.messages import Pong

NAMES = itertools.count()


class Api(httpx.Client):
    def __init__(self, live, key):
        super().__init__(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=30)

    def say(self, model="base", **more):
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, **more}
        reply = self.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        return reply


@pytest.fixture
def api(live):
    """A fresh tenant's client."""
    with Api(live, live.make_tenant(f"t{next(NAMES)}")[1]) as client:
        yield client


@pytest.fixture
def operator(live):
    with Api(live, live.operator_key) as client:
        yield client


def settled(api, reply):
    """The event of this reply, once the ledger has it."""
    for _ in range(100):
        found = api.get(f"/api/v1/usage/events/{reply.headers['x-request-id']}")
        if found.status_code == 200:
            return found.json()
        import time

        time.sleep(0.02)
    raise AssertionError(found.text)


def test_the_overview_counts_what_was_settled_and_what_is_running(live, api):
    before = api.get("/api/v1/overview").json()
    assert before["day"]["requests"] == 0
    assert before["pace"]["first_token_p95"] is None
    reply = api.say()
    event = settled(api, reply)
    after = api.get("/api/v1/overview").json()
    assert after["day"]["requests"] == 1
    assert after["day"]["completion_tokens"] == event["completion_tokens"] == 8
    assert after["day"]["cost"] == event["cost"] == after["limits"]["spent"]
    assert after["pace"]["settled"] == 1
    assert after["pace"]["running"] == 0
    assert after["pace"]["first_token_samples"] == 1
    assert after["unreconciled_tokens"] == 0


def test_another_tenants_request_moves_nothing_of_mine(live, api):
    with Api(live, live.make_tenant(f"t{next(NAMES)}")[1]) as other:
        reply = other.say()
        settled(other, reply)
        assert api.get("/api/v1/overview").json()["day"]["requests"] == 0
        assert api.get("/api/v1/live").json()["settled"] == 0
        assert api.get(f"/api/v1/usage/events/{reply.headers['x-request-id']}").status_code == 404


def test_the_operator_sees_all_tenants_together(api, operator):
    settled(api, api.say())
    assert operator.get("/api/v1/overview/all").json()["day"]["requests"] >= 1


def test_the_live_stream_tells_the_pace_and_is_a_stream(live, api):
    with api.stream("GET", "/api/v1/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        line = next(line for line in reply.iter_lines() if line.startswith("data: "))
    assert json.loads(line[6:])["object"] == "pace"


async def test_watchers_are_few_and_leave_when_the_gateway_drains():
    draining = False
    watchers = Watchers(lambda: draining, every_s=0.001, life_s=1e9)
    from uuid import uuid4

    who = uuid4()
    streams = [watchers.watch(who, Stats) for _ in range(AT_ONCE)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(RateLimited):
        watchers.watch(who, Stats)
    watchers.watch(uuid4(), Stats)
    draining = True
    assert [part async for part in streams[0]] == []
    draining = False
    assert await anext(watchers.watch(who, Stats)) == b"retry: 3000\n\n"
    for stream in streams:
        await stream.aclose()


def test_a_series_adds_up_to_the_total_whatever_it_is_grouped_by(api):
    for _ in range(3):
        settled(api, api.say())
    total = api.get("/api/v1/usage", params={"group_by": "total"}).json()["data"][0]
    for by in ("adapter", "version", "key", "total"):
        for bucket in ("hour", "day"):
            points = api.get("/api/v1/usage/series", params={"group_by": by, "bucket": bucket}).json()["data"]
            assert sum(p["requests"] for p in points) == total["requests"] == 3
            assert sum(p["completion_tokens"] for p in points) == total["completion_tokens"]
            assert not any(p["rest"] for p in points)


def test_a_series_tells_few_groups_apart_and_sums_the_others(live, api):
    for i in range(3):
        made = api.post("/api/v1/keys", json={"name": f"k{i}"}).json()["key"]
        with Api(live, made) as client:
            for _ in range(i + 1):
                settled(client, client.say())
    points = api.get("/api/v1/usage/series", params={"group_by": "key", "groups": 1}).json()["data"]
    named, rest = [p for p in points if not p["rest"]], [p for p in points if p["rest"]]
    assert {p["label"] for p in named} == {"k2"}
    assert sum(p["requests"] for p in named) == 3
    assert sum(p["requests"] for p in rest) == 3
    assert all(p["id"] is None and p["label"] is None for p in rest)


def test_a_series_is_bounded_in_buckets(api):
    far = {"from": "2020-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}
    assert api.get("/api/v1/usage/series", params=far).json()["error"]["param"] == "bucket"


def test_events_can_be_cut_out_by_time(api):
    event = settled(api, api.say())
    after, before = {"from": event["occurred_at"]}, {"to": event["occurred_at"]}
    assert len(api.get("/api/v1/usage/events", params=after).json()["data"]) == 1
    assert api.get("/api/v1/usage/events", params=before).json()["data"] == []


def test_headroom_is_what_admission_would_still_let_in(api, operator):
    tenant = api.get("/api/v1/me").json()["tenant"]
    unlimited = api.get("/api/v1/limits").json()["data"]
    assert [(r["key"], r["budget"], r["requests_left"]) for r in unlimited] == [(None, None, None)]
    quota = {"concurrency": 4, "requests_per_minute": 60, "budget": "0.5", "budget_period": "month"}
    operator.put(f"/api/v1/tenants/{tenant}/quota", json=quota)
    event = settled(api, api.say())
    [room] = api.get("/api/v1/limits").json()["data"]
    assert room["concurrency"] == 4
    assert room["running"] == 0
    assert room["requests_left"] in (59, 60)
    assert room["spent"] == room["spent_this_month"] == event["cost"]
    assert float(room["reserved"]) == 0
    assert operator.get(f"/api/v1/tenants/{tenant}/limits").json()["data"][0]["spent"] == event["cost"]


def test_limits_of_keys_are_paged_after_the_tenants_own(api, operator):
    tenant = api.get("/api/v1/me").json()["tenant"]
    made = [api.post("/api/v1/keys", json={"name": f"k{i}"}).json()["id"] for i in range(3)]
    for key in made:
        operator.put(f"/api/v1/tenants/{tenant}/keys/{key}/quota", json={"concurrency": 1})
    first = api.get("/api/v1/limits", params={"limit": 2}).json()
    assert [r["key"] for r in first["data"]] == [None, *made[:2]]
    rest = api.get("/api/v1/limits", params={"limit": 2, "after": first["next"]}).json()
    assert [r["key"] for r in rest["data"]] == made[2:]
    assert not rest["has_more"]


def test_adapters_are_filtered_ordered_and_paged_by_the_server(api):
    for name in ("beta", "alpha", "gamma", "alphabet"):
        assert api.post("/api/v1/adapters", json={"name": name}).status_code == 201

    def names(**query):
        found, after = [], None
        while True:
            page = api.get(
                "/api/v1/adapters", params={**query, "limit": 1, **({"after": after} if after else {})}
            ).json()
            found += [row["name"] for row in page["data"]]
            if not page["has_more"]:
                return found
            after = page["next"]

    assert names() == ["alphabet", "gamma", "alpha", "beta"]
    assert names(order="asc") == ["beta", "alpha", "gamma", "alphabet"]
    assert names(sort="name", order="asc") == ["alpha", "alphabet", "beta", "gamma"]
    assert names(sort="name") == ["gamma", "beta", "alphabet", "alpha"]
    assert names(name="alpha", sort="name", order="asc") == ["alpha", "alphabet"]
    assert names(name="%") == []
    assert names(state="ready") == []
    assert api.get("/api/v1/adapters", params={"state": "mood"}).status_code == 400


def test_adapter_stats_tell_who_is_resident_and_nothing_of_others(live, api):
    made = api.post("/api/v1/adapters", json={"name": "one"}).json()["id"]
    client = SimpleNamespace(
        ready=True, open=0, last_pong=Pong("e", 1, True, Stats(adapters=(AdapterState(b"x" * 32, "resident", 5, 1),)))
    )
    live.engine.reported = [report("engine-0", "both", client, 0, 0)]
    try:
        [stats] = api.get("/api/v1/adapter-stats", params={"adapter": made}).json()["data"]
        assert stats == {
            "adapter": made, "requests": 0, "cost": "0.00", "first_token_p95": None, "resident": [],
            "object": "adapter_stats",
        }  # fmt: skip
        assert api.get("/api/v1/overview").json()["resident_versions"] == 0
    finally:
        live.engine.reported = []
    many = [("adapter", made)] * 101
    assert api.get("/api/v1/adapter-stats", params=many).status_code == 400


def test_impact_counts_what_an_act_would_hit(live, api, operator):
    key = api.get("/api/v1/me").json()["key"]
    text = api.headers["authorization"].removeprefix("Bearer ")
    httpx.post(f"{live.url}/api/v1/browser-sessions", json={"key": text})
    found = api.get("/api/v1/impact", params={"key": key}).json()
    assert found["browser_sessions"] == 1
    assert found["requests_in_flight"] == 0
    api.post("/api/v1/adapters", json={"name": "one"})
    assert api.get("/api/v1/impact", params={"adapter": "one"}).json()["adapters"] == 1
    assert api.get("/api/v1/impact", params={"adapter": "one", "version": 7}).status_code == 404
    assert api.get("/api/v1/impact", params={"adapter": "none"}).status_code == 404
    assert api.get("/api/v1/impact").status_code == 400
    tenant = api.get("/api/v1/me").json()["tenant"]
    whole = operator.get(f"/api/v1/tenants/{tenant}/impact").json()
    assert (whole["keys"], whole["adapters"], whole["browser_sessions"]) == (1, 1, 1)


def test_impact_counts_the_sessions_that_could_not_go_on(live, api, operator):
    ready_adapters(live, api, ["kept", "other"])
    for model in ("kept", "other", "base"):
        assert api.post("/v1/responses", json={"model": model, "input": "Hi"}).status_code == 200
    tenant = api.get("/api/v1/me").json()["tenant"]
    assert operator.get(f"/api/v1/tenants/{tenant}/impact").json()["sessions"] == 3
    for asked in ({"adapter": "kept"}, {"adapter": "kept", "version": 1}):
        assert api.get("/api/v1/impact", params=asked).json()["sessions"] == 1
    operator.delete(f"/api/v1/tenants/{tenant}")
    assert operator.get(f"/api/v1/tenants/{tenant}/impact").status_code == 404, "it is gone already"


def test_a_foreign_key_and_adapter_have_no_impact_to_tell(live, api):
    with Api(live, live.make_tenant(f"t{next(NAMES)}")[1]) as other:
        theirs = other.get("/api/v1/me").json()["key"]
        other.post("/api/v1/adapters", json={"name": "secret"})
    assert api.get("/api/v1/impact", params={"key": theirs}).status_code == 404
    assert api.get("/api/v1/impact", params={"adapter": "secret"}).status_code == 404


def test_activity_tells_every_act_once_however_it_is_paged(live, api):
    made = [api.post("/api/v1/keys", json={"name": f"k{i}"}).json()["id"] for i in range(3)]
    api.delete(f"/api/v1/keys/{made[1]}")
    httpx.post(
        f"{live.url}/api/v1/browser-sessions",
        json={"key": api.headers["authorization"].removeprefix("Bearer ")},
    )
    own, name = (api.get("/api/v1/me").json()[field] for field in ("key", "tenant_name"))
    whole = api.get("/api/v1/activity", params={"limit": 100}).json()["data"]
    assert [(a["kind"], a["subject"]) for a in whole] == [
        ("signed_in", "test"), ("key_revoked", "k1"), ("key_created", "k2"), ("key_created", "k1"),
        ("key_created", "k0"), ("key_created", "test"), ("tenant_created", name),
    ]  # fmt: skip
    assert whole[0]["actor"] == {
        "id": own, "name": "test", "person": False, "revoked_at": None, "object": "actor",
    }  # fmt: skip
    assert [act["actor"] and act["actor"]["id"] for act in whole] == [own] * 5 + [None, None]
    paged, after = [], None
    while True:
        page = api.get("/api/v1/activity", params={"limit": 2, **({"after": after} if after else {})}).json()
        paged += page["data"]
        if not page["has_more"]:
            break
        after = page["next"]
    assert paged == whole
    assert api.get("/api/v1/activity", params={"after": "1'; --"}).status_code == 400


def test_an_aliass_history_tells_who_moved_it_and_that_they_are_gone(live, api):
    ready_adapters(live, api, ["kept"])
    mira = api.post("/api/v1/team", json={"name": "Mira Kovac", "role": "manager"}).json()
    with Api(live, mira["secret"]) as hers:
        assert hers.put("/api/v1/adapters/kept/aliases/canary", json={"version": 1}).is_success
    history = "/api/v1/adapters/kept/aliases/canary/history"
    actor = api.get(history).json()["data"][0]["actor"]
    assert (actor["id"], actor["name"], actor["person"]) == (mira["member"]["key"], "Mira Kovac", True)
    assert actor["revoked_at"] is None
    api.delete(f"/api/v1/keys/{actor['id']}")
    assert api.get(history).json()["data"][0]["actor"]["revoked_at"] is not None
    moved = [act for act in api.get("/api/v1/activity").json()["data"] if act["kind"] == "alias_moved"]
    assert [act["actor"]["name"] for act in moved] == ["Mira Kovac"]


def test_prices_are_listed_with_those_to_come(api, operator):
    base = api.get("/v1/models").json()["data"][0]["x_base_model_id"]
    body = {"prompt": "0.000001", "cached": "0", "completion": "0.000002", "effective_from": "2100-01-01T00:00:00Z"}
    assert operator.post("/api/v1/prices", params={"base_model": base}, json=body).status_code == 201
    first = api.get("/api/v1/prices", params={"base_model": base, "limit": 1}).json()
    assert first["data"][0]["effective_from"].startswith("2100")
    rest = api.get("/api/v1/prices", params={"base_model": base, "after": first["next"]}).json()
    assert len(rest["data"]) >= 1
    assert not rest["has_more"]


def test_models_are_paged_and_found_by_a_part_of_their_name(live, api):
    made = ready_adapters(live, api, ["alpha", "beta", "bet-two"])
    whole = api.get("/v1/models").json()
    base, *names = [one["id"] for one in whole["data"]]
    assert names == sorted(made)
    assert not whole["has_more"]
    paged, after = [], None
    while True:
        page = api.get("/v1/models", params={"limit": 1, **({"after": after} if after else {})}).json()
        paged += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = page["next"]
    assert paged == [base, *names]
    assert [one["id"] for one in api.get("/v1/models", params={"name": "bet"}).json()["data"]] == ["bet-two", "beta"]
    assert api.get("/v1/models/beta").json()["id"] == "beta"
    assert api.get(f"/v1/models/{base}").json()["id"] == base
    assert api.get("/v1/models/bet").status_code == 404


def ready_adapters(live, api, names):
    """Rows of adapters that answer; what is in them is nobody's business here."""
    tenant = UUID(hex=api.get("/api/v1/me").json()["tenant"].partition("_")[2])

    async def make():
        async with live.gateway.parts.database.tenant(tenant) as c:
            for name in names:
                adapter, version, digest = uuid4(), uuid4(), uuid4().bytes * 2
                base = await c.fetchval("SELECT id FROM base_model LIMIT 1")
                await c.execute(
                    "INSERT INTO adapter (tenant_id, id, name, base_model_id) VALUES ($1, $2, $3, $4)",
                    tenant, adapter, name, base,
                )  # fmt: skip
                await c.execute("INSERT INTO artifact (tenant_id, digest, bytes) VALUES ($1, $2, 1)", tenant, digest)
                await c.execute(
                    "INSERT INTO adapter_version (tenant_id, id, adapter_id, number, state, digest, manifest) "
                    "VALUES ($1, $2, $3, 1, 'ready', $4, '{}')", tenant, version, adapter, digest,
                )  # fmt: skip
                await c.execute(
                    "INSERT INTO adapter_alias (tenant_id, adapter_id, alias, version_id) "
                    "VALUES ($1, $2, 'default', $3)", tenant, adapter, version,
                )  # fmt: skip

    live.run(make())
    return names


def test_versions_of_deleted_adapters_are_counted_nowhere(live, api):
    ready_adapters(live, api, ["kept", "gone"])
    assert api.get("/api/v1/overview").json()["versions"] == {"ready": 2}
    etag = api.get("/api/v1/adapters/gone").json()["etag"]
    assert api.delete("/api/v1/adapters/gone", headers={"if-match": etag}).is_success
    assert api.get("/api/v1/overview").json()["versions"] == {"ready": 1}
