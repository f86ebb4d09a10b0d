"""The engine in one process: the journal before anyone, blame for the culprit alone, loads that survive a failure."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tenantry.adapters.errors import BlobMissing
from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig, read_config, write_config
from tenantry.runtime.engine import Engine, EngineBroken
from tenantry.runtime.errors import InvalidRequest, MeteringUnavailable
from tenantry.runtime.journal import Closed, Counted, Opened, Record, highest
from tenantry.runtime.messages import Event, Finished, Refused, Sampling, Submit, Tokens, Usage
from tenantry.runtime.plan import StepPlan, StepResult
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.testing import Fault, ScriptedRunner
from tenantry.runtime.text import TextModel

VOCAB = 200
ADAPTERS = {bytes([n]) * 32: 100 for n in range(1, 4)}


class Memory:
    """A journal in memory that can refuse."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False

    def append(self, records: Sequence[Record]) -> None:
        if self.full:
            raise MeteringUnavailable(None, "full")
        self.records += records

    def usage(self, request_id: str) -> Usage:
        usage = Usage()
        for record in self.records:
            match record:
                case Counted() if request_id in record.usage:
                    later = record.usage[request_id]
                    assert highest(usage, later) == later, "counters fell"
                    usage = later
                case Closed(request_id=r) if r == request_id:
                    assert highest(usage, record.usage) == record.usage
                    usage = record.usage
                case _:
                    pass
        return usage


class World:
    """An engine, everything it told, and a clock."""

    def __init__(self, runner: ScriptedRunner, model: Path, adapter_bytes: int = 250) -> None:
        self.journal = Memory()
        schedule = ScheduleConfig(token_budget=64, max_running=16, max_context=512)
        cache = KvCache.alone(CacheConfig(pages=200))
        scheduler = Scheduler(schedule, cache, Residency(Budget(adapter_bytes)), (0,), VOCAB)
        self.scheduler = scheduler
        self.engine = Engine(scheduler, runner, self.journal, StopWatch(TextModel.load(model)), self.footprint)
        self.events: list[Event] = []
        self.now = 0.0

    def footprint(self, digest: bytes) -> Footprint:
        if digest not in ADAPTERS:
            raise BlobMissing("no such blob")
        return Footprint((ADAPTERS[digest],))

    def submit(self, request_id: str, length: int = 20, **options) -> Refused | None:
        fault = options.pop("fault", None)
        rng = random.Random(request_id)
        prompt = [rng.randrange(1, 100) for _ in range(length)] + ([VOCAB - fault] if fault else [])
        adapter, deadline = options.pop("adapter", None), options.pop("deadline", 0.0)
        sampling = Sampling(**{"max_tokens": 10, "temperature": 0.0, **options})
        submit = Submit(request_id, tuple(prompt), sampling, bytes(32), adapter, "t", request_id.encode(), deadline)
        if adapter is not None:
            submit = Submit(request_id, tuple(prompt), sampling, adapter, adapter, "t", request_id.encode(), deadline)
        return self.engine.submit(submit, self.now)

    def step(self) -> list[Event]:
        self.now += 1
        events = self.engine.step(self.now)
        told: dict[str, int] = {}
        for event in self.events + events:
            if isinstance(event, Tokens):
                told[event.request_id] = told.get(event.request_id, 0) + len(event.tokens)
        for request_id, tokens in told.items():
            assert self.journal.usage(request_id).completion >= tokens, "told before it was written"
        self.events += events
        self.scheduler.check()
        return events

    def run(self) -> None:
        for _ in range(2000):
            if not self.engine.has_work:
                return
            self.step()
        raise AssertionError("never done")

    def tokens(self, request_id: str) -> list[int]:
        return [t for e in self.events if isinstance(e, Tokens) and e.request_id == request_id for t in e.tokens]

    def end(self, request_id: str) -> Finished | Refused:
        (last,) = [e for e in self.events if isinstance(e, Finished | Refused) and e.request_id == request_id]
        return last


def scripted(**options) -> ScriptedRunner:
    return ScriptedRunner(VOCAB, range(1, 100), (0,), **options)


@pytest.fixture
def world(byte_level_model: Path):
    return lambda runner=None, **options: World(runner or scripted(faults=True), byte_level_model, **options)


def test_counts_are_written_before_tokens_are_told(world):
    w = world()
    for n in range(20):
        assert w.submit(f"r{n}", n=1 + n % 3, adapter=[None, *ADAPTERS][n % 4]) is None
    w.run()
    for n in range(20):
        end = w.end(f"r{n}")
        assert end.usage == w.journal.usage(f"r{n}")
        assert end.usage.completion == len(w.tokens(f"r{n}")) == 10 * (1 + n % 3)
    kinds = [(type(r), r.request_id) for r in w.journal.records if not isinstance(r, Counted)]
    for n in range(20):
        assert [k for k, r in kinds if r == f"r{n}"] == [Opened, Closed]


def test_what_is_refused_late_was_opened_and_is_closed_with_nothing(world):
    w = world()
    assert w.submit("far", deadline=0.5) is None
    w.now = 1.0
    w.run()
    assert isinstance(w.end("far"), Refused)
    assert w.journal.records == [Opened("far", b"far"), Closed("far", Usage(), "refused")]


