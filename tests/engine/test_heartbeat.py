"""A step may be long: the engine's pulse goes on in the middle of it, and stops when the process stops."""

import asyncio
import os
import signal

import pytest

from tenantry.runtime import client as client_module
from tenantry.runtime.errors import EngineUnavailable
from tenantry.runtime.journal import read_counters
from tenantry.runtime.messages import CLIENT_LEASE_S
from tenantry.runtime.rehearsal import Requests, drain, first_token


async def test_a_pulse_is_felt_in_the_middle_of_a_long_step(spawn, requests: Requests):
    worker = await spawn(step_s=3.0)
    generation = worker.client.generate(requests.make("the dog", max_tokens=2))
    await asyncio.sleep(0.5)  # the step has begun, and answers no ping before it ends
    began = worker.client.last_pong
    assert await worker.client.ping(1.5) is not None
    assert worker.client.last_pong is not began
    assert worker.client.ready
    generation.abort()


async def test_a_stopped_process_has_no_pulse(spawn, requests: Requests):
    worker = await spawn()
    assert await worker.client.ping(2.0) is not None
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(0.3)
        while await worker.client.ping(0.05) is not None:  # what was already under way
            pass
        assert await worker.client.ping(1.5) is None
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)


async def test_an_engine_that_wakes_up_too_late_is_heard_no_more_and_has_counted_once(
    spawn, requests: Requests, monkeypatch: pytest.MonkeyPatch
):
    """Faults 6 and 32: neither hears the other for longer than either waits. What the client gave up stays given up,
    the engine ends it as well, and its journal has one end with what was really drawn."""
    monkeypatch.setattr(client_module, "SILENCE_S", 1.0)
    worker = await spawn(step_s=0.02)
    submit = requests.make(max_tokens=3000)
    generation = worker.client.generate(submit)
    await first_token(generation)
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(EngineUnavailable, match="silent"):
            await asyncio.wait_for(drain(generation), 30)
        await asyncio.sleep(CLIENT_LEASE_S + 0.5)
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    heard = []
    monkeypatch.setattr(generation, "_put", heard.append)
    after, _, last = await asyncio.wait_for(drain(await _again(worker, requests)), 30)
    assert (last.reason, len(after[0])) == ("length", 40)
    assert heard == [], "told to somebody who was told of its end"
    entry = read_counters(worker.config.journal_dir)[submit.request_id]
    assert (entry.closed, entry.reason) == (True, "abort")
    assert 0 < entry.usage.completion < 3000


async def _again(worker, requests: Requests):
    """The next request, as soon as the engine is there again."""
    while not worker.client.ready:
        await asyncio.sleep(0.05)
    return worker.client.generate(requests.make(max_tokens=40, ignore_eos=True))
