"""Speculation on the demo model, beside the same requests without it: tokens per step, acceptance, speed-up.

Engine and runner in one process, no gateway: what is measured is guessing, judging and the steps. Off and on take
turns request set by request set, so that what else the machine does hits both. The prediction is the formula of
Leviathan et al. 2023 with this run's own acceptance and step times: tau / (v + c), tau tokens per step over
a step with guesses (v) and guessing itself (c), both in units of a plain step.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter

from tenantry.adapters.base_digest import digest_model
from tenantry.adapters.manifest import BaseSpec
from tenantry.adapters.residency import Residency
from tenantry.adapters.room import Budget, Footprint
from tenantry.adapters.store import LocalStore
from tenantry.adapters.validate import validate
from tenantry.runtime.cache.leases import KvCache
from tenantry.runtime.config import CacheConfig, EngineConfig, ScheduleConfig
from tenantry.runtime.engine import Engine
from tenantry.runtime.messages import Finished, Sampling, Submit
from tenantry.runtime.model.runner import ModelRunner
from tenantry.runtime.plan import StepPlan, StepResult
from tenantry.runtime.scheduler.scheduler import Scheduler
from tenantry.runtime.speculative.options import parse
from tenantry.runtime.speculative.speculator import Speculator
from tenantry.runtime.stops import StopWatch
from tenantry.runtime.text import TextModel

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo"
NEW = 48


class Silent:
    """A journal for nobody."""

    def append(self, records: Sequence[object]) -> None:
        pass


@dataclass
class Timed:
    """A runner that remembers what its steps took. plain, guessing: seconds of decode steps without and with drafts;
    ahead: of proposing."""

    runner: ModelRunner
    plain: list[float] = field(default_factory=list)
    guessing: list[float] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    steps: int = 0

    def run(self, plan: StepPlan) -> StepResult:
        result = self.runner.run(plan)
        if plan.rows and all(len(row.tokens) == 1 for row in plan.rows):
            self.steps += len(plan.rows)
            drafts = any(row.draft is not None for row in plan.rows)
            (self.guessing if drafts else self.plain).append(result.seconds)
            self.ahead.append(result.guessing_seconds)
        return result


@dataclass
class Score:
    seconds: float = 0.0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0


def prompts(text: TextModel, kind: str, count: int, seed: int) -> list[tuple[str | None, tuple[int, ...]]]:
    """(adapter or None, ids). tasks: the demo's own, held out; chat: the base talks; copy: the answer repeats."""
    sys.path.insert(0, str(DEMO.parent))
    from demo.evaluate import CHAT_PROMPTS
    from demo.tasks import TASKS

    rng = random.Random(f"{kind}{seed}")
    found: list[tuple[str | None, tuple[int, ...]]] = []
    while len(found) < count:
        if kind == "tasks":
            name = rng.choice(sorted(TASKS))
            messages = next(TASKS[name].examples(rng.randrange(1 << 30), held_out=True)).messages
            found.append((name, tuple(text.render(messages))))
        elif kind == "chat":
            found.append((None, tuple(text.render([{"role": "user", "content": rng.choice(CHAT_PROMPTS)}]))))
        else:
            words = text.encode(rng.choice(CHAT_PROMPTS) + " ")
            found.append((None, tuple((words * 40)[:160])))
    return found