def test_a_journal_that_refuses_stops_the_step_before_anything_is_told(world):
    w = world()
    w.submit("a")
    w.journal.full = True
    with pytest.raises(MeteringUnavailable):
        while not w.step():
            pass
    assert w.events == []


def test_a_missing_adapter_is_refused_by_name(world):
    w = world()
    assert w.submit("a", adapter=b"\x99" * 32).code == "adapter_unavailable"
    assert w.submit("b", adapter=b"short").code == "adapter_unavailable"
    assert not w.engine.has_work
    assert w.journal.records == []


@pytest.mark.parametrize("culprits", [(3,), (0, 7), (0, 1, 2, 3, 4, 5, 6, 7)])
def test_blame_falls_on_the_culprits_alone(world, culprits):
    w, healthy = world(), world()
    for n in range(8):
        w.submit(f"r{n}", fault=Fault.RAISE if n in culprits else None)
        healthy.submit(f"r{n}")
    w.run()
    healthy.run()
    for n in range(8):
        if n in culprits:
            assert (w.end(f"r{n}").reason, w.tokens(f"r{n}")) == ("error", [])
        else:
            assert w.tokens(f"r{n}") == healthy.tokens(f"r{n}")


def test_one_culprit_among_many_costs_few_runs(world):
    runner = scripted(faults=True)
    w = world(runner)
    for n in range(16):
        w.submit(f"r{n}", length=2, fault=Fault.RAISE if n == 9 else None)
    w.step()
    assert runner.runs <= 1 + 2 * 4 + 1, "two halves on each of four levels, and the probe"


class Sick(ScriptedRunner):
    """Fails for good from some run on."""

    def __init__(self, healthy_runs: int, when=lambda plan: True) -> None:
        super().__init__(VOCAB, range(1, 100), (0,))
        self._healthy, self._when = healthy_runs, when

    def run(self, plan: StepPlan) -> StepResult:
        if self._healthy <= 0 and self._when(plan):
            raise RuntimeError("device lost")
        self._healthy -= 1
        return super().run(plan)


def test_a_model_that_fails_on_anything_is_broken(world):
    w = world(Sick(5))
    w.submit("a")
    w.submit("b")
    with pytest.raises(EngineBroken):
        w.run()


def test_a_step_too_large_for_the_device_is_cut_up_and_nobody_ends(world):
    w, healthy = world(Sick(0, when=lambda plan: len(plan.rows) > 2)), world()
    for n in range(8):
        w.submit(f"r{n}")
        healthy.submit(f"r{n}")
    w.run()
    healthy.run()
    assert [w.tokens(f"r{n}") for n in range(8)] == [healthy.tokens(f"r{n}") for n in range(8)]


def test_failed_loading_is_not_blamed_on_rows(world):
    w = world(Sick(0, when=lambda plan: bool(plan.load)))
    w.submit("a", adapter=next(iter(ADAPTERS)))
    with pytest.raises(EngineBroken):
        w.run()


def test_adapters_take_turns_in_less_memory_than_they_need_while_requests_fail(world):
    w = world(adapter_bytes=200)
    for n in range(30):
        w.submit(f"r{n}", adapter=list(ADAPTERS)[n % 3], fault=Fault.RAISE if n % 5 == 0 else None)
    w.run()
    for n in range(30):
        assert w.end(f"r{n}").reason == ("error" if n % 5 == 0 else "length")


def test_an_abort_is_told_by_the_next_step_even_if_nothing_else_runs(world):
    w = world()
    w.submit("a", max_tokens=100)
    w.step()
    w.engine.abort("a", w.now)
    (event,) = w.step()
    assert (event.reason, event.usage.completion) == ("abort", 1)
    assert not w.engine.has_work
    w.engine.abort("unknown", w.now)


def test_the_end_token_ends_and_min_tokens_forbids_it(world):
    w = world()
    w.submit("end", fault=Fault.END)
    w.submit("later", fault=Fault.END, min_tokens=4)
    w.run()
    assert (w.end("end").reason, w.tokens("end")) == ("stop", [0])
    assert len(w.tokens("later")) == 5
    assert w.tokens("later")[-1] == 0


def test_the_configuration_survives_its_json_and_refuses_what_it_does_not_know(tmp_path: Path):
    config = EngineConfig(tmp_path, tmp_path / "a", "ipc:///x", tmp_path / "j", cache=CacheConfig(8, 9), drain_s=1.5)
    file = tmp_path / "c.json"
    write_config(config, file)
    assert read_config(file) == config
    for old, new, field in [
        ('"pages"', '"leaves"', "cache.leaves"),
        ('"dtype"', '"type"', "type"),
        ('"socket":"', '"socket":1,"x":"', "x"),
        ('"drain_s":1.5', '"drain_s":"long"', "config"),
        ('"runner":"model"', '"runner":"pickle"', "config"),
    ]:
        broken = tmp_path / "broken.json"
        broken.write_text(file.read_text().replace(old, new))
        with pytest.raises(InvalidRequest) as refused:
            read_config(broken)
        assert refused.value.param == field
    with pytest.raises(InvalidRequest):
        read_config(tmp_path / "absent.json")
