"""Ends of every kind: of the worker, of its clients, of its parent, and of its disk."""

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from tenantry.runtime.client import EngineClient
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.journal import read_counters
from tenantry.runtime.messages import Refused, Tokens
from tenantry.runtime.rehearsal import Requests, drain, first_token
from tenantry.runtime.testing import Fault


async def until(condition, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


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


async def test_a_namespace_that_is_revoked_ends_and_others_go_on(spawn, requests: Requests):
    """Fault 22, hard: an adapter is deleted while it answers, and what it had said is in the journal."""
    worker = await spawn(step_s=0.02)
    revoked, other = requests.make(max_tokens=1000), requests.make(max_tokens=40)
    revoked = msgspec.structs.replace(revoked, namespace=b"r" * 32, share_key="gone/key")
    running, kept = worker.client.generate(revoked), worker.client.generate(other)
    await first_token(running)
    worker.client.drop_namespace(revoked.namespace, abort=True)
    _, _, last = await drain(running)
    assert last.reason == "abort"
    assert 0 < last.usage.completion < 1000
    entry = read_counters(worker.config.journal_dir)[revoked.request_id]
    assert (entry.closed, entry.reason, entry.usage) == (True, "abort", last.usage)
    again = worker.client.generate(msgspec.structs.replace(revoked, request_id="again"))
    await first_token(again)
    worker.client.drop_tenant("gone", abort=True)
    assert (await drain(again))[2].reason == "abort"
    assert (await drain(kept))[2].reason == "length"


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
