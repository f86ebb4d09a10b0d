"""Two engines in this process, as a prefill and a decode engine, and who carries hand-overs between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.platform.testing import tiny_text_model
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.disagg.transport import SharedMemory
from tenantry.runtime.engine import Engine
from tenantry.runtime.journal import Record
from tenantry.runtime.messages import Event, Finished, HandedOver, Refused, Sampling, Submit, Tokens
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.testing import PAGE_BYTES, PAGE_FORMAT, ScriptedRunner

SIZE = 4
TEXT = tiny_text_model()
WORDS = [i for i in range(97, 123) if i not in TEXT.control]


@dataclass
class Records:
    kept: list[Record] = field(default_factory=list)

    def append(self, records: Any) -> None:
        self.kept += records


class Side:
    """One engine with its books in sight."""

    def __init__(self, folder: Path, name: str, epoch: str, pages: int = 256, exchange: bool = True) -> None:
        self.cache = KvCache.alone(CacheConfig(SIZE, pages))
        config = ScheduleConfig(token_budget=32, max_running=8, max_context=200)
        end = (sorted(TEXT.control)[0],)
        self.runner = ScriptedRunner(TEXT.vocab_size, WORDS, end)
        self.scheduler = Scheduler(config, self.cache, Residency(Budget(1 << 20)), end, TEXT.vocab_size)
        self.memory = SharedMemory(folder, name, epoch)
        self.journal = Records()
        self.exchange = Exchange(
            Outbox(self.memory, SIZE, PAGE_BYTES, PAGE_FORMAT, keep_s=10.0),
            Intake(self.cache, self.memory, PAGE_FORMAT, PAGE_BYTES, wait_s=10.0),
        )
        self.engine = Engine(
            self.scheduler, self.runner, self.journal, StopWatch(TEXT), lambda digest: Footprint((100,)),
            exchange=self.exchange if exchange else None,
        )  # fmt: skip

    def left(self) -> list[str]:
        """Segments that exist."""
        own = self.memory._folder / self.memory._prefix.split("/")[0]
        return sorted(path.name for path in own.iterdir())

    def idle(self) -> None:
        """Nothing is held for anyone."""
        assert not self.engine.has_work
        assert self.cache.tree.pinned == 0
        assert self.cache.arena.free_count + self.cache.tree.nodes == self.cache.arena.blocks
        self.scheduler.check()


class Pair:
    """What a router does, by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.p, self.d = Side(folder, "prefill-0", "e1"), Side(folder, "decode-1", "e1")
        self.now = 0.0
        self.told: dict[str, list[Event]] = {}
        self.handed: dict[str, HandedOver] = {}
        self.carries = True

    def prefill_restarts(self) -> None:
        """After a death in which nothing was closed."""
        self.p = Side(self.folder, "prefill-0", "e2")

    def submit(self, submit: Submit) -> None:
        assert self.d.engine.submit(msgspec.structs.replace(submit, expect=True), self.now) is None
        refused = self.p.engine.submit(msgspec.structs.replace(submit, hand_off=True), self.now)
        if refused is not None:
            self.d.engine.compute(submit.request_id)

    def turn(self) -> None:
        self.now += 0.01
        for event in self.p.engine.step(self.now):
            if isinstance(event, HandedOver):
                self.handed[event.request_id] = event
                if self.carries:
                    self.d.engine.take(event.request_id, event.hand_off)
            else:
                assert isinstance(event, Finished | Refused), "the prefill side tells no tokens"
                self.d.engine.compute(event.request_id)
        for event in self.d.engine.step(self.now):
            assert not isinstance(event, HandedOver)
            self.told.setdefault(event.request_id, []).append(event)
            self.p.engine.release(event.request_id)

    def run(self) -> None:
        for _ in range(5000):
            if not (self.p.engine.has_work or self.d.engine.has_work):
                return
            self.turn()
        raise AssertionError("it does not end")

    def tokens(self, request_id: str) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for event in self.told[request_id]:
            if isinstance(event, Tokens):
                found.setdefault(event.choice, []).extend(event.tokens)
        return found


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path / "shared")
    yield pair
    pair.p.memory.close()
    pair.d.memory.close()


@pytest.fixture
def make() -> Callable[..., Submit]:
    def make(request_id: str, prompt: str = "the quick brown fox jumps over it", **options: Any) -> Submit:
        namespace = options.pop("namespace", bytes(32))
        adapter = options.pop("adapter", None)
        sampling = Sampling(**{"max_tokens": 12, "temperature": 0.0, **options})
        return Submit(request_id, tuple(TEXT.encode(prompt)), sampling, namespace, adapter, "t", b"receipt")

    return make


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[Submit], tuple[dict[int, list[int]], list[Event]]]:
    """The same request on one engine that knows no other."""

    def run(submit: Submit) -> tuple[dict[int, list[int]], list[Event]]:
        side = Side(tmp_path / "alone", "engine", "e1", exchange=False)
        assert side.engine.submit(submit, 0.0) is None
        events: list[Event] = []
        while side.engine.has_work:
            events += side.engine.step(0.0)
        side.memory.close()
        tokens: dict[int, list[int]] = {}
        for event in events:
            if isinstance(event, Tokens):
                tokens.setdefault(event.choice, []).extend(event.tokens)
        return tokens, events

    return run
