"""Group A of the bad-input catalogue: HTTP and headers, row by row, over raw sockets where clients would tidy up."""

import json
import socket
import statistics
import time

import pytest

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()


def raw(live, head: bytes, body: bytes = b"", timeout: float = 10.0) -> tuple[int, dict, dict]:
    """Exactly these bytes; the answer's status, headers and JSON."""
    with socket.create_connection(("127.0.0.1", live.port), timeout) as connection:
        connection.sendall(head + body)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    top, _, rest = received.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    parsed = json.loads(rest) if headers.get("content-type", "").startswith("application/json") and rest else {}
    return int(lines[0].split()[1]), headers, parsed


def request(live, method="GET", path="/v1/models", key=None, headers=(), body=b"", host="x"):
    lines = [f"{method} {path} HTTP/1.1".encode(), b"connection: close"]
    if host is not None:
        lines.append(b"host: " + (host if isinstance(host, bytes) else host.encode()))
    if key is not None:
        lines.append(b"authorization: Bearer " + (key if isinstance(key, bytes) else key.encode()))
    if body:
        lines.append(b"content-length: %d" % len(body))
    lines += [header if isinstance(header, bytes) else header.encode() for header in headers]
    return raw(live, b"\r\n".join(lines) + b"\r\n\r\n", body)


def assert_envelope(answer, status, code):
    found, headers, body = answer
    error = body["error"]
    assert (found, error["code"]) == (status, code), answer
    assert set(error) == {"type", "code", "message", "param", "request_id"}
    assert error["request_id"] == headers["x-request-id"]
    assert headers["x-request-id"].startswith("req_")


AUTHORIZATIONS = {
    "absent": None,
    "empty": b"",
    "no-scheme": b"KEY",
    "basic": b"Basic KEY",
    "only-scheme": b"Bearer",
    "2-sql": b"Bearer ' OR '1'='1",
    "2-sleep": b"Bearer '; SELECT pg_sleep(5)--",
    "4-latin": b"Bearer KEY\xe9",
    "4-lookalike": "Bearer KEY".replace("KEY", "tny_live_\u0430").encode(),
    "4-long": b"Bearer " + b"x" * 20_000,
    "4-inner-space": b"Bearer KEY KEY",
    "5-unknown": b"Bearer tny_live_0000000000000000_00000000000000000000000000000000000000",
}


@pytest.mark.parametrize("name", AUTHORIZATIONS)
def test_1_2_4_bad_authorization(live, tenant, name):
    value = AUTHORIZATIONS[name]
    headers = [] if value is None else [b"authorization: " + value.replace(b"KEY", tenant[1].encode())]
    before = live.gateway.authenticator.queries
    assert_envelope(request(live, headers=headers), 401, "invalid_api_key")
    assert live.gateway.authenticator.queries == before, "no query for what cannot be a key"


def test_1_the_scheme_is_case_insensitive(live, tenant):
    assert request(live, headers=[f"authorization: bearer {tenant[1]}"])[0] == 200


def test_2_injections_take_no_longer_than_nonsense(live):
    def median(value):
        times = []
        for _ in range(15):
            started = time.perf_counter()
            request(live, headers=[b"authorization: Bearer " + value])
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    assert abs(median(b"'; SELECT pg_sleep(5)--") - median(b"nonsense")) < 0.05


def test_3_two_authorization_headers(live, tenant):
    header = f"authorization: Bearer {tenant[1]}"
    assert_envelope(request(live, headers=[header, header]), 400, "duplicate_header")


def test_4_a_nul_in_the_key_never_reaches_us(live, tenant):
    assert request(live, headers=[b"authorization: Bearer " + tenant[1].encode() + b"\0"])[0] in (400, 401)


