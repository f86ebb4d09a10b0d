"""What cannot be done is refused by the name of the field; nothing is ignored, and nothing bad is a 500."""

import random

import pytest

GOOD = {"model": "base", "input": "hi", "max_output_tokens": 3}
PATH = "/v1/responses"

REFUSED = [
    ("tools", [{"type": "web_search"}], "unsupported_parameter"),
    ("tool_choice", "required", "unsupported_parameter"),
    ("background", True, "unsupported_parameter"),
    ("reasoning", {"effort": "high"}, "unsupported_parameter"),
    ("truncation", "auto", "unsupported_parameter"),
    ("prompt", {"id": "p"}, "unsupported_parameter"),
    ("moderation", {"model": "m"}, "unsupported_parameter"),
    ("context_management", [{"type": "compaction"}], "unsupported_parameter"),
    ("max_tool_calls", 3, "unsupported_parameter"),
    ("image", {"context_compression": "auto"}, "unsupported_parameter"),
    ("access_programs", {"cyber": "standard"}, "unsupported_parameter"),
    ("include", ["reasoning.encrypted_content"], "unsupported_parameter"),
    ("service_tier", "priority", "unsupported_parameter"),
    ("colour", 1, "unknown_parameter"),
    ("messages", [], "unknown_parameter"),
    ("max_output_tokens", 0, "out_of_range"),
    ("max_output_tokens", 10**9, "out_of_range"),
    ("temperature", 3, "out_of_range"),
    ("top_p", 0, "out_of_range"),
    ("top_logprobs", 3, "invalid_value"),
    ("stream_options", {}, "invalid_value"),
    ("store", "yes", "invalid_value"),
    ("x_version_policy", "perhaps", "invalid_value"),
    ("metadata", {"k": "v" * 513}, "invalid_value"),
    ("metadata", {"k": "\0"}, "invalid_value"),
    ("user", "a\0b", "invalid_value"),
    ("input", [], "invalid_value"),
    ("input", None, "invalid_value"),
    ("input", [{"role": "assistant", "content": "last"}], "invalid_value"),
]


@pytest.mark.parametrize(("name", "value", "code"), REFUSED, ids=lambda v: str(v)[:20])
def test_a_field_at_fault_is_named(http, live, name, value, code):
    before = len(live.engine.generations)
    reply = http.post(PATH, json={**GOOD, name: value})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)
    assert reply.json()["error"]["param"].startswith(name)
    assert len(live.engine.generations) == before


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([{"type": "function_call_output", "call_id": "c", "output": "o"}], "input[0].type"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0].type"),
        ([{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}], "input[1].role"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "x", "prompt_cache_breakpoint": {}}]}],
         "input[0].content[0].prompt_cache_breakpoint"),
        ([{"role": "user", "content": "x", "name": "me"}], "input[0].name"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": "x", "status": "in_progress"}], "input[0].status"),
        ([{"role": "assistant", "content": "x", "phase": "commentary"}], "input[0].phase"),
    ],
)  # fmt: skip
def test_an_item_at_fault_is_named_by_its_path(http, value, param):
    for path, body in ((PATH, {**GOOD, "input": value}), ("/v1/conversations", {"items": value})):
        error = http.post(path, json=body).json()["error"]
        assert error["param"] == (param if path == PATH else param.replace("input", "items", 1))


def test_what_asks_for_nothing_is_not_refused(http):
    harmless = {"tools": [], "tool_choice": "auto", "background": False, "reasoning": None, "truncation": "disabled",
                "text": {"format": {"type": "text"}}, "parallel_tool_calls": True, "service_tier": "auto",
                "include": [], "prompt": None, "store": True, "prompt_cache_retention": "24h"}  # fmt: skip
    assert http.post(PATH, json={**GOOD, **harmless}).status_code == 200


def test_conversation_and_previous_response_exclude_each_other(http):
    made = http.post(PATH, json=GOOD).json()
    held = http.post("/v1/conversations", json={}).json()
    both = {"previous_response_id": made["id"], "conversation": held["id"]}
    error = http.post(PATH, json={**GOOD, **both}).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", "previous_response_id")
    error = http.post(PATH, json={**GOOD, "conversation": held["id"], "store": False}).json()["error"]
    assert error["param"] == "store"


def test_a_history_that_does_not_fit_is_refused_under_the_clients_names(http):
    held = http.post("/v1/conversations", json={"items": [{"role": "user", "content": "x" * 400}]}).json()
    error = http.post(PATH, json={**GOOD, "conversation": held["id"], "max_output_tokens": 100}).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_output_tokens")
    error = http.post(PATH, json={**GOOD, "input": "x" * 600}).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


def test_text_may_hold_anything_unicode_allows(http):
    text = 'nul \0, quote ", tab \t, \U0001f984, \ufffe'
    made = http.post(PATH, json={**GOOD, "input": text, "instructions": "\0"}).json()
    items = http.get(f"{PATH}/{made['id']}/input_items").json()["data"]
    assert items[0]["content"][0]["text"] == text
    assert http.get(f"{PATH}/{made['id']}").json() == made


def test_no_mutation_of_a_good_request_is_a_bug_of_ours(http):
    """Schema-blind fuzzing: each field becomes any kind of JSON value; the answer is a 200, or says why not."""
    draw = random.Random(5)
    values = [
        None,
        True,
        -1,
        0,
        1e308,
        "",
        "x",
        "\0",
        [],
        [[]],
        {},
        {"id": 3},
        [None],
        [{}],
        [{"role": "user"}],
        2**70,
    ]
    fields = [*GOOD, "conversation", "previous_response_id", "instructions", "store", "stream", "metadata", "include",
              "text", "user", "top_logprobs", "logit_bias", "stop", "seed", "x_version_policy"]  # fmt: skip
    for _ in range(150):
        body = {**GOOD, **{draw.choice(fields): draw.choice(values) for _ in range(draw.randint(1, 2))}}
        if body.get("stream") is True:
            continue
        reply = http.post(PATH, json=body)
        assert reply.status_code in (200, 400, 404), (body, reply.text)
        if reply.status_code != 200:
            assert reply.json()["error"]["code"]
    for value in values:
        for path, body in (("/v1/conversations", {"items": value}), ("/v1/conversations", {"metadata": value})):
            assert http.post(path, json=body).status_code in (200, 400), (path, body)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "limit="])
def test_bad_paging_is_named(http, query):
    held = http.post("/v1/conversations", json={}).json()
    made = http.post(PATH, json=GOOD).json()
    for path in (f"/v1/conversations/{held['id']}/items", f"{PATH}/{made['id']}/input_items"):
        reply = http.get(f"{path}?{query}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_a_finished_response_cannot_be_streamed_again(http):
    made = http.post(PATH, json=GOOD).json()
    reply = http.get(f"{PATH}/{made['id']}?stream=true")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "stream")
