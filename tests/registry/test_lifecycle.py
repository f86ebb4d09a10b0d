"""Adapters over REST: upload and use at once, aliases by compare-and-set, and tenants that never see each other."""

import hashlib
import threading
import zipfile
from base64 import b64encode
from io import BytesIO

import pytest

from tenantry.platform.core import ids

CHAT = "/v1/chat/completions"


def ask(client, model, **fields):
    turns = [{"role": "user", "content": "hi"}]
    return client.post(CHAT, json={"model": model, "messages": turns, "max_tokens": 8, **fields})


def upload(client, name, files, **options):
    return client.post(f"/api/v1/adapters/{name}/versions", files=files, **options)


def code(reply):
    return reply.status_code, reply.json()["error"]["code"]


def test_upload_and_use_at_once(api, live, peft):
    made = upload(api, "support", peft.files())
    assert made.status_code == 201, made.text
    version = made.json()
    assert (version["state"], version["number"], version["rank"]) == ("ready", 1, 4)
    assert version["targets"] == ["q_proj", "v_proj"]
    for name in ("support", "support:1", "support@default"):
        reply = ask(api, name)
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-tenantry-adapter-version"] == "1"
        assert reply.headers["x-tenantry-adapter-digest"] == version["digest"]
        assert live.engine.submitted[-1].adapter.hex() == version["digest"]
    models = {m["id"]: m for m in api.get("/v1/models").json()["data"]}
    assert set(models) == {"base", "support"}
    assert models["support"]["x_adapter"]["digest"] == version["digest"]
    assert (live.settings.blob_dir / f"{version['digest']}.adapter").is_file()
    assert list((live.settings.data_dir / "quarantine").iterdir()) == [], "nothing of an upload is left behind"


def test_a_zip_with_a_digest_of_the_body(api, peft):
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for _, (name, content, _) in peft.files(seed=3):
            archive.writestr(name, content)
    raw = packed.getvalue()
    declared = {"sha256": hashlib.sha256(raw).hexdigest()}
    made = upload(api, "zipped", [("file", ("adapter.zip", raw, "application/zip"))], data=declared)
    assert made.status_code == 201, made.text
    request = api.build_request("POST", "/api/v1/adapters/zipped/versions", files=peft.files(seed=4))
    request.headers["content-digest"] = f"sha-256=:{b64encode(hashlib.sha256(request.read()).digest()).decode()}:"
    assert api.send(request).status_code == 201


def test_later_versions_are_published_on_purpose(api, live, peft):
    first, second = (upload(api, "moving", peft.files(seed=s)).json() for s in (1, 2))
    assert first["digest"] != second["digest"]
    assert ask(api, "moving").headers["x-tenantry-adapter-version"] == "1"
    assert ask(api, "moving:2").headers["x-tenantry-adapter-digest"] == second["digest"]
    alias = "/api/v1/adapters/moving/aliases/default"
    seen = api.get(alias)
    assert code(api.put(alias, json={"version": 2})) == (409, "alias_exists")
    assert code(api.put(alias, json={"version": 2}, headers={"if-match": '"99"'})) == (412, "etag_mismatch")
    moved = api.put(alias, json={"version": 2, "reason": "better"}, headers={"if-match": seen.headers["etag"]})
    assert moved.json()["version"] == 2
    assert ask(api, "moving").headers["x-tenantry-adapter-digest"] == second["digest"]
    assert code(api.put(alias, json={"version": 1}, headers={"if-match": seen.headers["etag"]})) == (
        412,
        "etag_mismatch",
    )
    history = api.get(f"{alias}/history").json()["data"]
    assert [(m["from_version"], m["to_version"], m["reason"]) for m in history] == [
        (1, 2, "better"), (None, 1, "first version")
    ]  # fmt: skip
    assert code(api.delete("/api/v1/adapters/moving/versions/2")) == (409, "version_in_use")
    assert api.delete("/api/v1/adapters/moving/versions/1").status_code == 202
    assert live.engine.dropped[-1].hex() == first["digest"]
    assert code(ask(api, "moving:1")) == (404, "model_not_found")


