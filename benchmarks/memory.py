"""W7, the swap cliff: throughput while the adapters in use are 0.5 to 8 times as many as their side of memory holds.

`python -m benchmarks.memory [--model DIR] [--held N] [--requests N]`. Scheduler and model in one process, no socket;
rank-8 adapters of noise on all projections, drawn alike by eight requests at a time. One memory of KV and adapters
beside a fixed split of the same bytes, alternating; the ratio to the smallest working set is what to read.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

import numpy as np

from tenantry.adapters.manifest import MODULES, BaseSpec, ModuleEntry
from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget
from tenantry.adapters.store import LocalStore
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.memory import Memory
from tenantry.runtime.config import (
    COMPUTE_TOKENS_S,
    LOAD_BYTES_S,
    ArenaConfig,
    CacheConfig,
    EngineConfig,
    ScheduleConfig,
)
from tenantry.runtime.messages import Sampling, Submit
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.scheduler.scheduler import Scheduler

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo" / "model"
MULTIPLES = (0.5, 1, 2, 4, 8)
RANK, RUNNING, PROMPT, ANSWER = 8, 8, 64, 32


@dataclass(frozen=True)
class Point:
    """tokens: generated per second. per_step: and per step, which no other load on the machine disturbs. loads:
    adapters loaded. steady: share of steps in which everyone who decodes moved on."""

    multiple: float
    memory: str
    tokens: float
    per_step: float
    loads: int
    steady: float


def adapters(runner: ModelRunner, store: LocalStore, count: int) -> list[bytes]:
    """Rank-8 adapters of noise, as canonical blobs."""
    shape, rng = runner.model_config, np.random.default_rng(0)
    spec = BaseSpec(
        "llama", shape.layers, shape.hidden, shape.intermediate, shape.heads, shape.kv_heads, shape.head_dim,
        shape.vocab, runner.model_digest,
    )  # fmt: skip
    entries = [
        ModuleEntry(layer, module, RANK, 1.0, *reversed(spec.shape(module)))
        for layer in range(spec.layers)
        for module in MODULES
    ]

    def noise(entry: ModuleEntry) -> tuple[np.ndarray, np.ndarray]:
        a, b = (RANK, entry.in_features), (entry.out_features, RANK)
        return (rng.normal(size=a) * 0.02).astype("<f2"), (rng.normal(size=b) * 0.02).astype("<f2")

    return [store.put(spec.digest, "F16", entries, noise).digest for _ in range(count)]


def books(runner: ModelRunner, kind: str, held: int, pages: int, blocks: int) -> tuple[KvCache, Residency]:
    """Room for `held` adapters of so many blocks, and so many pages; shared beyond half of each if unified."""
    size, page = runner.block_bytes, 16
    if kind == "split":
        return KvCache.alone(CacheConfig(page, pages), size), Residency(Budget(held * blocks * size))
    floors = max(pages // 2, 1), max(held * blocks // 2, blocks)
    prices = size / LOAD_BYTES_S, page / COMPUTE_TOKENS_S
    memory = Memory(ArenaConfig(pages + held * blocks, size, *floors, *prices), page)
    return memory.cache, memory.residency


def measure(runner: ModelRunner, digests: list[bytes], kind: str, held: int, multiple: float, requests: int) -> Point:
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
    footprint = runner.footprint(digests[0])
    pages = RUNNING * -(-(PROMPT + ANSWER) // 16) * 2
    cache, residency = books(runner, kind, held, pages, -(-footprint.bytes // runner.block_bytes))
    schedule = ScheduleConfig(token_budget=128, max_running=RUNNING, max_context=512)
    scheduler = Scheduler(schedule, cache, residency, runner.end_tokens, runner.vocab_size)
    rng, used = Random(1), digests[: max(1, round(held * multiple))]
    for index in range(requests):
        digest, prompt = rng.choice(used), tuple(rng.randrange(3, runner.vocab_size) for _ in range(PROMPT))
        key = Namespace(b"t", digest).key
        sampling = Sampling(ANSWER, seed=index, ignore_eos=True)
        submit = Submit(f"r{index}", prompt, sampling, key, digest, str(index % 4))
        assert scheduler.add(submit, footprint, 0.0) is None
    loads = steps = steady = 0
    began = time.perf_counter()
    while scheduler.has_work:
        running = scheduler._sequences.running
        decoding = {sequence.id for sequence in running if len(sequence.tokens) - sequence.computed == 1}
        plan = scheduler.plan(0.0)
        assert plan is not None
        loads, steps = loads + len(plan.load), steps + 1
        steady += decoding <= {row.sequence for row in plan.rows}
        scheduler.commit(plan, runner.run(plan), 0.0)
        if not plan.rows:
            time.sleep(0.002)  # as the worker does: only a load is waited for
    spent = time.perf_counter() - began
    made = scheduler.stats().completion_tokens
    return Point(multiple, kind, made / spent, made / steps, loads, steady / steps)


def cliff(
    model: Path, held: int, requests: int, multiples: tuple[float, ...] = MULTIPLES, passes: int = 3
) -> list[Point]:
    """Both kinds of memory at every multiple, alternating; the fastest of all passes over them."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder) / "adapters")
        config = EngineConfig(
            model, store.root, "", Path(folder), threads=1, memory="unified", adapter_bytes=256 << 20,
            schedule=ScheduleConfig(max_context=512), cache=CacheConfig(pages=512),
        )  # fmt: skip
        runner = ModelRunner(config)
        digests = adapters(runner, store, max(1, round(held * max(multiples))))
        measure(runner, digests, "split", held, 0.5, RUNNING)  # everything is warm after it
        points: dict[tuple[float, str], Point] = {}
        for _ in range(passes):
            for at in product(multiples, ("split", "unified")):
                point = measure(runner, digests, at[1], held, at[0], requests)
                points[at] = max(points.get(at, point), point, key=lambda p: p.tokens)
        runner.close()
    return list(points.values())


def main() -> None:
    share_interpreter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--held", type=int, default=16, help="adapters that fit")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--passes", type=int, default=3)
    a = parser.parse_args()
    points = cliff(a.model, a.held, a.requests, passes=a.passes)
    best = {point.memory: point.tokens for point in reversed(points)}
    for point in points:
        print(
            f"W7 {point.multiple:>3} x budget, {point.memory:7}: {point.tokens:7.0f} tokens/s, "
            f"{point.tokens / best[point.memory]:.2f} of the smallest set's, {point.per_step:.2f} per step, "
            f"{point.loads} loads, "
            f"{point.steady:.0%} of steps moved all who decode"
        )


if __name__ == "__main__":
    main()
