"""An engine around a model, in this process: without socket, store of journals, or anything else that is measured.

Owns how one is put together, for benchmarks that ask it themselves.
"""

from collections.abc import Sequence

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import ScheduleConfig
from tenantry.runtime.disagg.exchange import Exchange
from tenantry.runtime.engine import Engine, Runner
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.stops import StopWatch


class Silent:
    """A journal for nobody."""

    def append(self, records: Sequence[object]) -> None:
        pass


def engine_around(
    model: ModelRunner,
    schedule: ScheduleConfig,
    cache: KvCache,
    stops: StopWatch,
    adapter_bytes: int = 1 << 30,
    runner: Runner | None = None,
    speculator: Speculator | None = None,
    exchange: Exchange | None = None,
) -> Engine:
    """runner: what stands between the engine and the model, if anything does."""
    residency = Residency(Budget(adapter_bytes))
    scheduler = Scheduler(schedule, cache, residency, model.end_tokens, model.vocab_size)
    return Engine(scheduler, runner or model, Silent(), stops, model.footprint, speculator, exchange)
