"""The engine's process: `python -m tenantry.runtime.worker CONFIG.json`.

Owns the loop: take commands, step, tell. It knows which client asked for which request and nothing of what is in
them. Standard output carries JSON lines for the supervisor ({"event": "progress" | "ready", …}), standard error the
log. Exit status: 0 drained, 1 failed, 2 not startable, 3 the journal cannot be written.
"""

import gc
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog

from tenantry.adapters.errors import AdapterError
from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.adapters.store import LocalStore
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.memory import share
from tenantry.runtime.config import EngineConfig, read_config
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.disagg.transport import SharedMemory
from tenantry.runtime.engine import Engine, EngineBroken, whereabouts
from tenantry.runtime.errors import (
    EngineUnavailable,
    InvalidRequest,
    MeteringUnavailable,
    RuntimeRefusal,
    UnusableModel,
)
from tenantry.runtime.journal import JournalWriter
from tenantry.runtime.lifeline import Lifeline
from tenantry.runtime.link import Client, Heartbeat, ServerLink
from tenantry.runtime.messages import (
    CLIENT_LEASE_S,
    Abort,
    AskGuesses,
    Command,
    Compute,
    DropAdapter,
    DropNamespace,
    DropSession,
    DropTenant,
    Event,
    Events,
    Finished,
    Guesses,
    HandedOver,
    KeepSession,
    Ping,
    Pong,
    Refused,
    Release,
    Submit,
    Take,
    WarmAdapter,
)
from tenantry.runtime.model.errors import ModelError
from tenantry.runtime.pressure import Pressure, go_first, used_share
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.options import parse
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.testing import PAGE_BYTES, PAGE_FORMAT, ScriptedRunner
from tenantry.runtime.text import TextModel

log = structlog.get_logger("worker")

EXIT_FAILED: Final = 1
EXIT_UNSTARTABLE: Final = 2
EXIT_METERING: Final = 3
IDLE_MS: Final = 100
LOADING_MS: Final = 2
REFUSING_S: Final = 0.5


