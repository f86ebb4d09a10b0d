"""Every act leaves one row: when, what, to what, by whom; and that row never changes."""

import itertools
import time

import httpx
import pytest

from tenantry.platform.tenants.acts import KINDS
from tests.ui.test_views import Api, ready_adapters

NAMES = itertools.count()
QUOTA = {"concurrency": 2, "requests_per_minute": 60, "budget": "5", "budget_period": "month"}


def acts(api, *kinds):
    return api.get("/api/v1/activity", params={"limit": 100, "kind": kinds}).json()["data"]


@pytest.fixture
def operator(live):
    with Api(live, live.operator_key) as client:
        yield client


@pytest.fixture
def tenant(live, operator):
    """(its id, its client), made by the operator over HTTP."""
    name = f"acts{next(NAMES)}"
    made = operator.post("/api/v1/tenants", json={"name": name}).json()["id"]
    key = operator.post(f"/api/v1/tenants/{made}/keys", json={"name": "first"}).json()["key"]
    with Api(live, key) as client:
        yield made, name, client


def test_what_the_operator_does_to_a_tenant_is_told_to_both(live, operator, tenant):
    made, name, api = tenant
    for quota in (QUOTA, QUOTA, {}):
        assert operator.put(f"/api/v1/tenants/{made}/quota", json=quota).is_success
    operator.post(f"/api/v1/tenants/{made}/wallet", json={"kind": "grant", "amount": "12.5", "note": "spring"})
    operator.post(f"/api/v1/tenants/{made}/wallet", json={"kind": "adjust", "amount": "-1"})
    for status in ("suspended", "suspended", "active"):
        operator.patch(f"/api/v1/tenants/{made}", json={"status": status})
    time.sleep(1.1)  # until the gateway believes the key again
    whole = acts(api)
    limits = "2 at once, 60 requests a minute, 5.00 a month"
    assert [(a["kind"], a["subject"], a["detail"], a["reason"]) for a in whole] == [
        ("tenant_resumed", name, "", ""), ("tenant_suspended", name, "", ""),
        ("wallet_adjusted", name, "-1.00", ""), ("wallet_granted", name, "12.50", "spring"),
        ("quota_changed", name, f"{limits} → unlimited", ""), ("quota_changed", name, f"unlimited → {limits}", ""),
        ("key_created", "first", "inference, manage", ""), ("tenant_created", name, "", ""),
    ]  # fmt: skip
    assert {(a["actor"]["name"], a["tenant"]) for a in whole} == {("operator", None)}
    assert [a["at"] for a in whole] == sorted((a["at"] for a in whole), reverse=True)
    theirs = [a for a in acts(operator) if a["tenant"] == name]
    assert [(a["kind"], a["at"]) for a in theirs] == [(a["kind"], a["at"]) for a in whole]
    operator.delete(f"/api/v1/tenants/{made}")
    assert [(a["kind"], a["tenant"]) for a in acts(operator, "tenant_deleted")] == [("tenant_deleted", name)]


def test_what_happens_to_an_adapter_is_told_at_its_own_time_and_never_changes(live, tenant):
    _, _, api = tenant
    ready_adapters(live, api, ["brief"])
    assert api.post("/api/v1/adapters", json={"name": "empty"}).status_code == 201
    put = api.put("/api/v1/adapters/brief/aliases/canary", json={"version": 1, "reason": "try"})
    before = acts(api)
    api.delete("/api/v1/adapters/brief/aliases/canary", headers={"if-match": put.headers["etag"]})
    assert api.delete("/api/v1/adapters/brief", params={"revoke": True}).status_code == 202
    assert api.delete("/api/v1/adapters/brief").status_code == 404
    after = acts(api)
    assert after[-len(before) :] == before
    me = api.get("/api/v1/me").json()["key"]
    new = [(a["kind"], a["subject"], a["detail"], a["actor"]["id"]) for a in after[: -len(before)]]
    assert new == [
        ("adapter_deleted", "brief", "requests under way ended", me), ("alias_removed", "brief@canary", "1 →", me),
    ]  # fmt: skip
    assert [(a["kind"], a["subject"], a["detail"], a["reason"]) for a in before[:2]] == [
        ("alias_moved", "brief@canary", " → 1", "try"), ("adapter_created", "empty", "", ""),
    ]  # fmt: skip
    alone = api.get("/api/v1/activity", params={"adapter": "brief", "limit": 100}).json()["data"]
    assert {a["subject"].partition("@")[0].partition(":")[0] for a in alone} == {"brief"}
    assert len(alone) == 3


def test_kinds_are_told_alone_several_at_once_and_sign_ins_can_be_left_out(live, tenant):
    _, _, api = tenant
    key = api.post("/api/v1/keys", json={"name": "spare"}).json()["id"]
    for _ in range(2):  # the second time it is not an act any more
        assert api.delete(f"/api/v1/keys/{key}").status_code == 200
    for _ in range(3):
        body = {"key": api.headers["authorization"].removeprefix("Bearer ")}
        httpx.post(f"{live.url}/api/v1/browser-sessions", json=body)
    assert [a["kind"] for a in acts(api, "signed_in")] == ["signed_in"] * 3
    assert [a["kind"] for a in acts(api, "key_revoked", "key_created")] == [
        "key_revoked",
        "key_created",
        "key_created",
    ]
    assert acts(api, *(kind for kind in KINDS if kind != "signed_in")) == acts(api)[3:]
    revoked, created, first = acts(api, "key_revoked", "key_created")
    me = api.get("/api/v1/me").json()["key"]
    assert (revoked["actor"]["id"], created["actor"]["id"], first["actor"]["name"]) == (me, me, "operator")
    refused = api.get("/api/v1/activity", params={"kind": "made_up"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "kind")


def test_another_tenant_is_told_nothing_of_it(live, tenant):
    _, name, _ = tenant
    with Api(live, live.make_tenant(f"acts{next(NAMES)}")[1]) as other:
        assert name not in str(acts(other))


def test_a_price_is_told_to_the_operator_and_one_from_the_past_is_refused(operator, tenant):
    _, _, api = tenant
    base = api.get("/v1/models").json()["data"][0]["x_base_model_id"]
    body = {"prompt": "0.000002", "cached": "0.000001", "completion": "0.000004"}
    asked = {"params": {"base_model": base}}
    for past in ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00"):
        refused = operator.post("/api/v1/prices", json=body | {"effective_from": past}, **asked)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "effective_from")
    before = len(acts(operator, "price_set"))
    assert operator.post("/api/v1/prices", json=body, **asked).status_code == 201
    told = acts(operator, "price_set")
    assert len(told) == before + 1
    assert told[0]["subject"].startswith("base from 20")
    assert told[0]["detail"] == "prompt 2.00, cached 1.00, completion 4.00, rejected 0.00 per million"
    assert acts(api, "price_set") == []
