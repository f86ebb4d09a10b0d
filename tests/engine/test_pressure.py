"""Host memory that runs out: what is kept goes first, then who waits, then who comes; who runs goes on."""

import asyncio
from collections import deque
from pathlib import Path

import pytest

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.tiers import Tiers
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.engine import Engine
from tenantry.runtime.errors import InvalidRequest
from tenantry.runtime.lifeline import Lifeline
from tenantry.runtime.messages import Events, Finished, Refused, Sampling, Submit, Tokens
from tenantry.runtime.pressure import FIRST_TO_GO, Pressure, Stage, used_share
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.testing import ScriptedRunner
from tenantry.runtime.text import TextModel
from tenantry.runtime.worker import Worker

# The stage


def stages(*readings: float, every: float = 1.0, limit: float = 0.9) -> list[Stage]:
    """One reading a second."""
    left = deque(readings)
    pressure = Pressure(limit, left.popleft)
    found = []
    for second in range(len(readings)):
        assert pressure.turn(second * every)
        found.append(pressure.stage)
    return found


def test_each_reading_at_the_limit_is_one_stage_more_and_each_below_it_one_less():
    assert stages(0.5, 0.9, 0.95, 0.99, 1.2, 0.89, 0.89, 0.89) == [0, 1, 2, 3, 3, 2, 1, 1]


def test_the_cache_comes_back_only_after_a_long_ease():
    assert stages(0.9, *[0.2] * 30)[-2:] == [1, 0], "30 s of it"
    assert stages(0.9, *[0.2] * 20, 0.86, *[0.2] * 29)[-1] == 1, "not so much below the limit begins it anew"


def test_readings_are_a_second_apart_and_there_are_none_without_a_limit():
    pressure = Pressure(0.9, lambda: 1.0)
    assert [pressure.turn(now / 4) for now in range(9)] == [True, *[False] * 3, True, *[False] * 3, True]
    assert stages(0.1, limit=0.9) == [0]
    never = Pressure(0.0, lambda: 1.0)
    assert not never.turn(0.0)
    assert never.stage == Stage.NONE


def test_a_limit_is_a_share():
    for wrong in (-0.1, 1.5):
        with pytest.raises(InvalidRequest, match="share"):
            EngineConfig(Path(), Path(), "", Path(), memory_pressure=wrong)


# The reading


