"""What clients say about the cache reaches the engine as a lease of theirs alone; a prewarmed prompt says nothing."""

import openai
import pytest

FAST = {"model": "base", "max_output_tokens": 9, "temperature": 0}
TURNS = [{"role": "user", "content": "hi"}]
CHAT = {"model": "base", "messages": TURNS, "max_tokens": 3}


def lease(live):
    submit = live.engine.submitted[-1]
    return submit.session, submit.keep_s, submit.pin


def test_a_plain_chat_keeps_nothing_and_one_with_a_key_keeps_its_prefix(client, stranger, live):
    client.chat.completions.create(**CHAT)
    assert lease(live) == (b"", 0.0, False)
    keys = set()
    for who, key in ((client, "a"), (client, "b"), (stranger, "a")):
        who.chat.completions.create(**CHAT, prompt_cache_key=key)
        keys.add(lease(live)[0])
        assert lease(live)[1:] == (1800, False)
    assert len(keys) == 3
    assert {len(key) for key in keys} == {16}
    client.chat.completions.create(**CHAT, prompt_cache_key="a", prompt_cache_options={"ttl": "30m"})
    assert lease(live)[0] in keys
    client.completions.create(
        model="base", prompt="x", max_tokens=1,
        extra_body={"prompt_cache_key": "a", "prompt_cache_options": {"ttl": "12h", "pin": True}},
    )  # fmt: skip
    assert lease(live)[1:] == (43200, True)


def test_all_turns_of_a_session_share_one_lease(client, http, live):
    held = client.conversations.create()
    client.responses.create(**FAST, input="one", conversation=held.id)
    first = lease(live)
    assert (len(first[0]), *first[1:]) == (16, 1800, False)
    reply = client.responses.create(
        **FAST,
        input="two",
        conversation=held.id,
        prompt_cache_options={"ttl": "12h"},
        extra_body={"prompt_cache_key": "k"},
    )
    assert lease(live) == (first[0], 43200, False)
    assert (reply.prompt_cache_options.ttl, reply.prompt_cache_options.mode) == ("12h", "implicit")
    assert client.responses.retrieve(reply.id) == reply
    fork = client.responses.create(**FAST, input="fork", previous_response_id=reply.id)
    assert lease(live) == (first[0], 43200, False), "what was asked for stays with the session"
    name = fork.x_session["id"]
    assert http.get(f"/api/v1/sessions/{name}").json()["cache_ttl_s"] == 43200
    http.patch(f"/api/v1/sessions/{name}", json={"cache_pinned": True, "cache_ttl_s": 60})
    assert live.engine.kept_sessions[-1] == (first[0], 60, True), "at once, not with the next turn"
    reply = client.responses.create(**FAST, input="three", conversation=held.id)
    assert lease(live) == (first[0], 60, True)
    assert reply.prompt_cache_options is None
    http.post(f"/api/v1/sessions/{name}/prewarm")
    assert lease(live) == (first[0], 60, True)
    client.responses.create(**FAST, input="other")
    assert lease(live)[0] not in (first[0], b"")


def test_prewarming_generates_nothing_and_stores_nothing(client, http, live):
    held = client.conversations.create(items=TURNS)
    for stream in (False, True):
        reply = client.responses.create(
            model="base", input="soon", conversation=held.id, prompt_cache_options={"prewarm": True}, stream=stream
        )
        if stream:
            events = list(reply)
            assert [e.type for e in events] == ["response.created", "response.in_progress", "response.completed"]
            reply = events[-1].response
        assert (reply.status, reply.output, reply.output_text) == ("completed", [], "")
        assert live.engine.submitted[-1].sampling.max_tokens == 1
        assert len(client.conversations.items.list(held.id).data) == 1
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(reply.id)
    warm = {"prompt_cache_key": "k", "extra_body": {"prompt_cache_options": {"prewarm": True}}}
    chat = client.chat.completions.create(model="base", messages=TURNS, max_tokens=50, **warm)
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == ("", "stop")
    assert chat.usage.completion_tokens == 1
    chunks = list(client.chat.completions.create(model="base", messages=TURNS, stream=True, **warm))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == ""


def test_cached_tokens_are_told_by_tier_wherever_tokens_are(client, http, live):
    live.engine.found = (5, 3, 2)
    reply = client.responses.create(**FAST, input="a rather long question")
    details = reply.usage.input_tokens_details
    assert (details.cached_tokens, details.x_cached_host_tokens, details.x_cached_disk_tokens) == (10, 3, 2)
    assert client.responses.retrieve(reply.id) == reply
    details = client.chat.completions.create(**CHAT).usage.prompt_tokens_details
    assert (details.cached_tokens, details.x_cached_host_tokens, details.x_cached_disk_tokens) == (10, 3, 2)
    client.responses.create(**FAST, input="and on", previous_response_id=reply.id)
    path = f"/api/v1/sessions/{reply.x_session['id']}"
    whole, turns = http.get(path).json(), http.get(f"{path}/turns").json()["data"]
    names = ("cached_tokens", "cached_host_tokens", "cached_disk_tokens")
    assert [tuple(turn[name] for name in names) for turn in turns] == [(10, 3, 2)] * 2
    assert tuple(whole[name] for name in names) == (20, 6, 4)
    assert whole["computed_tokens"] == whole["prompt_tokens"] - 20


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"mode": "explicit"}, "prompt_cache_options.mode"),
        ({"comparison_response_id": "resp_1"}, "prompt_cache_options.comparison_response_id"),
        ({"ttl": "1y"}, "prompt_cache_options.ttl"),
        ({"colour": 1}, "prompt_cache_options.colour"),
        ({"ttl": "12h"}, "prompt_cache_key"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(http, options, param):
    reply = http.post("/v1/chat/completions", json={**CHAT, "prompt_cache_options": options})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    if "ttl" not in options or options["ttl"] == "1y":
        reply = http.post("/v1/responses", json={**FAST, "input": "x", "prompt_cache_options": options})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_deleting_a_session_tells_the_engine_to_let_go(client, http, live):
    held = client.conversations.create()
    client.responses.create(**FAST, input="one", conversation=held.id)
    key = lease(live)[0]
    client.conversations.delete(held.id)
    assert live.engine.dropped_sessions[-1] == key
    made = client.responses.create(**FAST, input="x")
    key = lease(live)[0]
    client.responses.delete(made.id)
    assert live.engine.dropped_sessions[-1] == key, "the last response of a thread takes it along"
    made = client.responses.create(**FAST, input="x")
    key = lease(live)[0]
    http.delete(f"/api/v1/sessions/{made.x_session['id']}")
    assert live.engine.dropped_sessions[-1] == key