def serve(timed: Timed, store: LocalStore, digests: dict[str, bytes], asked, batch: int, speculator) -> Score:
    schedule = ScheduleConfig(token_budget=256 + batch, max_running=batch, max_context=1024)
    runner = timed.runner
    cache, residency = KvCache.alone(CacheConfig(pages=2048)), Residency(Budget(1 << 30))
    scheduler = Scheduler(schedule, cache, residency, runner.end_tokens, runner.vocab_size)
    runner.run(StepPlan(0, (), evict=tuple(runner.adapters.resident)))

    def footprint(digest: bytes) -> Footprint:
        return Footprint((store.size(digest),))

    stops = StopWatch(TextModel.load(DEMO / "model"))
    engine = Engine(scheduler, timed, Silent(), stops, footprint, speculator)
    for name in {name for name, _ in asked if name}:
        engine.warm(digests[name])
    while len(timed.runner.adapters.resident) < len({name for name, _ in asked if name}):
        engine.step(0.0)
    score, began = Score(), perf_counter()
    for i, (name, ids) in enumerate(asked):
        digest = digests[name] if name else None
        sampling = Sampling(max_tokens=NEW, temperature=0.0)
        assert engine.submit(Submit(f"r{i}", ids, sampling, digest or bytes(32), digest, "t"), 0.0) is None
    while engine.has_work:
        for event in engine.step(0.0):
            if isinstance(event, Finished):
                score.tokens += event.usage.completion
                score.drafted += event.usage.drafted
                score.accepted += event.usage.accepted
    score.seconds = perf_counter() - began
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--kinds", default="tasks,chat,copy")
    parser.add_argument("--speculate", default="ngram,draft,auto")
    parser.add_argument("--depths", default="0", help="0 lets measurements decide")
    parser.add_argument("--rounds", type=int, default=4)
    a = parser.parse_args()
    text = TextModel.load(DEMO / "model")
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        config = EngineConfig(DEMO / "model", Path(folder), "", Path(folder), cache=CacheConfig(pages=2048),
                              schedule=ScheduleConfig(max_context=1024))  # fmt: skip
        shape = json.loads((DEMO / "model" / "config.json").read_text())
        spec = BaseSpec.from_config(shape, digest_model(DEMO / "model"))
        digests = {}
        for path in sorted((DEMO / "adapters").iterdir()):
            report = validate(path, spec, store=store)
            assert report.manifest is not None, report.problems
            digests[path.name] = report.manifest.digest
        plain = Timed(ModelRunner(config))
        guessing = {}
        print(f"{'prompts':8}{'batch':>6}  {'speculate':10}{'depth':>6}{'tok/row-step':>14}{'accepted':>10}"
              f"{'off tok/s':>11}{'on tok/s':>10}{'speed-up':>10}{'predicted':>11}")  # fmt: skip
        for kind in a.kinds.split(","):
            for batch in map(int, a.batches.split(",")):
                for word in a.speculate.split(","):
                    option = word if word == "ngram" else f"{word}:{DEMO / 'draft'}"
                    if word not in guessing:
                        guessing[word] = ModelRunner(replace(config, speculate=option))
                    for depth in map(int, a.depths.split(",")):
                        row(a, kind, batch, word, option, depth, plain, Timed(guessing[word]), store, digests, text)


def row(a, kind, batch, word, option, depth, plain, timed, store, digests, text) -> None:
    choice = parse(option, depth)
    speculator = Speculator(choice.ngram, choice.model, depth)
    ratios, off, on = [], Score(), Score()
    plain.plain, plain.steps = [], 0
    for turn in range(a.rounds + 1):
        asked = prompts(text, kind, 2 * batch if batch > 1 else 6, turn)
        without = serve(plain, store, digests, asked, batch, None)
        with_ = serve(timed, store, digests, asked, batch, speculator)
        if turn == 0:
            timed.steps, plain.plain, timed.guessing, timed.ahead, timed.plain = 0, [], [], [], []
            continue
        ratios.append(with_.tokens / with_.seconds / (without.tokens / without.seconds))
        for total, one in ((off, without), (on, with_)):
            total.seconds, total.tokens = total.seconds + one.seconds, total.tokens + one.tokens
            total.drafted, total.accepted = total.drafted + one.drafted, total.accepted + one.accepted
    base = median(plain.plain)
    cost = (sum(timed.guessing) + sum(timed.plain) + sum(timed.ahead)) / max(1, len(timed.ahead)) / base
    tau = 1 + on.accepted / max(1, timed.steps)
    print(f"{kind:8}{batch:>6}  {word:10}{depth or 'auto':>6}{tau:>14.2f}{on.accepted / max(1, on.drafted):>10.2f}"
          f"{off.tokens / off.seconds:>11.0f}{on.tokens / on.seconds:>10.0f}{median(ratios):>10.2f}"
          f"{tau / cost:>11.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
