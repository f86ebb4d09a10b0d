"""The engine tells the scheduler what steps took, guesses or none, and a hopeless request hears so at once."""

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import NONE, Budget
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.engine import Engine
from tenantry.runtime.messages import Finished, Refused, Sampling, Submit
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.testing import ScriptedRunner


class Journal:
    def append(self, records) -> None:
        pass


class Clock:
    """An engine whose steps take 0.1 s, as far as it can tell."""

    def __init__(self, **config) -> None:
        runner = ScriptedRunner(100, range(1, 90), step_s=1e-4)
        schedule = ScheduleConfig(**({"token_budget": 64, "max_running": 1, "max_context": 128} | config))
        cache = KvCache.alone(CacheConfig(4, 64))
        scheduler = Scheduler(schedule, cache, Residency(Budget(1)), (), 100)
        self.engine = Engine(scheduler, runner, Journal(), StopWatch(None), lambda digest: NONE)
        self.now, self.asked = 0.0, 0
        self.ended: list[Finished | Refused] = []

    def submit(self, tenant: str = "t", **fields) -> Refused | None:
        self.asked += 1
        sampling = Sampling(max_tokens=10, ignore_eos=True)
        submit = Submit(f"r{self.asked}", (5, 6, self.asked), sampling, tenant.encode() * 32, None, tenant, **fields)
        return self.engine.submit(submit, self.now)

    def step(self) -> None:
        self.ended += [e for e in self.engine.step(self.now) if isinstance(e, Finished | Refused)]
        self.now += 0.1


def test_step_times_are_learned_without_a_speculator():
    clock = Clock()
    for _ in range(4):
        clock.submit()
    while clock.engine.has_work:
        clock.step()
    times = clock.engine.stats().step_times
    assert times.measured == 39, "all but the last, which no step followed at once"
    assert 0.09 < times.step + times.row < 0.11
    assert times.error < 0.05


def test_a_hopeless_deadline_is_refused_with_the_time_to_come_back():
    clock = Clock()
    for _ in range(30):
        assert clock.submit(deadline=120.0) is None
    for _ in range(30):
        clock.step()
    refused = clock.submit(deadline=5.0)  # 27 wait, a second each
    assert (refused.code, refused.param) == ("too_many_waiting", "deadline")
    assert 20_000 < refused.retry_ms < 30_000
    assert clock.submit("u", deadline=5.0) is None, "who has nothing waiting is next"
    while clock.engine.has_work:
        clock.step()
    assert len(clock.ended) == 31
    assert all(isinstance(event, Finished) for event in clock.ended)
    assert clock.engine.stats().refused_early == 1