def test_racing_moves_have_one_winner(api, peft):
    for seed in (1, 2, 3):
        upload(api, "race", peft.files(seed=seed))
    path = "/api/v1/adapters/race/aliases/default"
    etag, statuses = api.get(path).headers["etag"], []

    def move(number):
        statuses.append(api.put(path, json={"version": number}, headers={"if-match": etag}).status_code)

    threads = [threading.Thread(target=move, args=(n,)) for n in (2, 3, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412, 412, 412]


def test_two_tenants_with_the_same_name_never_meet(api, make_client, live, peft):
    other = make_client("rival")
    mine, theirs = upload(api, "twin", peft.files(seed=5)).json(), upload(other, "twin", peft.files(seed=6)).json()
    assert mine["digest"] != theirs["digest"]
    assert ask(api, "twin").headers["x-tenantry-adapter-digest"] == mine["digest"]
    assert ask(other, "twin").headers["x-tenantry-adapter-digest"] == theirs["digest"]
    assert {m["id"] for m in other.get("/v1/models").json()["data"]} == {"base", "twin"}
    assert [a["name"] for a in other.get("/api/v1/adapters").json()["data"]] == ["twin"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/adapters/{}"), ("DELETE", "/api/v1/adapters/{}"), ("GET", "/api/v1/adapters/{}/versions"),
        ("GET", "/api/v1/adapters/{}/versions/1"), ("DELETE", "/api/v1/adapters/{}/versions/1"),
        ("GET", "/api/v1/adapters/{}/aliases/default"), ("GET", "/api/v1/adapters/{}/aliases/default/history"),
        ("GET", "/v1/models/{}"),
    ],
)  # fmt: skip
def test_foreign_and_absent_are_the_same_404(api, make_client, peft, method, path):
    if api.get("/api/v1/adapters/owned").status_code == 404:
        assert upload(api, "owned", peft.files(seed=7)).status_code == 201
    stranger = make_client(f"stranger-{abs(hash((method, path)))}")
    foreign, absent = (stranger.request(method, path.format(name)) for name in ("owned", "absent"))
    assert foreign.status_code == absent.status_code == 404
    errors = [reply.json()["error"] | {"request_id": None} for reply in (foreign, absent)]
    assert errors[0] == errors[1]
    assert api.get("/api/v1/adapters/owned").status_code == 200


def test_74_the_same_bytes_from_two_tenants(api, make_client, live, peft):
    other = make_client("copycat")
    first, second = upload(api, "same", peft.files(seed=8)), upload(other, "same", peft.files(seed=8))
    assert first.status_code == second.status_code == 201
    assert first.json().keys() == second.json().keys()
    digest = first.json()["digest"]
    assert second.json()["digest"] == digest
    ask(api, "same"), ask(other, "same")
    spaces = {s.namespace for s in live.engine.submitted[-2:]}
    assert len(spaces) == 2, "equal weights of two tenants share no cache"
    assert api.delete("/api/v1/adapters/same").status_code == 202
    assert digest not in {d.hex() for d in live.engine.dropped}, "the other tenant still answers with it"
    assert ask(other, "same").status_code == 200


def test_73_deleting_while_serving_drains(api, live, peft):
    digest = upload(api, "leaving", peft.files(seed=9)).json()["digest"]
    live.engine.pace = 0.05
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(api, "leaving")))
    before = len(live.engine.generations)
    thread.start()
    while len(live.engine.generations) == before:
        pass
    assert api.delete("/api/v1/adapters/leaving").status_code == 202
    thread.join()
    live.engine.pace = 0.0
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] == 8
    assert code(ask(api, "leaving")) == (404, "model_not_found")
    assert digest in {d.hex() for d in live.engine.dropped}
    usage: dict = {}
    while "leaving" not in usage:  # settled just after the answer
        usage = {row["label"]: row for row in api.get("/api/v1/usage").json()["data"]}
    assert usage["leaving"]["completion_tokens"] == 8, "usage outlives the adapter"
    assert upload(api, "leaving", peft.files(seed=9)).status_code == 201, "the name is free again"


