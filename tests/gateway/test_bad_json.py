"""Group B of the bad-input catalogue: JSON bodies, row by row, against a live server.

Row numbers are the catalogue's. `model` and the other needed fields are added to a row's own fields.
"""

import json
import time

import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TURN = {"role": "user", "content": "hi"}
VOCAB, CONTEXT = "VOCAB", "CONTEXT"  # replaced by the served model's own numbers


def chat(row, code, param, **fields):
    return pytest.param(CHAT, fields, code, param, id=f"{row}-{_name(fields)}")


def text(row, code, param, **fields):
    return pytest.param(TEXT, fields, code, param, id=f"{row}-text-{_name(fields)}")


def _name(fields):
    return json.dumps(fields)[:48].replace(" ", "")


HUGE = 10**400
RAW = [
    (19, b"", "malformed_json"),
    (19, b"null", "malformed_json"),
    (19, b"[]", "malformed_json"),
    (19, b'{"model":"base","messages":[', "malformed_json"),
    (19, b'{"model":"base"} trailing', "malformed_json"),
    (19, b"\xef\xbb\xbf{}", "malformed_json"),
    (19, b'{"model":"base"}{"model":"base"}', "malformed_json"),
    (20, b'{"model":"base","messages":[{"role":"user","content":"\xff\xfe"}]}', "malformed_json"),
    (20, b'{"\xc3(":1}', "malformed_json"),
    (20, b'{"model":"base","messages":[{"role":"user","content":"\\ud800"}]}', "malformed_json"),
    (21, b'{"model":"base","messages":' + b"[" * 65 + b"]" * 65 + b"}", "too_deep"),
    (21, b'{"a":' * 200_000, "too_deep"),
    (22, b'{"model":"base","model":"other","messages":[{"role":"user","content":"hi"}]}', "duplicate_key"),
    (22, b'{"model":"base","messages":[{"role":"user","content":"hi","content":"ho"}]}', "duplicate_key"),
    (28, b'{"model":"base","messages":[{"role":"user","content":"hi"}],"temperature":NaN}', "malformed_json"),
    (28, b'{"model":"base","messages":[{"role":"user","content":"hi"}],"temperature":1e999}', "out_of_range"),
]

