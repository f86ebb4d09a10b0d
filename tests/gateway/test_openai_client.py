"""The official `openai` client against the live gateway: it is understood, and gets its own types back."""

import openai
import pytest


@pytest.fixture
def client(live, tenant):
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key=tenant[1], max_retries=0) as client:
        yield client


TURNS = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def test_models(client):
    assert [m.id for m in client.models.list()] == ["base"]
    assert client.models.retrieve("base").owned_by == "tenantry"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("nobody")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_chat(client, live):
    reply = client.chat.completions.create(model="base", messages=TURNS, max_completion_tokens=9, seed=7, user="u")
    assert reply.object == "chat.completion"
    assert reply.choices[0].message.content == "the quick"
    assert reply.choices[0].finish_reason == "length"
    submit = live.engine.submitted[-1]
    assert (submit.sampling.seed, submit.sampling.max_tokens) == (7, 9)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(submit.prompt), 9)
    assert reply.usage.prompt_tokens_details.cached_tokens == 0
    again = [*TURNS, reply.choices[0].message.model_dump(), {"role": "user", "content": "go on"}]
    assert client.chat.completions.create(model="base", messages=again, max_tokens=1).usage.completion_tokens == 1


def test_chat_stream_with_choices_logprobs_stop_and_usage(client):
    stream = client.chat.completions.create(
        model="base", messages=TURNS, n=2, max_tokens=40, stop=["brown"], logprobs=True, top_logprobs=2, stream=True,
        stream_options={"include_usage": True}, extra_body={"top_k": 5, "min_p": 0.1, "return_token_ids": True},
    )  # fmt: skip
    texts, reasons, ids, chunks = {0: "", 1: ""}, {}, {0: [], 1: []}, list(stream)
    assert chunks[0].prompt_token_ids
    assert [c.delta.role for c in chunks[0].choices] == ["assistant", "assistant"]
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ids[choice.index] += getattr(choice, "token_ids", None) or []
            if choice.logprobs is not None:
                (entry,) = choice.logprobs.content
                assert entry.logprob == -0.5
                assert bytes(entry.bytes).decode() == entry.token
                assert len(entry.top_logprobs) == 2
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == {0: "the quick ", 1: "he quick "}
    assert reasons == {0: "stop", 1: "stop"}
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == sum(map(len, ids.values())) == 15 + 14


def test_completions_with_ids_and_logprobs(client):
    reply = client.completions.create(model="base", prompt=[5, 6, 7], max_tokens=4, logprobs=1, n=2)
    assert [c.text for c in reply.choices] == ["the ", "he q"]
    assert reply.usage.prompt_tokens == 3
    assert reply.choices[0].logprobs.tokens == ["t", "h", "e", " "]
    assert reply.choices[0].logprobs.text_offset == [0, 1, 2, 3]
    assert reply.choices[0].logprobs.token_logprobs == [-0.5] * 4
    single = client.completions.create(model="base", prompt=["hi"], max_tokens=1)
    assert single.usage.prompt_tokens == 2


def test_completions_stream(client):
    chunks = list(client.completions.create(model="base", prompt="hi", max_tokens=6, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "the qu"
    assert chunks[-1].choices[0].finish_reason == "length"


def test_multibyte_characters_are_never_split(client, live):
    script, live.engine.script = live.engine.script, "héllo wörld 👋 "
    try:
        stream = client.chat.completions.create(model="base", messages=TURNS, max_tokens=18, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream) == "héllo wörld 👋"
    finally:
        live.engine.script = script


def test_errors_are_the_clients_own(client, live):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="base", messages=TURNS, n=9)
    assert error.value.param == "n"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{live.url}/v1", api_key="nope", max_retries=0).models.list()
    live.engine.refuse = ("overloaded", "too many requests wait", None)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as error:
            client.chat.completions.create(model="base", messages=TURNS, stream=stream)
        assert error.value.status_code == 503
        assert error.value.response.headers["retry-after"] == "1"
    for code, kind, status in (
        ("overloaded", openai.InternalServerError, 503),
        ("too_many_waiting", openai.RateLimitError, 429),
    ):
        live.engine.refuse = (code, "the queue is longer than the deadline", "deadline", 7300)
        with pytest.raises(kind) as error:
            client.chat.completions.create(model="base", messages=TURNS)
        assert (error.value.status_code, error.value.code) == (status, code)
        assert error.value.response.headers["retry-after"] == "8"
        assert error.value.response.headers["retry-after-ms"] == "7300"
    live.engine.refuse, live.engine.ready = None, False
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(model="base", messages=TURNS)
    assert error.value.code == "engine_unavailable"


def test_priority_reaches_the_engine_beside_the_share_of_tenant_and_key(client, live):
    client.chat.completions.create(model="base", messages=TURNS, max_tokens=2, extra_body={"priority": 7})
    submit = live.engine.generations[-1].submit
    assert (submit.priority, submit.weight) == (7, 1.0)
    tenant, _, key = submit.share_key.partition("/")
    assert len(tenant) == len(key) == 16
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="base", messages=TURNS, extra_body={"priority": 101})
    assert error.value.param == "priority"


def test_the_engine_dying_mid_stream_is_an_error_and_never_a_done(client, live):
    live.engine.pace = 0.02
    stream = client.chat.completions.create(model="base", messages=TURNS, max_tokens=100, stream=True)
    next(stream)
    live.engine.generations[-1].lost = True
    with pytest.raises(openai.APIError) as error:
        list(stream)
    assert error.value.code == "engine_unavailable"