def test_45_73_while_it_is_being_validated(api, live, peft):
    upload(api, "ready-one", peft.files(seed=10))

    tenant_id = ids.from_text("tenant", api.tenant_id)
    key_id = ids.from_text("key", api.get("/api/v1/me").json()["key"])

    def begin(name):
        return live.gateway.registry.begin(tenant_id, name, key_id)

    live.run(begin("fresh"))
    assert code(ask(api, "fresh")) == (409, "adapter_not_ready")
    assert code(ask(api, "fresh:1")) == (409, "adapter_not_ready")
    live.run(begin("ready-one"))
    assert ask(api, "ready-one").status_code == 200
    path = "/api/v1/adapters/ready-one/aliases"
    assert code(api.put(f"{path}/canary", json={"version": 2})) == (409, "version_validating")
    assert code(api.put(f"{path}/canary", json={"version": 7})) == (404, "version_not_found")
    assert api.put(f"{path}/canary", json={"version": 1}).json()["version"] == 1
    assert ask(api, "ready-one@canary").status_code == 200
    etag = api.get(f"{path}/canary").headers["etag"]
    assert api.delete(f"{path}/canary", headers={"if-match": etag}).status_code == 204
    assert code(ask(api, "ready-one@canary")) == (404, "model_not_found")


def test_lists_are_walked_by_keyset(make_client, peft):
    client = make_client("lister")
    for i in range(5):
        assert client.post("/api/v1/adapters", json={"name": f"a{i}"}).status_code == 201
    names, after = [], None
    while True:
        page = client.get("/api/v1/adapters", params={"limit": 2, **({"after": after} if after else {})}).json()
        names += [a["name"] for a in page["data"]]
        if not page["has_more"]:
            break
        after = page["next"]
    assert names == ["a4", "a3", "a2", "a1", "a0"]
    for query in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"after": "adp_zz"}):
        assert client.get("/api/v1/adapters", params=query).status_code == 400


def test_usage_is_grouped(make_client, peft):
    client = make_client("spender")
    upload(client, "one", peft.files(seed=11))
    asked = {ask(client, model).headers["x-request-id"] for model in ("base", "one", "one")}
    while {e["request_id"] for e in client.get("/api/v1/usage/events").json()["data"]} != asked:
        pass
    by = {
        group: client.get("/api/v1/usage", params={"group_by": group}).json()["data"]
        for group in ("adapter", "key", "model", "hour", "total")
    }
    assert {row["label"]: row["requests"] for row in by["adapter"]} == {"base": 1, "one": 2}
    for group, rows in by.items():
        assert sum(row["requests"] for row in rows) == 3
        assert sum(row["completion_tokens"] for row in rows) == 24
        walked, after = [], {}
        while True:
            asked = {"group_by": group, "limit": 1, **after}
            page = client.get("/api/v1/usage", params=asked).json()
            walked += page["data"]
            if not page["has_more"]:
                break
            after = {"after": page["next"]}
        assert walked == rows, "page by page as all at once"
    for broken in ("adp_1", f"0.{1 << 63}.{'0' * 32}"):
        reply = client.get("/api/v1/usage", params={"after": broken})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "after")
    assert (
        client.get("/api/v1/usage", params={"from": "2001-01-01T00:00:00Z", "to": "2001-01-02T00:00:00Z"}).json()[
            "data"
        ]
        == []
    )
    assert client.get("/api/v1/usage", params={"group_by": "mood"}).status_code == 400
    assert client.get("/api/v1/wallet").json()["balance"].startswith("-")
