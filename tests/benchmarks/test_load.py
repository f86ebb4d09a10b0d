"""The client that drives every server: what it counts, and that no answer ends another's connection."""

import asyncio
import json

import pytest

from benchmarks.load import drive
from benchmarks.workload import Call, Workload

CALLS = tuple(Call("W5", None, (1, 2), 2, f"W5-{i}") for i in range(3))
ANSWER = [
    {"choices": [{"text": "a", "token_ids": [5]}]},
    {"choices": [{"text": "b", "token_ids": [6]}]},
    {"choices": [], "usage": {"completion_tokens": 2}},
]


@pytest.fixture
async def server():
    """An HTTP/1.1 server that would keep connections; what was sent, by connection."""
    connections: list[list[dict[str, object]]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: list[dict[str, object]] = []
        connections.append(asked)
        while head := await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b"":
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            asked.append(json.loads(await reader.readexactly(length)))
            body = "".join(f"data: {json.dumps(part)}\n\n" for part in ANSWER).encode() + b"data: [DONE]\n\n"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            if b"connection: close" in head.lower():
                break
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", connections
    listening.close()


async def test_each_request_has_a_connection_of_its_own(server):
    url, connections = server
    outcome = await drive(url, "key", "base", Workload("W5", CALLS, 1))
    assert outcome.bad == []
    assert [len(asked) for asked in connections] == [1, 1, 1]
    assert [a.tokens for a in outcome.answers] == [[5, 6]] * 3


@pytest.mark.parametrize(("adapter", "sent"), [(None, [{"id": 0, "scale": 0.0}]), ("02", [{"id": 2, "scale": 1.0}])])
async def test_llama_cpp_is_told_an_adapter_by_number_and_the_base_by_scale(server, adapter, sent):
    url, connections = server
    call = Call("W1", adapter, (1, 2), 2, "W1-0")
    await drive(url, "none", "base", Workload("W1", (call,), 1), by="lora")
    (body,) = connections[0]
    assert (body["lora"], body["model"]) == (sent, "base")


async def test_what_did_not_get_its_tokens_is_bad(server):
    url, _ = server
    long = Call("W5", None, (1, 2), 3, "W5-0")
    outcome = await drive(url, "key", "base", Workload("W5", (long, CALLS[0]), 1))
    assert outcome.bad == ["2 of 3 tokens"]
    assert outcome.output_tokens_per_second == pytest.approx(2 / outcome.seconds)