ROWS = [
    chat(23, "unknown_parameter", "temprature", temprature=1),
    chat(23, "unknown_parameter", "messages[0].weight", messages=[{**TURN, "weight": 1}]),
    chat(23, "unknown_parameter", "stream_options.x", stream=True, stream_options={"x": 1}),
    *[chat(26, "out_of_range", "n", n=n) for n in (0, -1, 9, 2**31)],
    *[chat(26, "invalid_value", "n", n=n) for n in (HUGE, 1.0, True, "1")],
    *[chat(27, "out_of_range", "max_tokens", max_tokens=n) for n in (0, -1)],
    chat(27, "out_of_range", "max_completion_tokens", max_completion_tokens=0),
    chat(27, "invalid_value", "max_tokens", max_tokens=1, max_completion_tokens=2),
    chat(27, "context_length_exceeded", "max_tokens", max_tokens=CONTEXT),
    chat(27, "out_of_range", "min_tokens", max_tokens=2, min_tokens=3),
    *[chat(28, "out_of_range", "temperature", temperature=t) for t in (-1, 2.1, -0.0001)],
    *[chat(29, "out_of_range", "top_p", top_p=p) for p in (0, -0.1, 1.0001)],
    *[chat(29, "out_of_range", "top_k", top_k=k) for k in (-2, HUGE // 10**395)],
    *[chat(29, "out_of_range", "min_p", min_p=p) for p in (-0.1, 1.1)],
    *[
        chat(29, "out_of_range", f, **{f: v})
        for f in ("presence_penalty", "frequency_penalty")
        for v in (-2.0001, 2.0001)
    ],
    *[chat(29, "out_of_range", "repetition_penalty", repetition_penalty=v) for v in (0, -1, 10.1)],
    *[
        chat(30, "out_of_range", "logit_bias", logit_bias={k: 1})
        for k in ("AI", "-1", VOCAB, "1000000000", "01", "١", "")
    ],
    *[chat(30, "out_of_range", "logit_bias", logit_bias={"1": v}) for v in (101, -101)],
    chat(30, "out_of_range", "logit_bias", logit_bias={str(i): 1 for i in range(2000)}),
    chat(31, "out_of_range", "stop", stop=["a", "b", "c", "d", "e"]),
    chat(31, "out_of_range", "stop", stop=""),
    chat(31, "out_of_range", "stop", stop=["a" * 10_240]),
    *[chat(31, "out_of_range", "stop_token_ids", stop_token_ids=[t]) for t in (VOCAB, -1)],
    *[chat(32, "out_of_range", "top_logprobs", logprobs=True, top_logprobs=k) for k in (-1, 21, 10**9)],
    chat(32, "invalid_value", "top_logprobs", top_logprobs=1),
    *[text(32, "out_of_range", "logprobs", logprobs=k) for k in (-1, 21)],
    text(32, "unsupported_parameter", "prompt_logprobs", prompt_logprobs=1),
    *[chat(33, "out_of_range", "seed", seed=s) for s in (2**63, -(2**63) - 1)],
    chat(33, "invalid_value", "user", user="u" * 10_240),
    *[text(34, "out_of_range", "prompt[1]", prompt=[5, t]) for t in (-1, VOCAB)],
    text(34, "invalid_value", "prompt[0]", prompt=[5.5]),
    text(34, "invalid_value", "prompt[0]", prompt=[True]),
    text(35, "invalid_value", "prompt", prompt=[]),
    text(35, "invalid_value", "prompt", prompt=""),
    text(35, "unsupported_parameter", "prompt", prompt=["a", "b"]),
    chat(38, "invalid_value", "messages", messages=[]),
    chat(38, "invalid_value", "messages[0].role", messages=[{"role": "wizard", "content": "x"}]),
    chat(38, "invalid_value", "messages[0].content", messages=[{"role": "user", "content": None}]),
    chat(38, "invalid_value", "messages", messages=[TURN, {"role": "assistant", "content": "x"}]),
    chat(38, "invalid_value", "messages", messages=[TURN] * 10_000),
    chat(
        38,
        "unsupported_parameter",
        "messages[0].role",
        messages=[{"role": "tool", "content": "x", "tool_call_id": "c"}],
    ),
    chat(39, "template_not_allowed", "chat_template", chat_template="{{ 1 }}"),
    chat(
        39, "template_not_allowed", "chat_template_kwargs", chat_template_kwargs={"x": {"chat_template": "{{ 1 }}"}}
    ),
    *[
        chat(40, "unsupported_parameter", field, **{field: "x"})
        for field in (
            "cache_salt",
            "lora_path",
            "model_path",
            "extra_body",
            "custom_logit_processor",
            "guided_decoding_backend",
            "guided_json",
            "prompt_embeds",
        )
    ],
    *[
        chat(
            41,
            "modality_not_supported",
            "messages[0].content[0].type",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        )
        for url in ("file:///etc/passwd", "data:image/png;base64,AA==", "http://169.254.169.254/")
    ],
    chat(47, "invalid_value", "stream_options", stream_options={"include_usage": True}),
    chat(47, "unsupported_parameter", "tools", stream=True, n=2, tools=[{"type": "function"}]),
    chat(47, "unsupported_parameter", "response_format", response_format={"type": "json_object"}),
    text(47, "unsupported_parameter", "best_of", best_of=2),
    text(47, "unsupported_parameter", "echo", echo=True),
]


@pytest.mark.parametrize(("row", "body", "code"), RAW, ids=[f"{r}-{c}-{i}" for i, (r, _, c) in enumerate(RAW)])
def test_raw_bodies(api, row, body, code):
    reply = api.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert_refused(reply, 400, code)


@pytest.mark.parametrize(("path", "fields", "code", "param"), ROWS)
def test_fields(api, path, fields, code, param):
    needed = {"messages": [TURN]} if path == CHAT else {"prompt": "hi"}
    body = json.dumps({"model": "base", **needed, **fields}, ensure_ascii=False)
    body = body.replace('"VOCAB"', f'"{api.vocab}"' if "logit_bias" in fields else str(api.vocab))
    body = body.replace('"CONTEXT"', str(api.context))
    reply = api.post(path, content=body.encode(), headers={"content-type": "application/json"})
    assert_refused(reply, 400, code, param)


def assert_refused(reply, status, code, param=...):
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), error
    assert set(error) == {"type", "code", "message", "param", "request_id"}
    assert error["request_id"] == reply.headers["x-request-id"]
    assert len(reply.content) <= 2048
    if param is not ...:
        assert error["param"] == param, error


def test_24_too_large_is_refused_before_parsing(api):
    body = b'{"model":"base","messages":[{"role":"user","content":"' + b"x" * (1 << 20) + b'"}]}'
    assert_refused(
        api.post(CHAT, content=body, headers={"content-type": "application/json"}), 413, "payload_too_large"
    )


@pytest.mark.parametrize("temperature", ["-0.0", "1e-320", "0"])
def test_28_negative_zero_and_denormals_are_greedy(api, temperature):
    body = (
        f'{{"model":"base","messages":[{{"role":"user","content":"hi"}}],"temperature":{temperature},"max_tokens":4}}'
    )
    reply = api.post(CHAT, content=body.encode(), headers={"content-type": "application/json"})
    assert reply.status_code == 200
    assert api.engine.submitted[-1].sampling.temperature == 0.0


def test_27_absent_max_tokens_fits_the_context(api):
    reply = api.post(TEXT, json={"model": "base", "prompt": [5] * (api.context - 3), "ignore_eos": True})
    assert reply.json()["usage"]["completion_tokens"] == 3


def test_34_control_ids_need_a_right(api):
    reply = api.post(TEXT, json={"model": "base", "prompt": [5, api.control_id], "max_tokens": 1})
    assert_refused(reply, 400, "control_token", "prompt[1]")


def test_35_the_last_token_that_fits(api):
    fits = api.post(TEXT, json={"model": "base", "prompt": [5] * (api.context - 1), "max_tokens": 1})
    assert fits.status_code == 200
    for length in (api.context, api.context + 1):
        reply = api.post(TEXT, json={"model": "base", "prompt": [5] * length, "max_tokens": 1})
        assert_refused(reply, 400, "context_length_exceeded", "prompt")


@pytest.mark.parametrize("word", ["a", "\u200d", "\U0001f469\u200d\U0001f680", " ", "ab"])
def test_36_a_huge_word_is_refused_quickly(api, word):
    content = word * (900_000 // len(word.encode()))
    started = time.perf_counter()
    body = json.dumps({"model": "base", "messages": [{"role": "user", "content": content}]}, ensure_ascii=False)
    reply = api.post(CHAT, content=body.encode(), headers={"content-type": "application/json"})
    assert_refused(reply, 400, "context_length_exceeded", "messages")
    assert time.perf_counter() - started < 20  # squared, it would be minutes


def test_37_special_tokens_in_text_are_plain_text(api):
    special = api.control_text
    reply = api.post(
        CHAT, json={"model": "base", "messages": [{"role": "user", "content": special}], "max_tokens": 1}
    )
    assert reply.status_code == 200
    plain = api.post(CHAT, json={"model": "base", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1})
    assert plain.status_code == 200
    controls = [sum(t == api.control_id for t in submit.prompt) for submit in api.engine.submitted[-2:]]
    assert controls[0] == controls[1], "text of a special token must not become that token"


@pytest.mark.parametrize(
    "model", ["nobody", "../../etc/passwd", "m" * 300, "a\u202eb", "BASE", "base:1", "base@default", "", "\x00"]
)
def test_45_46_unknown_models(api, model):
    reply = api.post(CHAT, json={"model": model, "messages": [TURN]})
    assert_refused(reply, 404, "model_not_found", "model")


def test_23_known_and_harmless_fields_are_accepted(api):
    reply = api.post(
        CHAT,
        json={
            "model": "base",
            "messages": [{**TURN}],
            "max_tokens": 1,
            "user": "u",
            "metadata": {"a": "b"},
            "store": False,
            "service_tier": "auto",
            "parallel_tool_calls": True,
            "tools": [],
            "tool_choice": "none",
            "modalities": ["text"],
            "response_format": {"type": "text"},
            "prompt_cache_key": "k",
            "safety_identifier": "s",
            "stop": None,
            "n": 1,
        },
    )
    assert reply.status_code == 200, reply.text


def test_50_the_same_client_request_id_twice(api):
    ids = {
        api.post(
            TEXT, json={"model": "base", "prompt": "hi", "max_tokens": 1}, headers={"x-request-id": "same"}
        ).headers["x-request-id"]
        for _ in range(2)
    }
    assert len(ids) == 2
    assert "same" not in ids
