"""Laws of supervision: a child is judged by progress, restarted with back-off, and never outlives its parent."""

import asyncio
import sys
import time

import psutil
import pytest

from tenantry.platform.fleet.process import Child
from tenantry.platform.fleet.supervisor import Supervisor
from tenantry.platform.fleet.watchdog import Backoff, Verdict, Watchdog
from tenantry.runtime.counts import Stats
from tenantry.runtime.messages import Pong


def pong(progress: int, running: int, ready: bool = True) -> Pong:
    return Pong(epoch="e", progress=progress, ready=ready, stats=Stats(running=running))


def test_an_engine_that_loads_its_model_is_starting_not_dead():
    dog = Watchdog(start=100)
    dog.spawned(0)
    dog.heard(pong(0, 0, ready=False), 50)
    assert dog.verdict(99) is Verdict.STARTING
    assert dog.verdict(101) is Verdict.SILENT


def test_an_idle_engine_may_stand_still_for_ever():
    dog = Watchdog(stall=10)
    dog.spawned(0)
    for t in range(0, 100, 5):
        dog.heard(pong(7, 0), t)
    assert dog.verdict(96) is Verdict.HEALTHY


def test_a_busy_engine_that_makes_no_step_is_hung_though_it_answers():
    dog = Watchdog(stall=10)
    dog.spawned(0)
    for t in range(0, 30, 5):
        dog.heard(pong(7, 3), t)
    assert dog.verdict(26) is Verdict.HUNG


def test_work_that_begins_after_idleness_gets_its_full_time():
    dog = Watchdog(stall=10)
    dog.spawned(0)
    dog.heard(pong(7, 0), 100)
    dog.heard(pong(7, 3), 101)
    dog.heard(pong(7, 3), 105)
    assert dog.verdict(106) is Verdict.HEALTHY


def test_a_silent_engine_is_given_up():
    dog = Watchdog(silence=10)
    dog.spawned(0)
    dog.heard(pong(1, 0), 5)
    assert dog.verdict(14) is Verdict.HEALTHY
    assert dog.verdict(16) is Verdict.SILENT


def test_the_first_restart_is_free_and_a_crash_loop_is_not():
    backoff = Backoff()
    assert [backoff.died(1) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.died(61) == 0


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_a_child_that_dies_is_started_again():
    starts: list[int] = []

    async def spawn() -> Child:
        child = await Child.start(script("import sys; sys.exit(3)"), lambda _line: None)
        starts.append(child.pid)
        return child

    supervisor = Supervisor("x", spawn)
    task = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(20):
        while len(starts) < 2:
            await asyncio.sleep(0.02)
    await supervisor.stop()
    await task
    assert len(set(starts)) == len(starts)
    assert supervisor.restarts >= 1


async def test_a_hung_child_is_killed_and_replaced():
    starts: list[int] = []

    async def spawn() -> Child:
        starts.append(1)
        return await Child.start(script("import time; time.sleep(60)"), lambda _line: None)

    async def ping() -> Pong:
        return pong(5, running=1)

    supervisor = Supervisor("x", spawn, ping=ping, period=0.02, watchdog=Watchdog(stall=0.2), grace=5)
    task = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(20):
        while len(starts) < 2:
            await asyncio.sleep(0.02)
    await supervisor.stop()
    await task


async def test_stop_ends_a_child_that_ignores_the_polite_signal():
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    lines: list[str] = []
    child = await Child.start(script(code), lines.append)
    async with asyncio.timeout(20):
        while not lines:
            await asyncio.sleep(0.01)
    began = time.monotonic()
    assert await child.stop(grace=0.3) == -9
    assert time.monotonic() - began < 10


async def test_a_childs_input_closes_when_its_parent_is_killed(tmp_path):
    """The orphan guard: kill -9 of the parent is seen by the child as end of file."""
    code = (
        "import asyncio, sys\n"
        "from tenantry.platform.fleet.process import Child\n"
        "async def main():\n"
        "    c = await Child.start([sys.executable, '-c', 'import sys; sys.stdin.read()'], print)\n"
        "    print(c.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(*script(code), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    grandchild = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    assert psutil.pid_exists(grandchild)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("lines", [0, 1, 500])
async def test_every_line_a_child_prints_is_handled_before_wait_returns(lines: int):
    seen: list[str] = []
    child = await Child.start(script(f"for i in range({lines}): print(i)"), seen.append)
    assert await child.wait() == 0
    assert seen == [str(i) for i in range(lines)]
