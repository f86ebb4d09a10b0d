"""/api/v1/sessions and `tenantry sessions`: what sessions are and cost, pinning, forking, prewarming, deleting."""

import contextlib
import json
import re

import httpx
import pytest

from tenantry.platform.cli.main import app

PATH = "/api/v1/sessions"
FAST = {"model": "base", "max_output_tokens": 9, "temperature": 0}


@pytest.fixture
def thread(client):
    """(session's id, its responses): root, then two that continue it."""
    root = client.responses.create(**FAST, input="root")
    left = client.responses.create(**FAST, input="left", previous_response_id=root.id)
    right = client.responses.create(**FAST, input="right", previous_response_id=root.id)
    return root.x_session["id"], (root, left, right)


def test_lists_are_paged_and_filtered(client, http, thread):
    held = client.conversations.create(metadata={"for": "list"})
    everything, after = [], None
    while True:
        page = http.get(PATH, params={"limit": 1, **({"after": after} if after else {})}).json()
        everything += page["data"]
        after = page["next"]
        if not page["has_more"]:
            break
    names = [s["id"] for s in everything]
    assert len(set(names)) == len(names)
    assert names == [s["id"] for s in http.get(PATH, params={"limit": 100}).json()["data"]]
    assert names == sorted(names, reverse=True)
    newest = everything[0]
    assert (newest["conversation"], newest["turns"], newest["metadata"]) == (held.id, 0, {"for": "list"})
    for query, wanted in (({"kind": "thread"}, thread[0]), ({"kind": "conversation"}, newest["id"]),
                          ({"model": "base"}, thread[0])):  # fmt: skip
        found = {s["id"] for s in http.get(PATH, params={"limit": 100, **query}).json()["data"]}
        assert (thread[0] in found, newest["id"] in found) == (wanted == thread[0], wanted == newest["id"])


def test_turns_say_what_was_found_computed_and_generated(http, thread):
    name, responses = thread
    turns = http.get(f"{PATH}/{name}/turns").json()["data"]
    assert [t["id"] for t in turns] == [r.id for r in reversed(responses)]
    for turn, response in zip(turns, reversed(responses), strict=True):
        assert turn["cached_tokens"] + turn["computed_tokens"] == response.usage.input_tokens == turn["prompt_tokens"]
        assert turn["generated_tokens"] == response.usage.output_tokens
        assert turn["previous"] == response.previous_response_id
    whole = http.get(f"{PATH}/{name}").json()
    assert (whole["turns"], whole["generated_tokens"]) == (3, 27)
    assert whole["prompt_tokens"] == sum(t["prompt_tokens"] for t in turns)
    events = {e["request_id"]: e["cost"] for e in http.get("/api/v1/usage/events").json()["data"]}
    assert [t["cost"] for t in turns] == [events[r.id.replace("resp_", "req_")] for r in reversed(responses)]


def test_the_api_shows_no_text(client, http):
    made = client.responses.create(**FAST, input="do not show me", instructions="nor me")
    name = made.x_session["id"]
    shown = http.get(f"{PATH}/{name}").text + http.get(f"{PATH}/{name}/turns").text
    assert not any(text in shown for text in ("show me", "nor me", "the quick"))


def test_a_session_is_changed_field_by_field(http, thread):
    before = http.get(f"{PATH}/{thread[0]}").json()
    assert (before["cache_pinned"], before["version_policy"], before["cache_ttl_s"]) == (False, "pin", 1800)
    after = http.patch(f"{PATH}/{thread[0]}", json={"cache_pinned": True, "cache_ttl_s": 43200}).json()
    assert after == {**before, "cache_pinned": True, "cache_ttl_s": 43200}
    assert http.patch(f"{PATH}/{thread[0]}", json={"version_policy": "follow"}).json()["version_policy"] == "follow"
    for body, param in (
        ({"cache_ttl_s": -1}, "cache_ttl_s"),
        ({"colour": 1}, "colour"),
        ({"version_policy": "x"}, "version_policy"),
    ):
        reply = http.patch(f"{PATH}/{thread[0]}", json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_a_fork_remembers_up_to_one_response_and_goes_its_own_way(client, http, thread, said):
    name, (root, left, _) = thread
    fork = http.post(f"{PATH}/{name}/fork", json={"response": left.id}).json()
    assert (fork["kind"], fork["turns"], fork["model"]) == ("conversation", 0, "base")
    client.responses.create(**FAST, input="mine", conversation=fork["conversation"])
    assert said().index("root") < said().index("left") < said().index("mine")
    assert "right" not in said()
    assert http.get(f"{PATH}/{name}").json()["turns"] == 3
    http.delete(f"{PATH}/{name}")
    texts = [i.content[0].text for i in client.conversations.items.list(fork["conversation"], order="asc")]
    assert texts == ["root", "the quick", "left", "the quick", "mine", "the quick"]
    other = client.responses.create(**FAST, input="x")
    for response in (root.id, other.id, "resp_1"):
        reply = http.post(f"{PATH}/{fork['id']}/fork", json={"response": response})
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "response_not_found")


