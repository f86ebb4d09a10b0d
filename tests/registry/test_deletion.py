"""Fault 22: an adapter that is superseded, deleted or revoked while it answers, and the end of its bytes."""

import threading
import time

import pytest

from tenantry.adapters.store import LocalStore
from tenantry.platform.core import ids
from tenantry.platform.registry.purge import GRACE_S, Purger
from tenantry.runtime.namespace import Namespace

LONG = 200


class Asking:
    """A request under way, in a thread of its own."""

    def __init__(self, live, client, model):
        before = len(live.engine.generations)
        turns = [{"role": "user", "content": "hi"}]
        body = {"model": model, "messages": turns, "max_tokens": LONG}
        self._answers: list = []
        self._thread = threading.Thread(
            target=lambda: self._answers.append(client.post("/v1/chat/completions", json=body))
        )
        self._thread.start()
        while len(live.engine.generations) == before:
            time.sleep(0.001)
        self.generation = live.engine.generations[-1]

    def answer(self):
        self._thread.join(30)
        return self._answers[0]


@pytest.fixture(autouse=True)
def _slow(live):
    live.engine.pace = 0.005
    yield
    live.engine.pace = 0.0


def upload(client, name, files):
    made = client.post(f"/api/v1/adapters/{name}/versions", files=files)
    assert made.status_code == 201, made.text
    return bytes.fromhex(made.json()["digest"])


def ask(client, model):
    turns = [{"role": "user", "content": "hi"}]
    return client.post("/v1/chat/completions", json={"model": model, "messages": turns, "max_tokens": 4})


def namespace(client, digest):
    return Namespace(ids.from_text("tenant", client.tenant_id).bytes, digest).key


def settled(client, model):
    """(requests, completion tokens) of a model, once it is in the books."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for row in client.get("/api/v1/usage").json()["data"]:
            if row["label"] == model:
                return row["requests"], row["completion_tokens"]
        time.sleep(0.02)
    raise AssertionError("never settled")


def test_what_was_superseded_meanwhile_finishes_on_its_own_weights(api, live, peft):
    first = upload(api, "moved", peft.files(seed=41))
    asking = Asking(live, api, "moved")
    second = upload(api, "moved", peft.files(seed=42))
    etag = api.get("/api/v1/adapters/moved/aliases/default").headers["etag"]
    moved = api.put("/api/v1/adapters/moved/aliases/default", json={"version": 2}, headers={"if-match": etag})
    assert moved.status_code == 200, moved.text
    answer = asking.answer()
    assert answer.headers["x-tenantry-adapter-digest"] == first.hex()
    assert answer.json()["choices"][0]["message"]["content"].startswith(f"[{first.hex()[:4]}]")
    assert answer.json()["usage"]["completion_tokens"] == LONG
    assert ask(api, "moved").headers["x-tenantry-adapter-digest"] == second.hex()


def test_what_was_deleted_is_forgotten_and_finishes(api, live, peft):
    digest = upload(api, "deleted", peft.files(seed=43))
    asking = Asking(live, api, "deleted")
    assert api.delete("/api/v1/adapters/deleted").status_code == 202
    assert ask(api, "deleted").status_code == 404
    assert live.engine.forgotten[-1] == (namespace(api, digest), False)
    assert asking.answer().json()["usage"]["completion_tokens"] == LONG


def test_what_was_revoked_ends_within_two_seconds_and_is_billed_for_what_there_was(api, make_client, live, peft):
    other = make_client("holds-the-same")
    digest = upload(api, "revoked", peft.files(seed=44))
    assert upload(other, "revoked", peft.files(seed=44)) == digest
    asking, bystander = Asking(live, api, "revoked"), Asking(live, other, "revoked")
    while asking.generation.generated < 5:
        time.sleep(0.001)
    assert api.delete("/api/v1/adapters/revoked?revoke=true").status_code == 202
    began = time.monotonic()
    answer = asking.answer()
    assert time.monotonic() - began < 2.0
    assert answer.status_code == 503
    assert asking.generation.aborted
    assert ask(api, "revoked").status_code == 404
    requests, completion = settled(api, "revoked")
    assert requests == 1
    assert 5 <= completion < LONG
    told = [told for told in live.engine.forgotten if told[0] == namespace(api, digest)]
    assert told == [(namespace(api, digest), True)]
    assert digest not in live.engine.dropped, "another tenant answers with the same bytes"
    assert bystander.answer().json()["usage"]["completion_tokens"] == LONG
    assert not bystander.generation.aborted
    deadline = time.monotonic() + 10
    while live.engine.forgotten.count(told[0]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert live.engine.forgotten.count(told[0]) == 2, "who was on the way then is ended a moment later"


def test_one_version_is_revoked_and_the_others_answer(api, live, peft):
    upload(api, "two", peft.files(seed=45))
    second = upload(api, "two", peft.files(seed=46))
    asking, other = Asking(live, api, "two:2"), Asking(live, api, "two:1")
    assert api.delete("/api/v1/adapters/two/versions/2?revoke=true").status_code == 202
    assert asking.answer().status_code == 503
    assert asking.generation.submit.adapter == second
    assert other.answer().json()["usage"]["completion_tokens"] == LONG


def test_bytes_go_after_the_last_request_and_no_sooner(api, make_client, live, peft):
    store = LocalStore(live.settings.blob_dir)
    holder = make_client("keeps")
    shared, alone = upload(api, "shared", peft.files(seed=47)), upload(api, "alone", peft.files(seed=48))
    assert upload(holder, "shared", peft.files(seed=47)) == shared
    later = Purger(live.gateway.parts.database, store, lambda: time.time() + GRACE_S + 1)
    asking = Asking(live, api, "alone")
    for name in ("shared", "alone"):
        assert api.delete(f"/api/v1/adapters/{name}").status_code == 202
    assert alone not in live.run(later.purge()), "somebody still answers with it"
    assert asking.answer().status_code == 200
    settled(api, "alone")
    assert alone not in live.run(Purger(live.gateway.parts.database, store).purge()), "it was written just now"
    assert store.exists(alone)
    gone = live.run(later.purge())
    assert alone in gone
    assert shared not in gone
    assert not store.exists(alone)
    assert store.exists(shared)
    assert not list(store.root.glob(".leaving-*"))
    assert upload(api, "alone", peft.files(seed=48)) == alone
    assert store.exists(alone), "the same bytes again are written again"
    assert ask(api, "alone").status_code == 200
