"""Counters since the engine started, and the snapshot that health, metrics and the console read.

Owns no state of the scheduler but these few numbers. It must not know how they came about.
"""

from collections import Counter
from dataclasses import dataclass

from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.counts import Stats
from tenantry.runtime.scheduler.claims import Claims
from tenantry.runtime.scheduler.fairness import Ledger
from tenantry.runtime.scheduler.sequences import Sequences
from tenantry.runtime.scheduler.steptime import StepTimeModel
from tenantry.runtime.scheduler.waiting import WaitingQueue


@dataclass(slots=True)
class Totals:
    """prompt, cached and completion are the sums of all requests' usage, whether they have ended or not."""

    steps: int = 0
    prompt: int = 0
    cached: int = 0
    cached_host: int = 0
    cached_disk: int = 0
    completion: int = 0
    drafted: int = 0
    accepted: int = 0
    refused_early: int = 0
    refused_memory: int = 0

    def stats(
        self,
        cache: KvCache,
        waiting: WaitingQueue,
        sequences: Sequences,
        claims: Claims,
        times: StepTimeModel,
        ledger: Ledger,
    ) -> Stats:
        """Preempted sequences and further choices are added to those that wait."""
        block, idle = cache.block_bytes, claims.bytes_idle
        ready = Counter(sequence.request.tenant for sequence in sequences.ready)
        unused = 0 if cache.shared else claims.bytes_limit - claims.bytes_used
        return Stats(
            steps=self.steps,
            running=len(sequences.running),
            waiting=len(waiting) + len(sequences.ready),
            pages_total=cache.arena.blocks - cache.arena.adapter_blocks,
            pages_free=cache.arena.free_count,
            pages_cached=cache.tree.nodes,
            prompt_tokens=self.prompt,
            cached_tokens=self.cached,
            cached_host=self.cached_host,
            cached_disk=self.cached_disk,
            completion_tokens=self.completion,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            preemptions=sequences.preemptions,
            adapter_bytes=claims.bytes_used,
            adapter_bytes_limit=claims.bytes_limit,
            kv_live_bytes=cache.live * block,
            kv_cached_bytes=cache.tree.evictable * block,
            adapter_live_bytes=claims.bytes_used - idle,
            adapter_idle_bytes=idle,
            free_bytes=cache.arena.free_count * block + unused,
            adapters=claims.states(),
            tenants_waiting=len({*waiting.tenants, *ready}),
            refused_early=self.refused_early,
            refused_memory=self.refused_memory,
            yielded=sequences.yielded,
            tenants=ledger.told(ready),
            pages_evicted=cache.tree.evicted,
            adapters_evicted=claims.evicted,
            step_times=times.report(),
            tiers=cache.tiers.counts() if cache.tiers is not None else (),
        )
