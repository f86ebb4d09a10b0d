"""A hit gives the tokens of a miss, whichever way the KV came back: the demo model in fp32, prompts times ways.

`python -m benchmarks.equality [--prompts 500] [--model DIR]`. Every prompt is answered by an engine that remembers
nothing, and then from the device, from host memory, from disk, after a restart, and where requests give way to each
other. Exit status 1 where one token differs.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from time import perf_counter

from benchmarks.lives import Life, Told
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo" / "model"
NEW, AT_ONCE = 16, 16
CROWDED, CROWDED_NEW, CROWDED_PAGES = 60, 56, 24  # prompts, answers long enough to want each other's pages
WAYS = ("device", "host memory", "disk", "restart", "preemption")


def prompts_of(count: int, vocab: int, seed: int = 0) -> list[list[int]]:
    """Some in families that begin alike, of 20 to 150 tokens."""
    rng = Random(seed)

    def word(length: int) -> list[int]:
        return [rng.randrange(3, vocab) for _ in range(length)]

    families = [word(rng.randint(16, 80)) for _ in range(max(1, count // 10))]
    return [(rng.choice(families) if rng.random() < 0.5 else []) + word(rng.randint(20, 70)) for _ in range(count)]


def compare(model: Path, count: int, say: Callable[[str], None] = print) -> dict[str, int]:
    """By way: prompts whose tokens differ from those of an engine that remembers nothing."""
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(
            model_dir=model, adapter_dir=Path(folder) / "adapters", socket="", journal_dir=Path(folder),
            dtype="float32", host_cache_bytes=1 << 30, disk_cache_bytes=1 << 30, disk_cache_dir=Path(folder) / "kv",
            cache=CacheConfig(pages=4096), schedule=ScheduleConfig(token_budget=512, max_context=512),
        )  # fmt: skip
        runner = ModelRunner(config)
        prompts = prompts_of(count, runner.vocab_size)
        cold = Life(runner, config, tiers=False, forgetful=True)
        longer = [cold.ask([prompt], CROWDED_NEW)[0].tokens for prompt in prompts[:CROWDED]]
        expected = [tokens[:NEW] for tokens in longer]
        expected += [cold.ask([prompt], NEW)[0].tokens for prompt in prompts[CROWDED:]]
        differing: dict[str, int] = {}

        def judge(way: str, told: Sequence[Told], found: int, right: Sequence[list[int]] = expected) -> None:
            differing[way] = sum(t.tokens != wanted for t, wanted in zip(told, right, strict=True))
            what = "preemptions" if way == WAYS[-1] else "tokens found there"
            say(f"{way:12} {len(told)} prompts, {found} {what}, {differing[way]} differ")
            if not found:
                raise RuntimeError(f"nothing came from {way}: there was nothing to compare")

        life = Life(runner, config)
        for _ in range(2):
            told = every(life, prompts)
        judge("device", told, sum(t.usage.cached - t.usage.cached_host - t.usage.cached_disk for t in told))
        life.evict()
        told = every(life, prompts)
        judge("host memory", told, sum(t.usage.cached_host for t in told))
        small = life.again(host_cache_bytes=64 * runner.block_bytes)
        told = every(small, prompts, at_once=1)
        judge("disk", told, sum(t.usage.cached_disk for t in told))
        reborn = small.again(host_cache_bytes=1 << 30)
        told = every(reborn, prompts)
        judge("restart", told, sum(t.usage.cached_disk for t in told))
        crowded = reborn.again(cache=CacheConfig(pages=CROWDED_PAGES), disk_cache_bytes=0)
        told = crowded.ask(prompts[:CROWDED], CROWDED_NEW)
        judge("preemption", told, crowded.scheduler.stats().preemptions, longer)
        crowded.end()
        runner.close()
    return differing


def every(life: Life, prompts: Sequence[Sequence[int]], at_once: int = AT_ONCE) -> list[Told]:
    told: list[Told] = []
    for start in range(0, len(prompts), at_once):
        told += life.ask(prompts[start : start + at_once], NEW)
    return told


def main(argv: Sequence[str] | None = None) -> int:
    share_interpreter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--model", type=Path, default=DEMO)
    options = parser.parse_args(argv)
    began = perf_counter()
    differing = compare(options.model, options.prompts)
    print(f"{sum(differing.values())} of {options.prompts * len(differing)} differ, {perf_counter() - began:.0f} s")
    return 1 if any(differing.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