def test_prewarming_computes_the_history_and_is_billed(client, http, thread, live, said):
    held = client.conversations.create(items=[{"role": "user", "content": "warm me"}])
    session = held.x_session["id"]
    reply = http.post(f"{PATH}/{session}/prewarm")
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "session_empty")
    client.responses.create(**FAST, input="on", conversation=held.id)
    warmed = http.post(f"{PATH}/{session}/prewarm").json()
    prompt = said()
    assert warmed["prompt_tokens"] == len(live.engine.submitted[-1].prompt)
    assert live.engine.submitted[-1].sampling.max_tokens == 1
    client.responses.create(**FAST, input="next", conversation=held.id)
    computed = prompt.rpartition("<|im_end|>\n<|im_start|>assistant\n")[0]
    assert said().startswith(computed), "what was computed is how the next turn begins"
    assert computed.index("warm me") < computed.index("the quick")
    assert http.get(f"{PATH}/{session}").json()["turns"] == 2
    assert http.post(f"{PATH}/{thread[0]}/prewarm").status_code == 200


def test_deleting_takes_content_and_leaves_usage(client, http, thread):
    name, responses = thread
    assert http.delete(f"{PATH}/{name}").status_code == 204
    for path in (f"{PATH}/{name}", f"{PATH}/{name}/turns", f"/v1/responses/{responses[0].id}"):
        assert http.get(path).status_code == 404
    events = {e["request_id"] for e in http.get("/api/v1/usage/events", params={"limit": 100}).json()["data"]}
    assert {r.id.replace("resp_", "req_") for r in responses} <= events


def test_one_404_for_foreign_absent_and_malformed(live, http, thread):
    key = live.make_tenant("initech")[1]
    with httpx.Client(base_url=live.url, headers={"authorization": f"Bearer {key}"}) as foreign:
        seen = set()
        for who, name in ((foreign, thread[0]), (http, "sess_" + "0" * 32), (http, "x")):
            for method, path, body in (
                ("GET", "", None), ("GET", "/turns", None), ("PATCH", "", {}), ("DELETE", "", None),
                ("POST", "/fork", {"response": thread[1][0].id}), ("POST", "/prewarm", None),
            ):  # fmt: skip
                reply = who.request(method, f"{PATH}/{name}{path}", **({"json": body} if body is not None else {}))
                error = reply.json()["error"]
                seen.add((reply.status_code, error["code"], error["message"], error["param"]))
        assert seen == {(404, "session_not_found", "There is no such session.", "id")}
        assert foreign.get(PATH).json()["data"] == []


def test_the_command_line_does_all_of_it(live, tenant, thread, capsys):
    def run(*arguments):
        with contextlib.suppress(SystemExit):
            app(["sessions", *arguments, "--url", live.url, "--api-key", tenant[1], "--json"])
        said = capsys.readouterr()
        printed = re.sub(
            r"^\d{4}-.*\n", "", said.out, flags=re.MULTILINE
        )  # the gateway, a thread of ours, logs there
        return json.loads(printed) if printed.strip() else None

    name, responses = thread
    assert name in {s["id"] for s in run("list", "--kind", "thread", "--limit", "3")}
    assert len(run("show", name)["data"]) == 3
    fork = run("fork", name, responses[0].id)
    assert fork["conversation"]
    assert run("keep", fork["id"], "--pin", "--ttl", "60", "--policy", "follow")["cache_ttl_s"] == 60
    assert run("prewarm", name)["prompt_tokens"] > 0
    run("delete", name, "--yes")
    assert name not in {s["id"] for s in run("list")}