def machine(path: Path, groups: str = "", total: int = 1000, available: int = 900) -> tuple[Path, Path]:
    (path / "proc" / "self").mkdir(parents=True)
    (path / "proc" / "meminfo").write_text(f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n")
    (path / "proc" / "self" / "cgroup").write_text(groups)
    return path / "proc", path / "groups"


def group(place: Path, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / names[0]).write_text(limit + "\n")
    (place / names[1]).write_text(f"{used}\n")
    (place / "memory.stat").write_text(stat)


SECOND, FIRST = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_the_tightest_limit_above_counts_without_file_pages(tmp_path):
    proc, groups = machine(tmp_path, "0::/tenantry/engine\n")
    group(groups / "tenantry" / "engine", SECOND, "max", 700, "anon 5\ninactive_file 100\nactive_file 0\n")
    group(groups / "tenantry", SECOND, "1000", 900, "anon 5\ninactive_file 100\nactive_file 50\n")
    assert used_share(proc, groups) == 0.75


def test_groups_of_the_first_kind_are_read_too(tmp_path):
    proc, groups = machine(tmp_path, "7:cpu,cpuacct:/a\n4:memory:/a\n0::/\n")
    group(groups / "memory" / "a", FIRST, "1000", 900, "inactive_file 1\ntotal_inactive_file 100\n")
    group(groups / "memory", FIRST, str(2**63 - 4096), 10**9, "total_inactive_file 0\n")
    assert used_share(proc, groups) == 0.8


def test_without_a_limit_it_is_what_the_machine_has_available(tmp_path):
    proc, groups = machine(tmp_path, "0::/\n", 1000, 250)
    assert used_share(proc, groups) == 0.75
    (proc / "self" / "cgroup").unlink()
    assert used_share(proc, groups) == 0.75
    (proc / "meminfo").write_text("nothing\n")
    assert used_share(proc, groups) == 0.0, "what cannot be read presses nobody"


def test_this_machine_can_be_read():
    assert 0.0 < used_share() < 1.5


# The engine


class Link:
    """The worker's end of a socket, without one."""

    def __init__(self) -> None:
        self.commands: deque[Submit] = deque()
        self.told: list = []

    def receive(self, timeout_ms):
        while self.commands:
            yield b"client", self.commands.popleft(), True

    def send(self, client, events: Events) -> bool:
        self.told += events.events
        return True


class Pressed:
    """A worker over a scripted engine with two running places and host memory, read as `used` at every turn."""

    def __init__(self, model: Path) -> None:
        schedule = ScheduleConfig(token_budget=64, max_running=2, max_context=512)
        self.cache = KvCache.alone(CacheConfig(pages=200))
        self.cache.below(Tiers(50))
        scheduler = Scheduler(schedule, self.cache, Residency(Budget(1)), (0,), 200)
        stops = StopWatch(TextModel.load(model))
        runner = ScriptedRunner(200, range(1, 100), (0,))
        engine = Engine(scheduler, runner, self, stops, lambda digest: NONE)
        self.used = 0.0
        pressure = Pressure(0.9, lambda: self.used, every_s=0.0, rest_s=0.0)
        self.link = Link()
        self.worker = Worker(engine, self.link, "epoch", Lifeline(), 0.0, pressure)

    def append(self, records) -> None:
        """No journal."""

    def submit(self, name: str, tenant: str = "t", tokens: int = 40) -> None:
        sampling = Sampling(max_tokens=tokens, temperature=0.0)
        prompt = tuple(range(1, 60))
        self.link.commands.append(Submit(name, prompt, sampling, tenant.encode().ljust(32), None, tenant))

    def turn(self, used: float) -> None:
        self.used = used
        self.worker._turn()

    def ended(self, kind) -> list[str]:
        return [event.request_id for event in self.link.told if isinstance(event, kind)]

    @property
    def host(self):
        return self.cache.tiers.counts()[0]

    @property
    def stats(self):
        return self.worker.snapshot.stats


def test_the_tier_goes_first_then_the_queue_then_who_comes_and_all_of_it_comes_back(byte_level_model: Path):
    pressed = Pressed(byte_level_model)
    pressed.submit("earlier", tokens=1)
    while not pressed.ended(Finished):
        pressed.turn(0.1)
    pressed.cache.tree.evict(100)
    pressed.turn(0.1)
    assert pressed.host.pages > 0
    for names, tenant in ((("runs-1", "runs-2"), "t"), (("waits-1", "waits-2", "waits-3"), "t"), (("alone",), "u")):
        for name in names:
            pressed.submit(name, tenant)
        pressed.turn(0.1)
    assert (pressed.stats.running, pressed.stats.waiting) == (2, 4)

    pressed.turn(0.95)
    assert (pressed.host.pages, pressed.stats.memory_stage) == (0, Stage.SHED_CACHE)
    assert pressed.host.shed > 0
    assert not pressed.ended(Refused)

    pressed.turn(0.95)
    assert pressed.ended(Refused) == ["waits-3", "waits-2"], "half, of who has most waiting, the newest first"

    pressed.turn(0.95)
    assert pressed.stats.memory_stage == Stage.REFUSE
    pressed.submit("late")
    pressed.turn(0.95)
    [late] = [event for event in pressed.link.told if isinstance(event, Refused) and event.request_id == "late"]
    assert (late.code, late.param) == ("overloaded", None)
    assert late.retry_ms >= 5000
    assert pressed.stats.refused_memory == len(pressed.ended(Refused))

    for _ in range(3):
        pressed.turn(0.1)
    assert pressed.stats.memory_stage == Stage.NONE
    pressed.submit("again")
    while not {"runs-1", "runs-2", "again"} <= set(pressed.ended(Finished)):
        assert pressed.worker._owner, "who ran went on"
        pressed.turn(0.1)
    assert {event.request_id for event in pressed.link.told if isinstance(event, Tokens)}.isdisjoint(
        pressed.ended(Refused)
    )
    pressed.cache.tree.evict(100)
    pressed.turn(0.1)
    assert pressed.host.pages > 0, "host memory keeps pages again"


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_an_engine_goes_before_others_when_memory_is_out(spawn):
    worker = await spawn()
    assert oom_score(worker.process.pid) >= FIRST_TO_GO


async def test_an_engine_without_memory_refuses_with_a_time_to_come_back(spawn, requests):
    """Through a real process: a limit that any machine is beyond."""
    worker = await spawn(memory_pressure=1e-6)
    async with asyncio.timeout(60):
        while (await worker.client.ping()).stats.memory_stage < Stage.REFUSE:
            await asyncio.sleep(0.1)
    generation = worker.client.generate(requests.make())
    event = await generation.__anext__()
    assert isinstance(event, Refused)
    assert event.code == "overloaded"
    assert event.retry_ms > 0
    assert '"memory_pressure"' in worker.log


def test_nobody_is_refused_while_it_gets_better(byte_level_model: Path):
    pressed = Pressed(byte_level_model)
    for n in range(6):
        pressed.submit(f"r{n}")
    for used in (0.1, 0.95, 0.95):
        pressed.turn(used)
    assert pressed.stats.memory_stage == Stage.SHED_QUEUE
    told = pressed.ended(Refused)
    pressed.turn(0.95)
    assert len(pressed.ended(Refused)) == len(told) + 1
    pressed.turn(0.1)
    assert pressed.stats.memory_stage == Stage.SHED_QUEUE
    assert len(pressed.ended(Refused)) == len(told) + 1
