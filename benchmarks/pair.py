"""A prefill and a decode engine over one model in this process, each with a pool of its own, and who carries between.

Owns what a router and two workers do for a hand-off, without sockets: which prompts are computed elsewhere, and the
way of the word that they were. Pages go through shared memory, as between processes.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.engines import engine_around
from benchmarks.lives import Told
from tenantry.platform.fleet.router import WORTH_TOKENS
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import EngineConfig
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.disagg.intake import Intake
from tenantry.runtime.disagg.outbox import Outbox
from tenantry.runtime.disagg.transport import SharedMemory
from tenantry.runtime.messages import Event, Finished, HandedOver, Refused, Submit, Tokens
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.text import TextModel

PATIENCE_S = 120.0  # a machine that is busy with something else is not an engine that died


class _Side:
    def __init__(self, name: str, config: EngineConfig, runner: ModelRunner, shared: Path) -> None:
        self.runner, self.cache = runner, KvCache.alone(config.cache, runner.block_bytes)
        self.memory = SharedMemory(shared, name, "e1")
        pages = runner.pages
        outbox = Outbox(self.memory, self.cache.page_size, pages.size, pages.format, PATIENCE_S)
        intake = Intake(self.cache, self.memory, pages.format, pages.size, PATIENCE_S)
        self.engine = engine_around(
            runner, config.schedule, self.cache, StopWatch(TextModel.load(config.model_dir)), config.adapter_bytes,
            exchange=Exchange(outbox, intake),
        )  # fmt: skip

    def known(self, submit: Submit) -> int:
        """Tokens of its prompt that the device has."""
        lease = self.cache.lease(submit.namespace, submit.prompt, submit.adapter, submit.tenant)
        self.cache.rollback(lease)
        return lease.matched


class Pair:
    """Neither runner has tiers. taken: requests whose prompt was computed by one engine and decoded by the other."""

    def __init__(self, config: EngineConfig, prefill: ModelRunner, decode: ModelRunner, shared: Path) -> None:
        self._prefill, self._decode = (
            _Side("prefill", config, prefill, shared),
            _Side("decode", config, decode, shared),
        )
        self._told: dict[str, Told] = {}

    @property
    def taken(self) -> int:
        return self._decode.engine.stats().hand_offs.taken

    def ask(self, submits: Sequence[Submit]) -> list[Told]:
        """All at once."""
        for submit in submits:
            self._told[submit.request_id] = Told()
            self._submit(submit)
        while self._prefill.engine.has_work or self._decode.engine.has_work:
            self._turn()
        return [self._told.pop(submit.request_id) for submit in submits]

    def forget(self) -> None:
        """The decode engine's device lets go of everything; the other's keeps what it has."""
        cache = self._decode.cache
        cache.tree.evict(cache.arena.blocks)

    def close(self) -> None:
        for side in (self._prefill, self._decode):
            side.memory.close()

    def _submit(self, submit: Submit) -> None:
        """By the router's rule."""
        now = time.monotonic()
        worth = len(submit.prompt) - self._decode.known(submit) >= WORTH_TOKENS
        refused = self._decode.engine.submit(msgspec.structs.replace(submit, expect=worth), now)
        if refused is None and worth:
            refused = self._prefill.engine.submit(msgspec.structs.replace(submit, hand_off=True), now)
        if refused is not None:
            raise RuntimeError(refused.message)

    def _turn(self) -> None:
        for event in self._prefill.engine.step(time.monotonic()):
            if isinstance(event, HandedOver):
                self._decode.engine.take(event.request_id, event.hand_off)
            elif isinstance(event, Finished | Refused):
                self._decode.engine.compute(event.request_id)
        for event in self._decode.engine.step(time.monotonic()):
            self._hear(event)
        if not (self._prefill.engine.computing or self._decode.engine.computing):
            time.sleep(0.0005)  # as the worker does while it waits for threads

    def _hear(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self._told[event.request_id].tokens += event.tokens
        elif isinstance(event, Finished):
            self._told[event.request_id].usage = event.usage
            self._prefill.engine.release(event.request_id)
        elif isinstance(event, Refused):
            raise RuntimeError(event.message)