class Worker:
    """One engine, one socket, many clients."""

    def __init__(
        self, engine: Engine, link: ServerLink, epoch: str, lifeline: Lifeline, drain_s: float, pressure: Pressure
    ) -> None:
        self._engine, self._link, self._epoch = engine, link, epoch
        self._lifeline, self._drain_s = lifeline, drain_s
        self._pressure = pressure
        self._owner: dict[str, Client] = {}  # of every open request
        self._heard: dict[Client, float] = {}
        self._step_seconds = 0.0
        self.snapshot = self._pong()  # replaced as a whole, never changed: the heartbeat reads it from its thread

    def serve(self) -> int:
        """Until drained (0), or until the journal refuses (3). Raises EngineBroken."""
        try:
            while not self._drained():
                self._turn()
            self._abort_all()
        except MeteringUnavailable as error:
            log.error("metering_unavailable", why=error.message, open_requests=len(self._owner))
            self._refuse_for_a_while(error)
            return EXIT_METERING
        return 0

    def _turn(self) -> None:
        """Commands first, so that an abort is heard before the next step; then one step."""
        for client, command, current in self._link.receive(self._patience_ms()):
            self._heard[client] = time.monotonic()
            self._obey(client, command, current)
        now = time.monotonic()
        self._expire_leases(now)
        self._step_back(now)
        events = self._engine.step(now)
        self._step_seconds += time.monotonic() - now
        self._tell(events)
        self.snapshot = self._pong()

    def _step_back(self, now: float) -> None:
        """Every second: as far as the memory that is left asks for."""
        pressure, before = self._pressure, self._pressure.stage
        if not pressure.turn(now):
            return
        self._engine.step_back(pressure.stage)
        if pressure.stage != before:
            log.warning("memory_pressure", stage=pressure.stage.name.lower(), used=round(pressure.used, 3))

    def _patience_ms(self) -> int:
        """How long commands may be waited for: not at all while tokens are coming."""
        if self._engine.computing:
            return 0
        return LOADING_MS if self._engine.has_work else IDLE_MS

    def _obey(self, client: Client, command: Command, current: bool) -> None:
        match command:
            case Submit():
                self._submit(client, command, current)
            case Abort() if self._owner.get(command.request_id) == client:
                self._engine.abort(command.request_id, time.monotonic())
            case Ping():
                self._link.send(client, Events((self._pong(),)))
            case WarmAdapter() if current:
                try:
                    self._engine.warm(command.digest)
                except (AdapterError, ValueError) as error:
                    log.warning("adapter_not_warmed", digest=command.digest.hex(), kind=type(error).__name__)
            case DropAdapter() if current:
                self._engine.drop(command.digest)
            case KeepSession() if current:
                self._engine.keep_session(command.session, command.keep_s, command.pin, time.monotonic())
            case DropSession() if current:
                self._engine.drop_session(command.session)
            case DropTenant() if current:
                self._engine.drop_tenant(command.tenant, command.abort)
            case DropNamespace() if current:
                self._engine.drop_namespace(command.namespace, command.abort)
            case Take() if self._owner.get(command.request_id) == client:
                self._engine.take(command.request_id, command.hand_off)
            case Compute() if self._owner.get(command.request_id) == client:
                self._engine.compute(command.request_id)
            case Release() if current:
                self._engine.release(command.request_id)
            case AskGuesses():
                self._link.send(client, Events((Guesses(command.ask, self._engine.guesses()),)))
            case _:  # an abort of what has ended or is another's, or a command meant for an earlier life
                pass

    def _submit(self, client: Client, submit: Submit, current: bool) -> None:
        if self._lifeline.draining or not current:
            why = "the engine is shutting down" if current else "the engine was restarted"
            answer: Refused | None = _refused(submit.request_id, EngineUnavailable(None, why))
        elif submit.request_id in self._owner:  # until its end was told, which is after the scheduler forgot it
            answer = _refused(submit.request_id, InvalidRequest("request_id", "a request of this id is running"))
        else:
            answer = self._engine.submit(submit, time.monotonic())
        if answer is None:
            self._owner[submit.request_id] = client
        else:
            self._link.send(client, Events((answer,)))

    def _tell(self, events: Sequence[Event]) -> None:
        """One frame per client. A client that is gone or does not read has its requests aborted."""
        frames: defaultdict[Client, list[Event]] = defaultdict(list)
        for event in events:
            if isinstance(event, Pong | Guesses):
                continue
            ended = isinstance(event, Finished | Refused | HandedOver)
            client = self._owner.pop(event.request_id) if ended else self._owner[event.request_id]
            frames[client].append(event)
        for client, told in frames.items():
            if not self._link.send(client, Events(tuple(told))):
                self._give_up(client, "unreachable")

    def _expire_leases(self, now: float) -> None:
        for client in [c for c, heard in self._heard.items() if now - heard > CLIENT_LEASE_S]:
            self._give_up(client, "silent")

    def _give_up(self, client: Client, why: str) -> None:
        self._heard.pop(client, None)
        requests = [request_id for request_id, owner in self._owner.items() if owner == client]
        for request_id in requests:
            self._engine.abort(request_id, time.monotonic())
        if requests:
            log.warning("client_given_up", why=why, requests=len(requests))

    def _pong(self) -> Pong:
        stats, memory = self._engine.stats(), self._pressure
        stats = msgspec.structs.replace(
            stats, step_seconds=self._step_seconds, memory_used=memory.used, memory_limit=memory.limit
        )
        return Pong(self._epoch, stats.steps, not self._lifeline.draining, stats)

    def _drained(self) -> bool:
        life = self._lifeline
        if life.ending or (life.draining and not self._owner):
            return True
        return life.draining_since is not None and time.monotonic() - life.draining_since > self._drain_s

    def _abort_all(self) -> None:
        """What is still open ends as aborted, in the journal and for its clients."""
        for request_id in list(self._owner):
            self._engine.abort(request_id, time.monotonic())
        while self._owner:
            self._tell(self._engine.step(time.monotonic()))

    def _refuse_for_a_while(self, refusal: RuntimeRefusal) -> None:
        """New requests hear why; running ones are over: nothing of them may be told that is not written down."""
        until = time.monotonic() + REFUSING_S
        while time.monotonic() < until:
            for client, command, _ in self._link.receive(IDLE_MS):
                if isinstance(command, Submit):
                    self._link.send(client, Events((_refused(command.request_id, refusal),)))


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    _log_to_stderr()
    if len(argv) != 2:
        log.error("usage", usage="python -m tenantry.runtime.worker CONFIG.json")
        return EXIT_UNSTARTABLE
    lifeline = Lifeline()
    lifeline.hold()
    try:
        go_first()
    except (OSError, ValueError) as error:  # a system that has no such order, or keeps it to itself
        log.warning("oom_order_not_set", kind=type(error).__name__)
    try:
        config = read_config(Path(argv[1]))
        epoch = f"{time.time_ns():016x}{uuid4().hex[:8]}"
        journal = JournalWriter(config.journal_dir, epoch)
        memory = _memory(config, epoch)
        engine = _engine(config, journal, memory)
        link = ServerLink(config.socket, epoch)
    except (RuntimeRefusal, UnusableModel, ModelError, AdapterError, OSError) as error:
        log.error("engine_not_startable", kind=type(error).__name__, why=str(error))
        return EXIT_UNSTARTABLE
    gc.collect()
    gc.freeze()  # what was loaded lives as long as the process: no collection walks it again
    pressure = Pressure(config.memory_pressure, used_share)
    worker = Worker(engine, link, epoch, lifeline, config.drain_s, pressure)
    heartbeat = Heartbeat(config.socket, epoch, lambda: worker.snapshot)
    _report("ready", epoch=epoch)
    try:
        status = worker.serve()
        if status == 0:
            journal.close()
        return status
    except EngineBroken as error:
        log.error("engine_broken", why=str(error))
        return EXIT_FAILED
    except Exception as error:  # a bug of ours: said in one line, without the message, which may quote tokens
        log.error("engine_failed", kind=type(error).__name__, where=whereabouts(error))
        return EXIT_FAILED
    finally:
        heartbeat.close()
        link.close()
        if memory is not None:
            memory.close()


