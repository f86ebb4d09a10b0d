"""The real worker process: many requests, aborts, crashes, poison, floods of rubbish, and ends of every kind."""

import asyncio
import os
import random
import signal
import stat
import time
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq

from tenantry.runtime.client import EngineClient
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.journal import read_counters
from tenantry.runtime.messages import (
    MAX_FRAME_BYTES,
    Abort,
    ChoiceFinished,
    Finished,
    Ping,
    Refused,
    Tokens,
    Usage,
)
from tenantry.runtime.rehearsal import Requests, WorkerProcess, drain
from tenantry.runtime.testing import Fault


async def until(condition, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def first_token(generation) -> Tokens:
    event = await generation.__anext__()
    assert isinstance(event, Tokens)
    return event


async def test_32_at_once_equal_each_alone_and_are_in_the_journal(spawn, requests: Requests):
    worker = await spawn()
    submits = [requests.make(f"the dog sat on {n}", max_tokens=20 + n % 7, n=1 + n % 2) for n in range(32)]
    alone = [(await drain(worker.client.generate(s)))[0] for s in submits]
    again = [msgspec.structs.replace(s, request_id=f"b{n}") for n, s in enumerate(submits)]
    both = await asyncio.gather(*(drain(worker.client.generate(s)) for s in again))
    assert [tokens for tokens, _, _ in both] == alone
    entries = read_counters(worker.config.journal_dir)
    assert len(entries) == 64
    for submit, (tokens, ends, last) in zip(again, both, strict=True):
        assert isinstance(last, Finished)
        assert last.reason == "length"
        assert len(ends) == submit.sampling.n
        assert last.usage.prompt == len(submit.prompt)
        assert last.usage.completion == sum(map(len, tokens.values())) == submit.sampling.max_tokens * len(ends)
        entry = entries[submit.request_id]
        assert entry.usage == last.usage
        assert (entry.closed, entry.reason, entry.receipt) == (True, "length", submit.receipt)


async def test_an_abort_is_heard_within_two_steps(spawn, requests: Requests):
    worker = await spawn(step_s=0.05)
    generation = worker.client.generate(requests.make(max_tokens=1000))
    for _ in range(3):
        await first_token(generation)
    before = await worker.client.ping()
    generation.abort()
    rest = [event async for event in generation]
    after = await worker.client.ping()
    assert isinstance(rest[-1], Finished)
    assert rest[-1].reason == "abort"
    assert after.progress - before.progress <= 3, "one in flight, at most one more, and the one that tells"
    assert len(rest) - 1 <= 2
    assert after.stats.running == 0
    entry = read_counters(worker.config.journal_dir)[generation.request_id]
    assert (entry.closed, entry.reason, entry.usage) == (True, "abort", rest[-1].usage)
    assert rest[-1].usage.completion == 3 + len(rest) - 1


async def test_stop_strings_end_the_choice_at_the_token(spawn, requests: Requests):
    worker = await spawn()
    tokens, _, _ = await drain(worker.client.generate(requests.make(max_tokens=60)))
    text = requests.text.decode(tokens[0])
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    got, ends, last = await drain(worker.client.generate(requests.make(max_tokens=60, stop=(stop,))))
    decoder = requests.text.decoder((stop,))
    expected = 0
    while decoder.matched is None:
        decoder.push(tokens[0][expected : expected + 1])
        expected += 1
    assert got[0] == tokens[0][:expected]
    assert ends == [ChoiceFinished(last.request_id, 0, "stop", stop)]
    assert (last.reason, last.usage.completion) == ("stop", expected)
    at_the_last = requests.make(max_tokens=expected, stop=(stop,))
    got, ends, last = await drain(worker.client.generate(at_the_last))
    assert ends == [ChoiceFinished(last.request_id, 0, "stop", stop)], "not length: the text was cut at the stop"
    assert (last.reason, last.usage.completion) == ("stop", expected)


async def test_poison_and_nan_end_only_themselves(spawn, requests: Requests):
    worker = await spawn(step_s=0.002)
    pid = worker.process.pid
    healthy = [requests.make(f"dog {n}", max_tokens=30) for n in range(12)]
    expected = [(await drain(worker.client.generate(s)))[0] for s in healthy]
    again = [msgspec.structs.replace(s, request_id=f"b{n}") for n, s in enumerate(healthy)]
    bad = [requests.make(f"bad {n}", fault=f) for n, f in enumerate((Fault.RAISE, Fault.NAN, Fault.RAISE, Fault.NAN))]
    order = again + bad
    random.Random(1).shuffle(order)
    results = await asyncio.gather(*(drain(worker.client.generate(s)) for s in order))
    by_id = {s.request_id: result for s, result in zip(order, results, strict=True)}
    assert [by_id[s.request_id][0] for s in again] == expected
    for submit in bad:
        tokens, _, last = by_id[submit.request_id]
        assert tokens == {}
        assert isinstance(last, Finished)
        assert (last.reason, last.usage.completion) == ("error", 0)
    for _ in range(20):  # alone and again and again: no number of bad requests ends the engine
        _, _, last = await drain(worker.client.generate(requests.make(fault=Fault.RAISE)))
        assert last.reason == "error"
    assert (await worker.client.ping()).ready
    assert worker.process.pid == pid
    assert worker.process.returncode is None
    assert "request_failed" in worker.log
    assert "commanded" not in worker.log


async def test_a_dead_engine_is_told_at_once_and_the_journal_has_all_that_was_told(spawn, requests: Requests):
    worker = await spawn(step_s=0.005)
    generations = [worker.client.generate(requests.make(f"dog {n}", max_tokens=3000)) for n in range(8)]
    told = dict.fromkeys((g.request_id for g in generations), 0)

    async def read(generation) -> str:
        try:
            async for event in generation:
                told[generation.request_id] += len(event.tokens)
        except EngineUnavailable as error:
            return error.code
        return "ended"

    readers = [asyncio.create_task(read(g)) for g in generations]
    await until(lambda: min(told.values()) > 10)
    worker.process.kill()
    lost = time.monotonic()
    await worker.wait()
    assert await asyncio.gather(*readers) == ["engine_unavailable"] * 8
    assert time.monotonic() - lost < 2
    entries = read_counters(worker.config.journal_dir)
    for request_id, tokens in told.items():
        assert tokens <= entries[request_id].usage.completion <= tokens + 5
        assert not entries[request_id].closed
    refused = worker.client.generate(requests.make())
    with pytest.raises(EngineUnavailable):
        await refused.__anext__()
    await worker.start()
    _, _, last = await drain(worker.client.generate(requests.make()))
    assert last.reason == "length"
    assert len({e.epoch for e in read_counters(worker.config.journal_dir).values()}) == 2


async def test_a_restart_is_noticed_without_being_told(spawn, requests: Requests):
    worker = await spawn(step_s=0.01)
    generation = worker.client.generate(requests.make(max_tokens=3000))
    await first_token(generation)
    worker.client._tasks[2].cancel()  # deaf to the broken connection
    worker.process.kill()
    await worker.wait()
    await worker.start()
    with pytest.raises(EngineUnavailable, match="restarted"):
        async for event in generation:
            assert isinstance(event, Tokens)
    assert worker.client.stats.running == 0, "nothing of the old life runs in the new one"


async def test_a_dead_client_has_its_requests_aborted_and_journaled(spawn, requests: Requests):
    worker = await spawn(step_s=0.005)
    other = EngineClient(worker.config.socket)
    await other.connect()
    await until(lambda: other.ready)
    lost = other.generate(requests.make(max_tokens=3000))
    kept = worker.client.generate(requests.make(max_tokens=300))
    await first_token(lost)
    await other.close()
    with pytest.raises(EngineUnavailable):
        while True:
            await lost.__anext__()
    _, _, last = await drain(kept)
    assert last.reason == "length"
    entry = read_counters(worker.config.journal_dir)[lost.request_id]
    assert (entry.closed, entry.reason) == (True, "abort")


async def test_a_silent_client_loses_its_lease(spawn, requests: Requests):
    worker = await spawn(step_s=0.01)
    silent = EngineClient(worker.config.socket)
    await silent.connect()
    await until(lambda: silent.ready)
    generation = silent.generate(requests.make(max_tokens=3000))
    await first_token(generation)
    silent._tasks[1].cancel()
    start = time.monotonic()
    *_, last = [event async for event in generation]
    assert last.reason == "abort"
    assert 3.5 < time.monotonic() - start < 8
    await silent.close()


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


async def test_refusals_are_answers(spawn, requests: Requests):
    worker = await spawn()
    cases = [
        (requests.make(adapter=bytes(32)), "adapter_unavailable"),
        (requests.make(adapter=b"short"), "adapter_unavailable"),
        (requests.make(max_tokens=10_000), "context_length_exceeded"),
        (requests.make(logit_bias=((10**9, 1.0),)), "invalid_request"),
        (requests.make(receipt=b"x" * 20_000), "invalid_request"),
    ]
    for submit, code in cases:
        _, _, last = await drain(worker.client.generate(submit))
        assert isinstance(last, Refused)
        assert (last.code, last.request_id) == (code, submit.request_id)
    assert read_counters(worker.config.journal_dir) == {}


async def test_sigterm_drains(spawn, requests: Requests):
    worker = await spawn(step_s=0.01)
    running = worker.client.generate(requests.make(max_tokens=100))
    await first_token(running)
    worker.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    _, _, refused = await drain(worker.client.generate(requests.make()))
    assert (refused.code, refused.message) == ("engine_unavailable", "the engine is shutting down")
    assert not (await worker.client.ping()).ready
    with pytest.raises(EngineUnavailable):
        await worker.client.generate(requests.make()).__anext__()
    _, _, last = await drain(running)
    assert last.reason == "length"
    assert await worker.wait() == 0
    assert not os.path.exists(worker.config.socket.removeprefix("ipc://"))  # noqa: ASYNC240


@pytest.mark.parametrize("how", ["grace", "second"])
async def test_a_drain_has_an_end(spawn, requests: Requests, how: str):
    worker = await spawn(step_s=0.01, drain_s=0.3 if how == "grace" else 30.0)
    running = worker.client.generate(requests.make(max_tokens=3000))
    await first_token(running)
    worker.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    if how == "second":
        worker.process.send_signal(signal.SIGTERM)
    _, _, last = await drain(running)
    assert last.reason == "abort"
    assert await worker.wait(5) == 0
    entry = read_counters(worker.config.journal_dir)[running.request_id]
    assert (entry.closed, entry.usage) == (True, last.usage)


async def test_no_orphan_survives_its_parent(tmp_path: Path, spawn, requests: Requests):
    """The worker's parent is killed while the worker runs a request: the worker is gone soon after."""
    worker = await spawn(step_s=0.01)
    generation = worker.client.generate(requests.make(max_tokens=3000))
    await first_token(generation)
    worker.process.stdin.close()
    assert await worker.wait(5) == 0
    assert read_counters(worker.config.journal_dir)[generation.request_id].reason == "abort"


async def test_an_orphan_that_hangs_is_ended(spawn, requests: Requests):
    worker = await spawn()
    worker.client.generate(requests.make(fault=Fault.HANG))
    await asyncio.sleep(0.3)
    worker.process.stdin.close()
    assert await worker.wait(8) == 70


async def test_the_socket_and_the_journal_are_private(spawn):
    worker = await spawn()
    mode = os.stat(worker.config.socket.removeprefix("ipc://")).st_mode
    assert stat.S_IMODE(mode) == 0o600
    for path in worker.config.journal_dir.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = await asyncio.create_subprocess_exec(
        *psutil.Process(worker.process.pid).cmdline(),
        stdin=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2] / ".src",
    )
    assert await asyncio.wait_for(second.wait(), 20) == 2, "one worker per journal"
    assert (await worker.client.ping()).ready