def test_5_revoked_expired_foreign_and_suspended_look_alike(live, api):
    from datetime import UTC, datetime, timedelta

    from tenantry.platform.tenants import keys, service

    tenant_id, key = live.make_tenant("gone")
    answers = []
    made = api.post("/api/v1/keys", json={"name": "revoked"}).json()
    assert api.delete(f"/api/v1/keys/{made['id']}").status_code == 200
    answers.append(request(live, key=made["key"]))
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    expired = api.post("/api/v1/keys", json={"name": "expired", "expires_at": past}).json()
    answers.append(request(live, key=expired["key"]))
    answers.append(request(live, key=keys.make("test", live.gateway.parts.peppers).text))
    answers.append(request(live, key=keys.make("live", live.gateway.parts.peppers).text))

    async def suspend():
        async with live.gateway.parts.database.operator() as connection:
            from tenantry.platform.core import ids

            await service.set_status(connection, ids.from_text("tenant", tenant_id), "suspended")

    live.run(suspend())
    answers.append(request(live, key=key))
    for answer in answers:
        assert_envelope(answer, 401, "invalid_api_key")
    assert len({answer[2]["error"]["message"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/v1/tenants"), ("POST", "/api/v1/tenants"), ("POST", "/api/v1/prices")]
)
def test_6_operator_routes_for_a_tenant(live, tenant, method, path):
    assert_envelope(request(live, method, path, tenant[1]), 403, "missing_scope")


def test_6_a_narrow_key_and_another_tenants_objects(live, api):
    narrow = api.post("/api/v1/keys", json={"name": "narrow", "scopes": ["inference"]}).json()
    assert_envelope(request(live, "GET", "/api/v1/keys", narrow["key"]), 403, "missing_scope")
    _, other = live.make_tenant("other")
    mine = api.post("/api/v1/keys", json={"name": "mine"}).json()["id"]
    foreign = request(live, "DELETE", f"/api/v1/keys/{mine}", other)
    absent = request(live, "DELETE", "/api/v1/keys/key_" + "0" * 32, other)
    for answer in (foreign, absent):
        assert_envelope(answer, 404, "key_not_found")
    assert foreign[2]["error"]["message"] == absent[2]["error"]["message"]


@pytest.mark.parametrize("host", ["x/#@evil", "", "a" * 300, "a b", b"x\xff", None])
def test_7_hosts(live, tenant, host):
    assert request(live, key=tenant[1], host=host)[0] == 400


def test_7_two_hosts(live, tenant):
    assert_envelope(request(live, key=tenant[1], headers=["host: y"]), 400, "duplicate_header")


def test_8_forged_headers_change_nothing(live, tenant):
    forged = [
        "x-forwarded-for: 1.2.3.4",
        "x-tenant-id: ten_" + "0" * 32,
        "x-cache-salt: victim",
        "x-request-id: victim",
        "content-type: application/json",
        "x-http-method-override: DELETE",
    ]
    status, headers, _ = request(live, "POST", CHAT, tenant[1], forged, BODY)
    assert status == 200
    assert headers["x-request-id"].startswith("req_")
    forged_namespace = live.engine.submitted[-1].namespace
    status, _, _ = request(live, "POST", CHAT, tenant[1], ["content-type: application/json"], BODY)
    assert status == 200
    assert live.engine.submitted[-1].namespace == forged_namespace
    _, other = live.make_tenant("scoped")
    assert request(live, "POST", CHAT, other, ["content-type: application/json"], BODY)[0] == 200
    assert live.engine.submitted[-1].namespace != forged_namespace, "the tenant is in the namespace"


@pytest.mark.parametrize(
    "headers",
    [
        ["content-type: text/plain"],
        [],
        ["content-type: multipart/form-data; boundary=x"],
        ["content-type: application/json", "content-encoding: gzip"],
        ["content-type: application/json; charset=utf-16"],
    ],
)
def test_12_media_types(live, tenant, headers):
    assert_envelope(request(live, "POST", CHAT, tenant[1], headers, BODY), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["/v1/models", CHAT, "/api/v1/keys", "/live"])
@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "HEAD", "PATCH"])
def test_13_methods(live, tenant, method, path):
    answer = request(live, method, path, tenant[1])
    assert answer[0] == 405
    assert "allow" in answer[1]
    assert "POST" not in request(live, "PATCH", "/v1/models", tenant[1])[1]["allow"]


def test_13_method_override(live, tenant):
    before = len(live.engine.generations)
    assert request(live, "GET", CHAT + "?_method=POST", tenant[1])[0] == 405
    assert len(live.engine.generations) == before


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1//models",
        "/v1/x/../models",
        "/v1/%2e%2e/models",
        "/v1/models%00",
        "/v1/models.",
        "/v1/models/",
        "/v1/models/.",
        "/v1/mod%65ls",
        "/v1%2fmodels",
        "/v1/models/../../etc/passwd",
        "/V1/models",
        "/v1\\models",
        "/nothing",
    ],
)
def test_14_paths_are_not_normalised(live, tenant, path):
    assert_envelope(request(live, path=path, key=tenant[1]), 404, "not_found")


@pytest.mark.parametrize(("key", "status"), [("", 400), ("k" * 256, 400), ("a b", 400), ("k" * 255, 200)])
def test_16_idempotency_keys(live, tenant, key, status):
    headers = ["content-type: application/json", f"idempotency-key: {key}"]
    assert request(live, "POST", CHAT, tenant[1], headers, BODY)[0] == status


def test_16_the_same_post_is_done_once(api):
    body, headers = json.loads(BODY), {"idempotency-key": "once"}
    before = len(api.engine.generations)
    first, second = (api.post(CHAT, json=body, headers=headers) for _ in range(2))
    assert len(api.engine.generations) == before + 1
    assert first.json() == second.json()
    assert second.headers["x-tenantry-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    other = api.post(CHAT, json={**body, "max_tokens": 2}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_mismatch")


def test_16_keys_belong_to_tenants(live, api):
    _, other = live.make_tenant("idem")
    headers = ["content-type: application/json", "idempotency-key: shared"]
    first = api.post(CHAT, content=BODY, headers=dict(h.split(": ") for h in headers))
    status, answered, body = request(live, "POST", CHAT, other, headers, BODY)
    assert (first.status_code, status) == (200, 200)
    assert "x-tenantry-replayed" not in answered
    assert body["id"] != first.json()["id"]


def test_16_a_secret_is_not_kept(api):
    headers = {"idempotency-key": "new-key"}
    first, second = (api.post("/api/v1/keys", json={"name": "k"}, headers=headers).json() for _ in range(2))
    assert first["key"] != second["key"], "an answer with a secret is never stored, so it cannot be replayed"


def test_16_a_second_one_while_the_first_runs(live, tenant):
    import threading

    live.engine.pace = 0.3
    headers = ["content-type: application/json", "idempotency-key: slow"]
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(request(live, "POST", CHAT, tenant[1], headers, BODY)[0]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409]


@pytest.mark.parametrize("head", [b"x: " + b"y" * 70_000, b"\r\n".join(b"x-%d: y" % i for i in range(200))])
def test_10_large_heads_end_the_connection(live, head):
    status = raw(live, b"GET /live HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n")[0]
    assert status == 400


def test_a_bug_says_nothing_but_its_request_id(live, api, monkeypatch):
    async def broken(*_):
        raise RuntimeError("secret detail /etc/passwd")

    monkeypatch.setattr(live.gateway.registry, "resolve", broken)
    reply = api.post(CHAT, content=BODY, headers={"content-type": "application/json"})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert "secret" not in reply.text
    assert "passwd" not in reply.text
