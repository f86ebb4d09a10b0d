"""The real worker process under rubbish, oversized frames, ids in use and frames for another life."""

import asyncio
import random

import msgspec
import pytest
import zmq

from tenantry.runtime.journal import read_counters
from tenantry.runtime.messages import MAX_FRAME_BYTES, Abort, Ping
from tenantry.runtime.rehearsal import Requests, WorkerProcess, drain, first_token


def raw(worker: WorkerProcess) -> zmq.Socket:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 500)
    socket.connect(worker.config.socket)
    return socket


async def test_rubbish_is_dropped_and_harms_nobody(spawn, requests: Requests):
    worker = await spawn(step_s=0.001)
    generation = worker.client.generate(requests.make(max_tokens=400))
    epoch = worker.client._epoch
    rng = random.Random(5)
    sound = msgspec.msgpack.encode(requests.make())
    bodies = [b"", b"\xc1", b"\x81" * 5000, sound[:-1], sound + b"x", msgspec.msgpack.encode({"type": "Submit"})]
    bodies += [msgspec.msgpack.encode(x) for x in (1, None, [], {"type": "Exec"}, {"type": "Ping", "more": 1})]
    bodies += [rng.randbytes(rng.randrange(1, 300)) for _ in range(200)]
    for _ in range(300):
        at = rng.randrange(len(sound))
        bodies.append(sound[:at] + bytes([rng.randrange(256)]) + sound[at + 1 :])
    socket = raw(worker)
    for body in bodies:
        socket.send_multipart([epoch, body])
    socket.send_multipart([b"just one"])
    socket.send_multipart([b"a", b"b", b"c", b"d"])
    for strange in (b"", b"\xff" * 300):
        socket.send_multipart([strange, sound])
    socket.close()
    tokens, _, last = await drain(generation)
    assert (last.reason, len(tokens[0])) == ("length", 400)
    assert worker.process.returncode is None


async def test_an_oversized_frame_costs_its_sender_the_connection(spawn, requests: Requests):
    worker = await spawn()
    with pytest.raises(Exception, match="at most"):
        await worker.client.generate(requests.make(receipt=b"x" * (MAX_FRAME_BYTES + 1))).__anext__()
    socket = raw(worker)
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    socket.send_multipart([b"", msgspec.msgpack.encode(Ping())])
    assert await asyncio.to_thread(socket.poll, 5000)
    socket.send_multipart([b"", b"x" * (MAX_FRAME_BYTES + 1)])
    assert await asyncio.to_thread(monitor.poll, 5000), "cut off"
    socket.disable_monitor()
    monitor.close(0)
    _, _, last = await drain(worker.client.generate(requests.make()))
    assert last.reason == "length"
    socket.close(0)


async def test_an_id_in_use_is_refused_and_its_owner_does_not_notice(spawn, requests: Requests):
    worker = await spawn(step_s=0.002)
    first = worker.client.generate(requests.make(request_id="same", max_tokens=200))
    await first_token(first)
    socket = raw(worker)
    twin = msgspec.msgpack.encode(requests.make(request_id="same"))
    abort = msgspec.msgpack.encode(Abort("same"))
    for body in (abort, twin):
        socket.send_multipart([worker.client._epoch, body])
    assert await asyncio.to_thread(socket.poll, 5000)
    assert b"invalid_request" in socket.recv_multipart()[1]
    for _ in range(50):
        socket.send_multipart([worker.client._epoch, twin])
    _, _, last = await drain(first)
    assert (last.reason, last.usage.completion) == ("length", 200)
    assert (await worker.client.ping()).ready
    socket.close(0)


async def test_what_was_meant_for_another_life_is_refused(spawn, requests: Requests):
    worker = await spawn()
    socket = raw(worker)
    socket.send_multipart([b"another", msgspec.msgpack.encode(requests.make(request_id="stale"))])
    assert await asyncio.to_thread(socket.poll, 5000)
    _, body = socket.recv_multipart()
    assert b"engine_unavailable" in body
    assert "stale" not in read_counters(worker.config.journal_dir)
    socket.close(0)
