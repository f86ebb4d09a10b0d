"""A real control group whose memory runs out: the engine in it notices, and steps back by itself."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.runtime.messages import Refused
from tenantry.runtime.pressure import GROUPS, PROC, Stage, _places, used_share

LIMIT = 96 << 20
FULL = 0.93
AT = 0.8  # what the engine is told

# Another process of the group, that takes memory until the group is as full as is asked, and keeps it.
BALLAST = """
import os, sys, time
group, used, wanted, kept = *sys.argv[1:3], float(sys.argv[3]), []
open(group, "w").write(str(os.getpid()))
while int(open(used).read()) < wanted:
    kept.append(b"x" * (1 << 20))
print("full", flush=True)
time.sleep(600)
"""


class Group:
    """place: of the group. names: of its files."""

    def __init__(self, place: Path, names: tuple[str, str, tuple[str, ...]]) -> None:
        self.place, self.members = place, place / "cgroup.procs"
        self.limit, self.used = place / names[0], place / names[1]

    def leave(self) -> None:
        """Whoever is left goes where it came from, and so does the group."""
        for pid in self.members.read_text().split():
            (self.place.parent / "cgroup.procs").write_text(pid)
        for _ in range(50):
            try:
                self.place.rmdir()
                return
            except OSError:
                time.sleep(0.1)  # who has ended is counted a little longer
        raise AssertionError("the group cannot be removed")


@pytest.fixture
def group() -> Iterator[Group]:
    if used_share() > AT - 0.1:
        pytest.skip("the machine itself has hardly any memory left")
    for place, names in _places(PROC, GROUPS):
        found = Group(place / f"tenantry-test-{os.getpid()}", names)
        try:
            found.place.mkdir()
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        try:
            found.limit.write_text(str(LIMIT))
        except OSError as error:
            found.place.rmdir()
            pytest.skip(f"a control group's memory cannot be limited here: {error}")
        yield found
        found.leave()
        return
    pytest.skip("this process is in no control group of memory")


async def until(worker, stage: Stage, at_least: bool) -> None:
    async with asyncio.timeout(120):
        while ((await worker.client.ping()).stats.memory_stage >= stage) is not at_least:
            await asyncio.sleep(0.1)


async def test_an_engine_whose_group_is_full_refuses_and_takes_requests_again_when_it_is_not(group, spawn, requests):
    worker = await spawn(memory_pressure=AT)
    group.members.write_text(str(worker.process.pid))
    stats = (await worker.client.ping()).stats
    assert stats.memory_stage == Stage.NONE
    arguments = str(group.members), str(group.used), str(FULL * LIMIT)
    ballast = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BALLAST, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert ballast.stdout is not None
        assert await ballast.stdout.readline() == b"full\n"
        await until(worker, Stage.REFUSE, True)
        event = await worker.client.generate(requests.make()).__anext__()
        assert isinstance(event, Refused)
        assert event.code == "overloaded"
        assert event.retry_ms > 0
    finally:
        ballast.kill()
        await ballast.wait()
    await until(worker, Stage.REFUSE, False)
    assert not isinstance(await worker.client.generate(requests.make()).__anext__(), Refused)
    assert worker.process.returncode is None, "it went on all the time"
