"""What was generated is settled, however the reader ends; and nothing runs on for nobody."""

import json
import socket
import time
from uuid import UUID

import httpx
import pytest

CHAT = "/v1/chat/completions"


def event_of(api, request_id, timeout=5.0):
    """The usage event of a request, once it is settled."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for event in api.get("/api/v1/usage/events", params={"limit": 50}).json()["data"]:
            if event["request_id"] == request_id:
                return event
        time.sleep(0.05)
    raise AssertionError(f"{request_id} was never settled")


def body(**fields):
    return {"model": "base", "messages": [{"role": "user", "content": "hi"}], **fields}


def test_a_finished_request_is_settled_with_the_engines_counts(api):
    reply = api.post(CHAT, json=body(max_tokens=7, n=2))
    event = event_of(api, reply.headers["x-request-id"])
    assert (event["outcome"], event["completion_tokens"]) == ("completed", 14)
    assert event["prompt_tokens"] == reply.json()["usage"]["prompt_tokens"]
    assert event["cost"] != "0.00"


def test_a_disconnect_mid_stream_settles_what_was_generated(api, live):
    live.engine.pace = 0.01
    with api.stream("POST", CHAT, json=body(max_tokens=400, stream=True)) as reply:
        request_id = reply.headers["x-request-id"]
        for seen, _ in enumerate(reply.iter_lines()):
            if seen >= 8:
                break
    event = event_of(api, request_id)
    generation = live.engine.generations[-1]
    assert generation.aborted
    assert event["outcome"] == "cancelled"
    assert 0 < event["completion_tokens"] == generation.generated < 400


def test_a_disconnect_without_streaming_does_too(api, live):
    live.engine.pace = 0.01
    with pytest.raises(httpx.ReadTimeout):
        api.post(CHAT, json=body(max_tokens=400), timeout=0.4)
    deadline = time.monotonic() + 5
    while not live.engine.generations[-1].aborted and time.monotonic() < deadline:
        time.sleep(0.02)
    generation = live.engine.generations[-1]
    event = event_of(api, "req_" + UUID(generation.submit.request_id).hex)
    assert event["outcome"] == "cancelled"
    assert 0 < event["completion_tokens"] == generation.generated < 400


def test_17_a_reader_that_stops_reading_is_cut_and_billed(api, live, tenant):
    live.engine.script, script = "A" * 100, live.engine.script
    try:
        data = json.dumps(body(max_tokens=400, n=8, stream=True, logprobs=True, top_logprobs=20)).encode()
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant[1]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        ).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", live.port))
            before = len(live.engine.generations)
            connection.sendall(head + data)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                if len(live.engine.generations) > before and live.engine.generations[-1].aborted:
                    break
                time.sleep(0.02)
            generation = live.engine.generations[-1]
            assert generation.aborted, "the engine must not generate for a reader that does not read"
            event = event_of(api, "req_" + UUID(generation.submit.request_id).hex)
        assert event["outcome"] == "cancelled"
        assert 0 < event["completion_tokens"] == generation.generated < 3200
    finally:
        live.engine.script = script


def test_a_refusal_by_the_engine_costs_nothing(api, live):
    live.engine.refuse = ("overloaded", "too many requests wait", None)
    reply = api.post(CHAT, json=body())
    assert reply.status_code == 503
    event = event_of(api, reply.headers["x-request-id"])
    assert (event["outcome"], event["completion_tokens"], event["cost"]) == ("refused", 0, "0.00")


def test_draining_refuses_new_requests_and_finishes_the_old(postgres, tmp_path):
    from tenantry.platform.testing import GatewayThread, cloned_database

    with cloned_database(postgres, "tenantry_template") as dsn, GatewayThread(dsn, tmp_path) as live:
        _, key = live.make_tenant("drained")
        live.engine.pace = 0.02
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=live.url, headers=headers, timeout=20) as client:
            stream = client.stream("POST", CHAT, json=body(max_tokens=60, stream=True))
            with stream as reply:
                lines = reply.iter_lines()
                next(lines)
                live.loop.call_soon_threadsafe(live.server.drain_and_exit)
                time.sleep(0.2)
                assert httpx.get(f"{live.url}/ready").status_code == 503
                refused = httpx.post(f"{live.url}{CHAT}", json=body(), headers=headers)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
                assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert live.run(_settled(live)) == [("completed", 60)]


async def _settled(live):
    assert await live.gateway.settler.drain(5)
    async with live.gateway.parts.database.operator() as connection:
        rows = await connection.fetch("SELECT outcome, completion FROM usage_event")
    return [(row["outcome"], row["completion"]) for row in rows]
