"""The official client against /v1/responses: it is understood, gets its own types back, and is remembered."""

import asyncio
import time

import openai
import pytest
from openai.types.responses import Response

FAST = {"model": "base", "max_output_tokens": 9, "temperature": 0}


def whole(reply):
    """The reply, after a strict reading by the client's own type."""
    Response.model_validate(reply.model_dump(exclude_unset=True, warnings=False))
    return reply


def test_a_response_is_the_clients_own(client, live, said):
    reply = whole(client.responses.create(**FAST, input="hi", instructions="be brief", metadata={"a": "b"}, user="u"))
    assert reply.output_text == "the quick"
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (reply.instructions, reply.metadata, reply.user) == ("be brief", {"a": "b"}, "u")
    assert reply.usage.input_tokens == len(live.engine.submitted[-1].prompt)
    assert (reply.usage.output_tokens, reply.usage.input_tokens_details.cached_tokens) == (9, 0)
    assert said() == "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_stored_response_is_read_as_it_was_answered(client):
    made = client.responses.create(**FAST, input="hi", top_logprobs=2, include=["message.output_text.logprobs"])
    read = whole(client.responses.retrieve(made.id))
    assert read == made
    assert [len(lp.top_logprobs) for lp in read.output[0].content[0].logprobs] == [2] * 9


def test_a_natural_end_is_completed(client):
    reply = whole(client.responses.create(model="base", input="hi", extra_body={"stop": ["brown"]}))
    assert (reply.status, reply.output_text, reply.incomplete_details) == ("completed", "the quick ", None)
    assert reply.completed_at >= reply.created_at


def test_previous_response_id_continues_without_resending(client, said):
    first = client.responses.create(**FAST, input="one", instructions="only once")
    second = client.responses.create(
        **FAST, input=[{"role": "user", "content": "two"}], previous_response_id=first.id
    )
    assert said() == (
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\nthe quick<|im_end|>\n"
        "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
    )
    assert second.previous_response_id == first.id
    assert second.x_session["id"] == first.x_session["id"]


def test_a_response_can_be_forked_at_any_time(client, said):
    root = client.responses.create(**FAST, input="root")
    left = client.responses.create(**FAST, input="left", previous_response_id=root.id)
    client.responses.create(**FAST, input="right", previous_response_id=root.id)
    assert "left" not in said()
    client.responses.create(**FAST, input="on", previous_response_id=left.id)
    assert "right" not in said()
    assert said().index("root") < said().index("left") < said().index("on")


def test_output_items_may_be_sent_back_as_input(client, said):
    first = client.responses.create(**FAST, input="hi")
    items = [{"role": "user", "content": "hi"}, *first.output, {"role": "user", "content": "more"}]
    client.responses.create(**FAST, input=items, store=False)
    assert said().count("the quick") == 1


def test_what_is_not_stored_is_not_there(client):
    reply = client.responses.create(**FAST, input="secret", store=False)
    assert reply.x_session is None
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError) as error:
            call(reply.id)
        assert error.value.code == "response_not_found"


def test_streamed_events_come_in_order_and_rebuild_the_response(client):
    events = list(client.responses.create(**FAST, input="hi", stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete",
    ]  # fmt: skip
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    end = whole(events[-1].response)
    assert text == end.output_text == events[-4].text == "the quick"
    assert client.responses.retrieve(end.id) == end
    assert {events[2].item.id, events[5].item_id, end.output[0].id} == {end.output[0].id}


def test_the_clients_own_stream_helper_agrees(client):
    with client.responses.stream(model="base", input="hi", extra_body={"stop": [" brown"]}) as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        assert "".join(deltas) == stream.get_final_response().output_text == "the quick"


async def test_the_asynchronous_client_too(live, tenant):
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=tenant[1], max_retries=0) as client:
        first, second = await asyncio.gather(*(client.responses.create(**FAST, input=f"n{i}") for i in range(2)))
        assert first.id != second.id
        stream = await client.responses.create(**FAST, input="hi", previous_response_id=first.id, stream=True)
        kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.incomplete"


def test_input_items_are_listed_in_either_direction(client):
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "input_text", "text": "u"}]}]
    reply = client.responses.create(**FAST, input=said)
    assert [item.content[0].text for item in client.responses.input_items.list(reply.id, limit=1)] == ["u", "s"]
    listed = list(client.responses.input_items.list(reply.id, order="asc", limit=1))
    assert [(item.role, item.type) for item in listed] == [("system", "message"), ("user", "message")]


def test_deleting_forgets_it_and_what_came_after_cannot_go_on(client):
    first = client.responses.create(**FAST, input="one")
    second = client.responses.create(**FAST, input="two", previous_response_id=first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    assert client.responses.retrieve(second.id).output_text == "the quick"
    for previous in (first.id, second.id):
        with pytest.raises(openai.NotFoundError) as error:
            client.responses.create(**FAST, input="three", previous_response_id=previous)
        assert (error.value.code, error.value.param) == ("response_not_found", "previous_response_id")


def test_one_404_for_foreign_absent_and_malformed(client, stranger):
    mine = client.responses.create(**FAST, input="hi")
    seen = set()
    for who, name in ((stranger, mine.id), (client, "resp_" + "0" * 32), (client, "x" * 300), (client, "conv_1")):
        for call in (who.responses.retrieve, who.responses.delete, who.responses.cancel,
                     lambda i, who=who: list(who.responses.input_items.list(i)),
                     lambda i, who=who: who.responses.create(**FAST, input="x", previous_response_id=i)):  # fmt: skip
            with pytest.raises(openai.NotFoundError) as error:
                call(name)
            body = dict(error.value.body)
            body.pop("request_id")
            body.pop("param")
            seen.add(tuple(sorted(body.items())))
    assert len(seen) == 1
    assert client.responses.retrieve(mine.id).id == mine.id


def test_cancelling_rolls_back_and_bills(client, live, http):
    live.engine.pace = 0.02
    stream = client.responses.create(model="base", input="hi", max_output_tokens=300, stream=True)
    made = next(stream).response
    stopped = client.responses.cancel(made.id)
    assert (stopped.id, stopped.status, stopped.output) == (made.id, "cancelled", [])
    assert list(stream)[-1].type == "response.failed"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    event = event_of(http, made.id)
    assert (event["outcome"], 0 < event["completion_tokens"] < 300) == ("cancelled", True)
    live.engine.pace = 0
    done = client.responses.create(**FAST, input="hi")
    assert client.responses.cancel(done.id) == done


def event_of(http, response_id, timeout=5.0):
    """The usage event of a response, once it is settled: they share their id."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for event in http.get("/api/v1/usage/events", params={"limit": 50}).json()["data"]:
            if event["request_id"] == response_id.replace("resp_", "req_"):
                return event
        time.sleep(0.05)
    raise AssertionError(f"{response_id} was never settled")
