"""A hit gives the tokens of a miss, whichever way the KV came back: the demo model in fp32, prompts times ways.

`python -m benchmarks.equality [--prompts 500]`. The base and all adapters, greedy and with seeds. Every prompt is
answered by an engine that remembers nothing, and then from the device, from host memory, from disk, after a restart,
where requests give way to each other (the first 60), and where another engine computes the prompt. Exit status 1 if
one token differs, or if nothing came a way.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from benchmarks.lives import BASE, GREEDY, Life, Told
from benchmarks.pair import Pair
from benchmarks.speculation import demo
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.messages import Sampling, Submit
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.namespace import Namespace

NEW, AT_ONCE = 16, 16
CROWDED, CROWDED_NEW, CROWDED_PAGES = 60, 56, 24  # at once, with answers long enough to want each other's pages
WAYS: Mapping[str, str] = {
    "device": "tokens found there",
    "host memory": "tokens found there",
    "disk": "tokens found there",
    "restart": "tokens found on disk",
    "preemption": "preemptions",
    "hand-off": "prompts handed over",
}  # and what shows that it was taken


@dataclass(frozen=True, slots=True)
class Ask:
    """adapter: its digest, or None for the base. drawn: fields of Sampling."""

    prompt: tuple[int, ...]
    adapter: bytes | None
    drawn: Mapping[str, Any]


def asks_of(count: int, vocab: int, adapters: Sequence[bytes], seed: int = 0) -> list[Ask]:
    """Some in families that begin alike, of 20 to 150 tokens. A family has one adapter, or the base; a third is
    greedy."""
    rng = Random(seed)
    weights = [None, *adapters]

    def word(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocab) for _ in range(length))

    families = [(word(rng.randint(16, 80)), rng.choice(weights)) for _ in range(max(1, count // 10))]
    found: list[Ask] = []
    for n in range(count):
        begin, adapter = rng.choice(families) if rng.random() < 0.5 else ((), rng.choice(weights))
        samplings = (GREEDY, {"temperature": 1.0, "seed": n}, {"temperature": 0.8, "top_p": 0.9, "seed": n})
        found.append(Ask(begin + word(rng.randint(20, 70)), adapter, rng.choice(samplings)))
    return found


def compare(count: int, say: Callable[[str], None] = print) -> dict[str, int]:
    """By way: prompts whose tokens differ from those of an engine that remembers nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bench = demo(folder / "adapters")
        config = replace(
            bench.config, journal_dir=folder, dtype="float32", host_cache_bytes=1 << 30, disk_cache_bytes=1 << 30,
            disk_cache_dir=folder / "kv", cache=CacheConfig(pages=4096),
            schedule=ScheduleConfig(token_budget=512, max_context=512),
        )  # fmt: skip
        runner = ModelRunner(config)
        asks = asks_of(count, runner.vocab_size, sorted(bench.digests.values()))
        cold = Life(runner, config, tiers=False, forgetful=True)
        longer = [told.tokens for told in every(cold, asks, CROWDED_NEW, at_once=1)]
        expected = [tokens[:NEW] for tokens in longer]
        cold.end()
        differing: dict[str, int] = {}

        def judge(way: str, told: Sequence[Told], found: int, right: Sequence[list[int]] = expected) -> None:
            differing[way] = sum(t.tokens != wanted for t, wanted in zip(told, right, strict=True))
            say(f"{way:12} {len(told)} prompts, {found} {WAYS[way]}, {differing[way]} differ")
            if not found:
                raise RuntimeError(f"nothing came from {way}: there was nothing to compare")

        life = Life(runner, config)
        for _ in range(2):
            told = every(life, asks)
        judge("device", told, sum(t.usage.cached - t.usage.cached_host - t.usage.cached_disk for t in told))
        life.evict()
        told = every(life, asks)
        judge("host memory", told, sum(t.usage.cached_host for t in told))
        small = life.again(host_cache_bytes=64 * runner.block_bytes)
        told = every(small, asks, at_once=1)
        judge("disk", told, sum(t.usage.cached_disk for t in told))
        reborn = small.again(host_cache_bytes=1 << 30)
        told = every(reborn, asks)
        judge("restart", told, sum(t.usage.cached_disk for t in told))
        crowded = reborn.again(cache=CacheConfig(pages=CROWDED_PAGES), disk_cache_bytes=0)
        told = every(crowded, asks, CROWDED_NEW, at_once=CROWDED)
        judge("preemption", told, crowded.scheduler.stats().preemptions, longer)
        crowded.end()
        judge("hand-off", *handed_over(asks, config, runner, folder / "shared"))
        runner.close()
    return differing


def every(life: Life, asks: Sequence[Ask], new: int = NEW, at_once: int = AT_ONCE) -> list[Told]:
    told: list[Told] = []
    for start in range(0, len(asks), at_once):
        some = asks[start : start + at_once]
        told += life.answers([life.submit(a.prompt, new, adapter=a.adapter, drawn=a.drawn) for a in some])
    return told


def handed_over(
    asks: Sequence[Ask], config: EngineConfig, runner: ModelRunner, shared: Path
) -> tuple[list[Told], int]:
    """What the pair told, and how many prompts one engine computed and the other decoded. The decoder forgets what it
    has after every few, or it would have most of what is to be handed over."""
    bare = replace(config, host_cache_bytes=0, disk_cache_bytes=0)
    decoder = ModelRunner(bare)
    pair = Pair(bare, runner, decoder, shared)
    told: list[Told] = []
    for start in range(0, len(asks), AT_ONCE):
        some = enumerate(asks[start : start + AT_ONCE], start)
        told += pair.ask([submit(f"r{n}", ask) for n, ask in some])
        pair.forget()
    taken = pair.taken
    pair.close()
    decoder.close()
    return told, taken


def submit(name: str, ask: Ask) -> Submit:
    sampling = Sampling(max_tokens=NEW, ignore_eos=True, **ask.drawn)
    return Submit(name, ask.prompt, sampling, Namespace(b"tenant", ask.adapter or BASE).key, ask.adapter, "tenant")


def main(argv: Sequence[str] | None = None) -> int:
    share_interpreter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=500)
    options = parser.parse_args(argv)
    began = perf_counter()
    differing = compare(options.prompts)
    asked = options.prompts * len(differing)
    print(f"{sum(differing.values())} of {asked} differ, {perf_counter() - began:.0f} s")
    return 1 if any(differing.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
