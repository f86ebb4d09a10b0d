"""Guesses never change a text: every scheme and sampling on the demo model, with speculation on and off.

Mixed adapters and the base, greedy and seeded, through engine, scheduler and model in one process. In fp32 no token
may differ; in bfloat16 the rate at which texts part is printed, since a batch of another shape rounds otherwise.
Exit status 1 where fp32 texts differ, or where no guess of a scheme stood, since that shows nothing.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from benchmarks.engines import engine_around
from benchmarks.guessing import CONTEXT, PAGES
from benchmarks.speculation import Bench, asks, demo, option
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, ScheduleConfig
from tenantry.runtime.messages import Finished, Sampling, Submit, Tokens
from tenantry.runtime.model.lora import share_interpreter
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import StepPlan
from tenantry.runtime.speculative.options import parse
from tenantry.runtime.speculative.speculator import Guess, Speculator
from tenantry.runtime.stops import StopWatch

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature 1": {"temperature": 1.0},
    "top-p": {"temperature": 0.9, "top_p": 0.8},
    "penalties": {"temperature": 0.8, "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.1},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
}
DEPTH = 4
TREES = "tree:"  # before an option: its proposer grows trees
Told = dict[str, tuple[list[int], list[Any]]]


class Bushy(Speculator):
    """Asks for trees of three nodes a level instead of chains."""

    def propose(self, *asked: Any) -> Mapping[int, Guess]:
        found = super().propose(*asked)
        return {name: msgspec.structs.replace(guess, nodes=3 * guess.ahead) for name, guess in found.items()}


def requests(bench: Bench, count: int, new: int, options: Mapping[str, Any]) -> list[Submit]:
    """Half of them tasks of the adapters, the rest the base's talk and copying."""
    found = []
    for kind, share in (("tasks", count - count // 2), ("chat", count // 4), ("copy", count // 2 - count // 4)):
        found += asks(bench, kind, share, 0)
    return [
        Submit(
            f"r{i}",
            ask.prompt,
            Sampling(max_tokens=new, seed=i, **options),
            ask.adapter or bytes(32),
            ask.adapter,
            "t",
        )
        for i, ask in enumerate(found)
    ]


def serve(
    bench: Bench, runner: ModelRunner, asked: Sequence[Submit], speculator: Speculator | None
) -> tuple[Told, int]:
    """What each request was told, tokens and logprobs, and how many guesses stood."""
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))
    schedule = ScheduleConfig(token_budget=512, max_running=16, max_waiting=len(asked), max_context=CONTEXT)
    cache = KvCache.alone(CacheConfig(pages=PAGES))
    engine = engine_around(runner, schedule, cache, StopWatch(bench.text), speculator=speculator)
    for submit in asked:
        refused = engine.submit(submit, 0.0)
        assert refused is None, refused
    told: Told = {submit.request_id: ([], []) for submit in asked}
    accepted = 0
    while engine.has_work:
        for event in engine.step(0.0):
            if isinstance(event, Tokens):
                told[event.request_id][0].extend(event.tokens)
                told[event.request_id][1].extend(event.logprobs or ())
            elif isinstance(event, Finished):
                assert event.reason in ("stop", "length"), event
                accepted += event.usage.accepted
    return told, accepted


def parted(plain: Told, other: Told) -> tuple[int, int]:
    """How many texts differ, and how many tokens came before they did (all tokens where they do not)."""
    texts, same = 0, 0
    for name, (tokens, logprobs) in plain.items():
        mine, theirs = other[name]
        agree = next((i for i, (a, b) in enumerate(zip(tokens, mine, strict=False)) if a != b), None)
        texts += mine != tokens
        same += len(tokens) if agree is None else agree
        assert len(theirs) == len(logprobs) or mine != tokens, "log-probabilities of other texts, or missing"
        assert len(theirs) == (len(mine) if logprobs else 0), "log-probabilities for other tokens than were told"
        for a, b in zip(logprobs[:agree], theirs[:agree], strict=False):
            assert a.token == b.token, "log-probabilities of another token"
    return texts, same


def main() -> None:
    share_interpreter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--schemes", default="ngram,draft,tree:draft,self,eagle,tree:eagle,auto,auto+eagle")
    parser.add_argument("--samplings", default=",".join(SAMPLINGS))
    a = parser.parse_args()
    differ, idle = 0, []
    with tempfile.TemporaryDirectory() as folder:
        bench = demo(Path(folder))
        config = replace(bench.config, dtype=a.dtype)
        off = ModelRunner(config)
        print(f"{'scheme':12}{'sampling':15}{'prompts':>8}{'tokens':>8}{'accepted':>9}{'texts that differ':>19}"
              f"{'per 1000 tokens':>17}{'seconds':>9}")  # fmt: skip
        plain = {name: requests(bench, a.prompts, a.new, SAMPLINGS[name]) for name in a.samplings.split(",")}
        expected = {name: serve(bench, off, asked, None)[0] for name, asked in plain.items()}
        for scheme in a.schemes.split(","):
            asked_for = option(scheme.removeprefix(TREES), Path(folder))
            choice, runner = parse(asked_for), ModelRunner(replace(config, speculate=asked_for))
            for name, asked in plain.items():
                kind = Bushy if scheme.startswith(TREES) else Speculator
                began = perf_counter()
                told, accepted = serve(bench, runner, asked, kind(choice.ngram, choice.model, DEPTH))
                texts, same = parted(expected[name], told)
                tokens = sum(len(tokens) for tokens, _ in told.values())
                differ += texts
                if not accepted:
                    idle.append(f"{scheme} {name}")
                rate, seconds = 1000 * texts / max(1, same), perf_counter() - began
                line = f"{scheme:12}{name:15}{len(asked):>8}{tokens:>8}{accepted:>9}{texts:>19}{rate:>17.3f}"
                print(f"{line}{seconds:>9.1f}", flush=True)
            runner.close()
    if idle:
        print(f"not shown, no guess stood: {', '.join(idle)}")
    if idle or (differ and a.dtype == "float32"):
        sys.exit(1)


if __name__ == "__main__":
    main()
