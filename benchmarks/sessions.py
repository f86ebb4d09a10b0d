"""Conversations that come back: first tokens of later turns, of what disk kept over a restart, and the price of both.

`python -m benchmarks.sessions [--model DIR] [--quick]`. One model in this process. The device holds the KV of two of
eight conversations, which take turns; each turn sends the whole history. All begin with their tenant's instructions,
people ask little and are told more. What is compared alternates.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

from benchmarks.lives import Life, Told
from benchmarks.report import Report, told
from benchmarks.targets import TARGETS
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.model.tiers import LowerTiers

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo" / "model"
SESSIONS, TURNS = 8, 6
INSTRUCTIONS, ASKED, ANSWERED = 512, 100, 128  # tokens; of a turn. Six turns fit the demo's 2,048
LONG = 2000
PAGE = 16


def words(rng: Random, vocab: int, count: int) -> list[int]:
    return [rng.randrange(3, vocab) for _ in range(count)]


def conversations(life: Life, vocab: int, seed: int, last: Callable[[list[int], Told], None]) -> float:
    """Tells `last` of every conversation's last turn. Returns the share of tokens that could have been found which
    were: a turn computes all of its text but the last token drawn, and whole pages of that can be found by the next;
    instructions by everyone but the first.
    """
    rng = Random(seed)
    instructions = words(rng, vocab, INSTRUCTIONS)
    texts = [list(instructions) for _ in range(SESSIONS)]
    found = bound = 0
    for turn in range(TURNS):
        for number, text in enumerate(texts):
            known = (len(text) - 1 if turn else INSTRUCTIONS if number else 0) // PAGE * PAGE
            text += words(rng, vocab, ASKED)
            [one] = life.ask([text], ANSWERED, session=b"%d" % number, keep_s=3600.0)
            life.rest()  # people think between turns
            found, bound = found + one.usage.cached, bound + known
            if turn == TURNS - 1:
                last(list(text), one)
            text += one.tokens
    return found / bound


def turns(report: Report, runner: ModelRunner, config: EngineConfig, rounds: int) -> None:
    """Turn 6 of eight conversations: with tiers, without any cache, and with all that was found on the device, where
    what is left is its uncached suffix."""
    vocab = runner.vocab_size
    small = replace(config, cache=CacheConfig(pages=2 * ((INSTRUCTIONS + TURNS * (ASKED + ANSWERED)) // PAGE + 2)))
    kept: list[float] = []
    bare: list[float] = []
    suffix: list[float] = []
    ratios: list[float] = []
    for at in range(rounds):
        life = Life(runner, replace(small, disk_cache_bytes=0))
        tiers = runner.tiers
        others = [Life(runner, config, tiers=False, forgetful=forgetful) for forgetful in (True, False)]

        def last(text: list[int], one: Told, others: list[Life] = others, tiers: LowerTiers | None = tiers) -> None:
            kept.append(one.first_s)
            runner.tiers = None
            bare.append(others[0].ask([text], 1)[0].first_s)
            others[1].ask([text[: one.usage.cached + 1]], 1)
            [inplace] = others[1].ask([text], 1)
            assert inplace.usage.cached == one.usage.cached, "another suffix"
            suffix.append(inplace.first_s)
            runner.tiers = tiers

        runner.tiers = tiers
        ratios.append(conversations(life, vocab, at, last))
        life.end()
    detail = {"kept_s": median(kept), "bare_s": median(bare), "suffix_s": median(suffix)}
    for what, value in {
        "turn 6 TTFT / its uncached suffix": median(kept) / median(suffix),
        "turn 6 TTFT, no cache / with tiers": median(bare) / median(kept),
        "turns' hit ratio / bound": min(ratios),
    }.items():
        report.show(what, value, TARGETS[what], **detail)


def restarts(report: Report, runner: ModelRunner, config: EngineConfig, rounds: int) -> None:
    """A prompt of 2k tokens: computed, from host memory, and from disk by another life of the engine."""
    rng, vocab = Random(7), runner.vocab_size
    computed: list[float] = []
    host: list[float] = []
    disk: list[float] = []
    for _ in range(rounds):
        prompt = words(rng, vocab, LONG)
        life = Life(runner, config)
        computed.append(life.ask([prompt], 1, session=b"s", keep_s=3600.0)[0].first_s)
        life.rest()
        life.evict()
        one = life.ask([prompt], 1)[0]
        assert one.usage.cached_host >= LONG - PAGE, "not from host memory"
        host.append(one.first_s)
        reborn = life.again()
        one = reborn.ask([prompt], 1)[0]
        assert one.usage.cached_disk >= LONG - PAGE, "not from disk"
        disk.append(one.first_s)
        reborn.end()
    for what, values in {"2k TTFT, disk / computed": disk, "2k TTFT, host memory / computed": host}.items():
        report.show(what, median(values) / median(computed), TARGETS[what], seconds=median(values))


def unused(report: Report, runner: ModelRunner, config: EngineConfig, rounds: int) -> None:
    """Prompts like no other: what tiers cost where nothing comes back. In turns, on the same machine."""
    rng, vocab = Random(9), runner.vocab_size
    small = replace(config, cache=CacheConfig(pages=8 * 20))
    lives = {tiers: Life(runner, small, tiers=tiers) for tiers in (False, True)}
    tiered = lives[True].runner.tiers
    times: dict[bool, list[float]] = {False: [], True: []}
    for at in range(2 * rounds + 2):
        on = bool(at % 2)
        life, runner.tiers = lives[on], tiered if on else None
        prompts = [words(rng, vocab, 256) for _ in range(16)]
        began = perf_counter()
        for start in range(0, len(prompts), 8):
            life.ask(prompts[start : start + 8], 32)
        life.rest()  # copies that still lie ahead are part of the price
        if at >= 2:  # the first of each fills the pages
            times[on].append(perf_counter() - began)
    runner.tiers = tiered
    lives[True].end()
    what = "throughput with tiers and no reuse / without tiers"
    ratios = [without / with_them for without, with_them in zip(times[False], times[True], strict=True)]
    report.show(what, median(ratios), TARGETS[what], seconds=median(times[True]), least=min(ratios), most=max(ratios))


def measure(report: Report, model: Path = DEMO, threads: int = 1, quick: bool = False) -> None:
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        config = EngineConfig(
            model_dir=model, adapter_dir=Path(folder) / "adapters", socket="", journal_dir=Path(folder),
            memory="unified", threads=threads, host_cache_bytes=1 << 30, disk_cache_bytes=4 << 30,
            disk_cache_dir=Path(folder) / "kv",
            cache=CacheConfig(pages=1024), schedule=ScheduleConfig(token_budget=512, max_context=2048),
        )  # fmt: skip
        runner = ModelRunner(config)
        warm = Life(runner, config, tiers=False, forgetful=True)
        warm.ask([[5] * 600, [6] * 40], 8)
        turns(report, runner, config, rounds)
        restarts(report, runner, config, 2 * rounds + 1)
        unused(report, runner, config, 8 * rounds)
        runner.close()


def main() -> None:
    share_interpreter()
    told("sessions", __doc__, measure, DEMO)


if __name__ == "__main__":
    main()