def _memory(config: EngineConfig, epoch: str) -> SharedMemory | None:
    """Where prompts are handed over, after what earlier lives left there is gone."""
    return None if config.hand_off_dir is None else SharedMemory(config.hand_off_dir, config.name, epoch)


def _exchange(
    config: EngineConfig, memory: SharedMemory | None, cache: KvCache, page_bytes: int, page_format: str
) -> Exchange | None:
    if memory is None:
        return None
    outbox = Outbox(memory, cache.page_size, page_bytes, page_format, config.hand_off_s)
    return Exchange(outbox, Intake(cache, memory, page_format, page_bytes, config.hand_off_s))


def _engine(config: EngineConfig, journal: JournalWriter, memory: SharedMemory | None) -> Engine:
    text = TextModel.load(config.model_dir)
    if config.runner != "model":
        return _scripted(config, text, journal, memory)
    # Only here: a scripted worker starts in a fraction of the time that torch takes to be imported.
    from tenantry.runtime.model.lora import share_interpreter
    from tenantry.runtime.model.runner import ModelRunner

    share_interpreter()
    runner = ModelRunner(config, lambda what, done, total: _report("progress", what=what, done=done, total=total))
    cache, residency = share(config, runner.block_bytes)
    cache.share(config.cache.tenant_min, config.cache.tenant_max)
    if runner.tiers is not None and runner.tiers.host.slots:
        cache.below(runner.tiers.books())
        if runner.tiers.problem is not None:
            log.warning("kv_disk_not_used", why=runner.tiers.problem)
    scheduler = Scheduler(config.schedule, cache, residency, runner.end_tokens, runner.vocab_size)
    exchange = _exchange(config, memory, cache, runner.pages.size, runner.pages.format)
    return Engine(scheduler, runner, journal, StopWatch(text), runner.footprint, _speculator(config), exchange)


def _speculator(config: EngineConfig) -> Speculator | None:
    speculation = parse(config.speculate, config.speculate_depth)
    return Speculator(speculation.ngram, speculation.model, speculation.depth) if speculation.on else None


def _scripted(config: EngineConfig, text: TextModel, journal: JournalWriter, memory: SharedMemory | None) -> Engine:
    """No model: adapters are as large as their files, and there is no memory that could be shared."""
    words = [i for i in range(text.vocab_size) if i not in text.control]
    ends = tuple(sorted(text.control))
    faults = config.runner == "scripted-faults"
    runner = ScriptedRunner(text.vocab_size, words, ends, config.step_s, faults)
    cache, residency = KvCache.alone(config.cache), Residency(Budget(config.adapter_bytes))
    scheduler = Scheduler(config.schedule, cache, residency, ends, text.vocab_size)
    store = LocalStore(config.adapter_dir)
    stops, footprint = StopWatch(text), lambda digest: Footprint((store.size(digest),))
    exchange = _exchange(config, memory, cache, PAGE_BYTES, PAGE_FORMAT)
    return Engine(scheduler, runner, journal, stops, footprint, _speculator(config), exchange)


def _refused(request_id: str, refusal: RuntimeRefusal) -> Refused:
    return Refused(request_id, refusal.code, refusal.message, refusal.param)


def _report(event: str, **fields: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode({"event": event, **fields}) + b"\n")
    sys.stdout.buffer.flush()


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
