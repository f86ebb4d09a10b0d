"""Rows 51, 52 and the operator's side: budgets, rates and concurrency refuse before the engine hears of anything."""

import threading
import time

import httpx
import pytest

TEXT = "/v1/completions"


@pytest.fixture
def operator(live):
    headers = {"authorization": f"Bearer {live.operator_key}"}
    with httpx.Client(base_url=live.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def limited(live, operator):
    """A new tenant's client, and a way to set its limits."""
    made = operator.post("/api/v1/tenants", json={"name": f"limited-{time.monotonic_ns()}"}).json()
    key = operator.post(f"/api/v1/tenants/{made['id']}/keys", json={"name": "k"}).json()["key"]
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}, timeout=30) as client:
        client.limit = lambda **quota: operator.put(f"/api/v1/tenants/{made['id']}/quota", json=quota)
        yield client


def ask(client, **fields):
    return client.post(TEXT, json={"model": "base", "prompt": "hi", "max_tokens": 4, **fields})


def refused(reply, code):
    assert (reply.status_code, reply.json()["error"]["code"]) == (429, code), reply.text


def test_51_rate(limited, live):
    assert limited.limit(requests_per_minute=2).status_code == 200
    first = ask(limited)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    ask(limited)
    before = len(live.engine.generations)
    third = ask(limited)
    refused(third, "rate_limit_exceeded")
    assert int(third.headers["retry-after"]) >= 1
    assert len(live.engine.generations) == before


def test_51_concurrency(limited, live):
    limited.limit(concurrency=1)
    live.engine.pace = 0.3
    thread = threading.Thread(target=lambda: ask(limited))
    before = len(live.engine.generations)
    thread.start()
    while len(live.engine.generations) == before:
        time.sleep(0.01)
    refused(ask(limited), "concurrency_limit_exceeded")
    thread.join()
    live.engine.pace = 0.0
    deadline = time.monotonic() + 5
    while ask(limited).status_code != 200:
        assert time.monotonic() < deadline, "the slot must come back once the first is settled"
        time.sleep(0.05)


def test_52_a_hold_above_the_budget(limited, live):
    limited.limit(budget="0.0001")  # 100,000 nano; one completion token costs 1,500
    before = len(live.engine.generations)
    reply = ask(limited, n=8, max_tokens=100)
    refused(reply, "insufficient_quota")
    assert reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["type"] == "insufficient_quota"
    assert len(live.engine.generations) == before, "before any engine work"
    assert ask(limited).status_code == 200


@pytest.mark.parametrize(
    ("quota", "param"),
    [
        ({"concurrency": -1}, "concurrency"), ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"budget": "-1"}, "budget"), ({"budget": "1e9"}, "budget"), ({"budget": 5}, "budget"),
        ({"speed": 1}, "speed"),
    ],
)  # fmt: skip
def test_bad_limits(limited, quota, param):
    reply = limited.limit(**quota)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_72_stored_adapters(live, limited):
    allowance = live.gateway.registry.allowance
    live.gateway.registry.allowance = type(allowance)(adapters=2, bytes=allowance.bytes, uploads_per_hour=3)
    try:
        assert [limited.post("/api/v1/adapters", json={"name": f"a{i}"}).status_code for i in range(3)] == [
            201,
            201,
            429,
        ]
    finally:
        live.gateway.registry.allowance = allowance


def test_prices_and_grants_are_the_operators(operator, limited):
    base = limited.get("/v1/models/base").json()["x_base_model_id"]
    before = limited.get("/api/v1/prices/current", params={"base_model": base}).json()
    price = {"prompt": "0.000001", "cached": "0", "completion": "0.000002", "rejected": "0.000000004"}
    raised = operator.post(
        "/api/v1/prices",
        params={"base_model": base},
        json=price,
    )
    assert raised.status_code == 201, raised.text
    assert raised.json()["id"] != before["id"]
    assert (before["rejected"], raised.json()["rejected"]) == ("0.00", "0.000000004")
    dearer = operator.post("/api/v1/prices", params={"base_model": base}, json={**price, "rejected": "0.000003"})
    assert (dearer.status_code, dearer.json()["error"]["param"]) == (400, "rejected_nano")
    me = limited.get("/api/v1/me").json()
    granted = operator.post(f"/api/v1/tenants/{me['tenant']}/wallet", json={"kind": "grant", "amount": "12.5"})
    assert granted.json()["balance"] == "12.50"
    assert limited.get("/api/v1/wallet").json()["balance"] == "12.50"
    tenants = operator.get("/api/v1/tenants").json()["data"]
    assert me["tenant"] in {t["id"] for t in tenants}
    suspended = operator.patch(f"/api/v1/tenants/{me['tenant']}", json={"status": "suspended"})
    assert suspended.json()["status"] == "suspended"
    deadline = time.monotonic() + 3
    while limited.get("/api/v1/me").status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_tenants_are_found_by_part_of_their_name(operator):
    """Every letter stands for itself, and the pages of what is found are pages as any."""
    stem = f"{time.monotonic_ns()}"
    family = [f"p{stem}{end}" for end in ("-a", ".b", "_c", "")]
    for name in family:
        operator.post("/api/v1/tenants", json={"name": name}).raise_for_status()

    def named(part, **more):
        reply = operator.get("/api/v1/tenants", params={"name": part, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()

    assert [t["name"] for t in named(stem)["data"]] == family[::-1]
    first = named(stem, limit=3)
    rest = named(stem, limit=3, after=first["next"])
    assert [t["name"] for page in (first, rest) for t in page["data"]] == family[::-1]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [t["name"] for t in named(family[2][1:])["data"]] == [family[2]]
    for nothing in ("%", "p%-a", "\0", "' OR true --", f"P{stem}"):
        assert named(nothing)["data"] == []
    assert len(named("")["data"]) >= 4
    assert operator.get("/api/v1/tenants", params={"name": "x" * 64}).status_code == 400


def test_the_operator_reads_a_wallet_and_enters_each_entry_once(operator, limited):
    tenant = limited.get("/api/v1/me").json()["tenant"]
    wallet = f"/api/v1/tenants/{tenant}/wallet"

    def enter(kind, amount, once, note=""):
        body = {"kind": kind, "amount": amount, "note": note}
        return operator.post(wallet, json=body, headers={"idempotency-key": f"{tenant}-{once}"})

    for _ in range(2):
        assert enter("grant", "10", "a", "spring").json()["balance"] == "10.00"
    assert enter("adjust", "-12.5", "b", "billed twice").json()["balance"] == "-2.50"
    for kind, amount, once in (("grant", "-1", "c"), ("grant", "0", "d"), ("adjust", "many", "e")):
        refusal = enter(kind, amount, once)
        assert (refusal.status_code, refusal.json()["error"]["param"]) == (400, "amount")
    whole = operator.get(wallet).json()
    assert whole["balance"] == "-2.50"
    assert [(e["kind"], e["note"]) for e in whole["data"]] == [("adjust", "billed twice"), ("grant", "spring")]
    assert whole == limited.get("/api/v1/wallet").json()
    first = operator.get(wallet, params={"limit": 1}).json()
    rest = operator.get(wallet, params={"limit": 1, "after": first["next"]}).json()
    assert [*first["data"], *rest["data"]] == whole["data"]
    assert operator.get(f"/api/v1/tenants/ten_{'0' * 32}/wallet").status_code == 404
    assert limited.get(wallet).status_code == 403
