"""A step may be long: the engine's pulse goes on in the middle of it, and stops when the process stops."""

import asyncio
import os
import signal

from tenantry.runtime.rehearsal import Requests


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
