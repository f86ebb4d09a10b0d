"""The scheduler's own cost: microseconds per step at 64 running requests, and per prefix match in a large tree.

`python -m benchmarks.scheduler`. One core, no device: plan and commit alone, with results made up outside the clock.
Targets: 300 us per step, 30 us per match of a 1k-token prompt at 100k nodes.
"""

import gc
import statistics
from random import Random
from time import perf_counter

from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.cache.radix import RadixTree
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Sampling, Submit
from tenantry.runtime.namespace import Namespace
from tenantry.runtime.plan import RowResult, StepResult
from tenantry.runtime.scheduler.scheduler import Scheduler

VOCAB = 32_000
STEP_TARGET_US = 300.0
MATCH_TARGET_US = 30.0


def decode_steps(running: int = 64, prompt: int = 1024, adapters: int = 16, steps: int = 300) -> list[float]:
    """Microseconds of plan + commit, step by step, while `running` requests of mixed adapters decode."""
    rng = Random(0)
    digests = [None] + [bytes([i + 1]) * 32 for i in range(adapters)]
    scheduler = Scheduler(
        ScheduleConfig(token_budget=8192, max_running=running, max_context=4096),
        KvCache.alone(CacheConfig(page_size=16, pages=running * (prompt // 16 + 64))),
        Residency(Budget(1 << 30)),
        (1,),
        VOCAB,
    )
    for i in range(running):
        digest = digests[i % len(digests)]
        namespace = Namespace(b"tenant%d" % (i % 4), digest or bytes(32)).key
        tokens = tuple(rng.randrange(2, VOCAB) for _ in range(prompt))
        sampling = Sampling(max_tokens=1 + steps * 2, seed=i)
        submit = Submit(f"r{i}", tokens, sampling, namespace, digest, f"tenant{i % 4}")
        assert scheduler.add(submit, Footprint((1 << 20,)), 0.0) is None
    times: list[float] = []
    while len(times) < steps:
        before = perf_counter()
        plan = scheduler.plan(0.0)
        planned = perf_counter()
        assert plan is not None
        rows = tuple(RowResult((rng.randrange(2, VOCAB),) if row.draw else ()) for row in plan.rows)
        result = StepResult(rows, loaded=tuple(load.digest for load in plan.load))
        after = perf_counter()
        scheduler.commit(plan, result, 0.0)
        done = perf_counter()
        if len(plan.rows) == running and all(len(row.tokens) == 1 for row in plan.rows):
            times.append((planned - before + done - after) * 1e6)
    return times


def prefix_matches(nodes: int = 100_000, prompt: int = 1024, page_size: int = 16) -> dict[str, float]:
    """Microseconds per operation in a tree of `nodes` nodes over prompts that share prefixes."""
    rng = Random(0)
    tree = RadixTree(page_size, lambda page: None)
    namespace = Namespace(b"tenant", bytes(32)).key
    root = tree.plant(namespace, None)
    shared = [tuple(rng.randrange(VOCAB) for _ in range(prompt // 2)) for _ in range(100)]
    prompts, page = [], 0
    times: dict[str, list[float]] = {"insert a page": [], "match": [], "lock and unlock": [], "evict a page": []}
    while tree.nodes < nodes:
        tail = tuple(rng.randrange(VOCAB) for _ in range(prompt // 2))
        tokens = shared[len(prompts) % len(shared)] + tail
        prompts.append(tokens)
        before = perf_counter()
        node = root
        tree.lock(node)
        for at in range(0, prompt, page_size):
            node = tree.insert(node, tokens[at : at + page_size], page)
            page += 1
        tree.unlock(node)
        times["insert a page"].append((perf_counter() - before) * 1e6 / (prompt // page_size))
    rng.shuffle(prompts)
    for tokens in prompts[:1000]:
        before = perf_counter()
        match = tree.match(namespace, tokens)
        between = perf_counter()
        assert match.node is not None
        assert len(match.pages) == prompt // page_size
        tree.lock(match.node)
        tree.unlock(match.node)
        times["match"].append((between - before) * 1e6)
        times["lock and unlock"].append((perf_counter() - between) * 1e6)
    before = perf_counter()
    tree.evict(10_000)
    times["evict a page"].append((perf_counter() - before) * 1e6 / 10_000)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    gc.collect()
    gc.freeze()
    times = sorted(decode_steps())
    middle, high = times[len(times) // 2], times[int(len(times) * 0.95)]
    print(f"scheduler, 64 running of 1k tokens, 17 adapters: median {middle:.0f} us, p95 {high:.0f} us per step")
    print(f"  target {STEP_TARGET_US:.0f} us: {'met' if middle <= STEP_TARGET_US else 'MISSED'}")
    for name, micros in prefix_matches().items():
        print(f"prefix tree, 100k nodes, 1k-token prompts: {name} {micros:.2f} us")
        if name == "match":
            print(f"  target {MATCH_TARGET_US:.0f} us: {'met' if micros <= MATCH_TARGET_US else 'MISSED'}")


if __name__ == "__main__":
    main()