async def test_a_full_disk_stops_the_service_before_it_is_unmetered(spawn, requests: Requests):
    worker = await spawn(step_s=0.002)
    generation = worker.client.generate(requests.make(max_tokens=3000))
    await first_token(generation)
    psutil.Process(worker.process.pid).rlimit(psutil.RLIMIT_FSIZE, (1, 1))
    told = 1
    refused = None
    while worker.process.returncode is None:
        late = worker.client.generate(requests.make())
        try:
            async with asyncio.timeout(0.2):
                async for event in late:
                    if isinstance(event, Refused):
                        refused = event.code
        except (TimeoutError, EngineUnavailable):
            await asyncio.sleep(0.01)
    assert await worker.wait() == 3
    assert refused == "metering_unavailable"
    with pytest.raises(EngineUnavailable):
        async for event in generation:
            told += len(event.tokens)
    assert told <= read_counters(worker.config.journal_dir)[generation.request_id].usage.completion


async def test_logs_hold_no_prompt(spawn, requests: Requests):
    worker = await spawn()
    for fault in (Fault.RAISE, Fault.NAN, None):
        await drain(worker.client.generate(requests.make("xylophone secret", fault=fault, receipt=b"receipt")))
    assert "xylophone" not in worker.log
    assert str(requests.text.encode("xylophone")[0:2])[1:-1] not in worker.log


async def test_events_per_second_through_the_link(spawn, requests: Requests, capsys: pytest.CaptureFixture[str]):
    worker = await spawn()
    submits = [requests.make(f"dog {n}", max_tokens=200) for n in range(32)]
    start = time.perf_counter()
    results = await asyncio.gather(*(drain(worker.client.generate(s)) for s in submits))
    seconds = time.perf_counter() - start
    tokens = sum(len(t[0]) for t, _, _ in results)
    pong = await worker.client.ping()
    with capsys.disabled():
        print(f"\nlink: {tokens / seconds:.0f} token events/s from 32 requests, "
              f"{pong.stats.step_seconds / pong.stats.steps * 1e6:.0f} us per scripted step")  # fmt: skip
    assert tokens == 32 * 200
    assert all(
        last.usage == Usage(len(s.prompt), last.usage.cached, 200)
        for s, (_, _, last) in zip(submits, results, strict=True)
    )
